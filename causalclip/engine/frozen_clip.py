"""The frozen CLIP of a trainer: features, precision and classification in fp32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from yacs.config import CfgNode

from causalclip.clip.backbone import load_clip
from causalclip.clip.encode import encode_image, encode_image_unprojected
from causalclip.clip.interface import backbone_of
from causalclip.clip.openai_clip import ActivationError, CLIPModel
from causalclip.clip.weights import weights_digest
from causalclip.clip.zeroshot import cosine_logits
from causalclip.icm.subspace import InvariantProjection


@dataclass(frozen=True, eq=False)
class FrozenCLIP:
    """A CLIP whose weights do not learn."""

    model: CLIPModel
    device: torch.device
    precision: str
    """fp32, fp16, bf16 or amp."""
    digest: str
    """sha256 of the weights."""
    projection: InvariantProjection | None = None
    """Projection to the subspace of classification; None: all dimensions are used."""

    @classmethod
    def from_cfg(cls, cfg: CfgNode, settings: CfgNode, device: torch.device) -> FrozenCLIP:
        """Load the CLIP that MODEL.BACKBONE names, with PREC and PROJECTION of the method's node.

        Raises:
            ValueError: an INPUT.SIZE that is not the backbone's, or a projection of another width.
        """
        node = cfg.MODEL.BACKBONE
        print(f"Loading CLIP (backbone: {node.NAME})")
        if settings.PREC == "fp16" and device.type == "cpu":
            print("Note: PREC fp16 is about 100 times slower than fp32 on a CPU")
        try:
            model = load_clip(
                node.NAME,
                device=device,
                precision=settings.PREC,
                trust_torchscript=node.get("TRUST_TORCHSCRIPT", False),
                activation=node.get("ACTIVATION", ""),
            )
        except ActivationError as error:
            raise ValueError(f"MODEL.BACKBONE.ACTIVATION: {error}") from error
        backbone = backbone_of(model)
        size = (backbone.image_size, backbone.image_size)
        if tuple(cfg.INPUT.SIZE) != size:
            raise ValueError(
                f"INPUT.SIZE must be {size} for {node.NAME}, got {tuple(cfg.INPUT.SIZE)}"
            )
        projection = None
        if path := settings.get("PROJECTION", ""):
            projection = InvariantProjection.load(path).to(device)
            if projection.basis.shape[0] != backbone.embed_dim:
                raise ValueError(
                    f"{path}: projection of {projection.basis.shape[0]}-d features, "
                    f"but {node.NAME} has {backbone.embed_dim}-d features"
                )
        return cls(model, device, settings.PREC, weights_digest(model), projection)

    @property
    def embed_dim(self) -> int:
        """Number of feature dimensions E."""
        return backbone_of(self.model).embed_dim

    @property
    def text_width(self) -> int:
        """Width D of the text tower.

        Raises:
            ValueError: a text tower that does not support prompts.
        """
        return backbone_of(self.model).text_tower().width

    @property
    def logit_scale(self) -> Tensor:
        """exp(logit_scale) in fp32; 100 in the released models."""
        return self.model.logit_scale.detach().float().exp()

    def autocast(self) -> torch.autocast:
        """Return the autocast context: fp16 on a GPU, bf16 on a CPU; enabled only for PREC amp."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision == "amp")

    def scaler(self) -> torch.amp.GradScaler:
        """Return the gradient scaler, enabled only for PREC amp on a GPU."""
        on_gpu = self.device.type == "cuda"
        return torch.amp.GradScaler(enabled=on_gpu and self.precision == "amp")

    def encode(self, images: Tensor) -> Tensor:
        """Return the features (B, E) of images (B, 3, R, R), without prompts."""
        with self.autocast():
            return encode_image(self.model, images.to(self.device, non_blocking=True))

    def encode_unprojected(self, images: Tensor) -> Tensor:
        """Return OpenAI's ViT features (B, D) of images (B, 3, R, R) before the projection."""
        with self.autocast():
            images = images.to(self.device, non_blocking=True)
            return encode_image_unprojected(self.model, images)

    def project(self, features: Tensor) -> Tensor:
        """Return features (..., E) in fp32; (..., k) in the subspace if there is a projection."""
        features = features.float()
        return features if self.projection is None else self.projection(features)

    def classify(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Return scale * cosine (..., K), in the subspace if there is a projection.

        Image features (..., E) need not be normalised. Text features are (K, E), or (..., K, E) if
        each image or template has its own.
        """
        return cosine_logits(
            self.project(image_features), self.project(text_features), self.logit_scale
        )
