"""What every method shares: the frozen CLIP, its features, classifying, the check of settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from dassl.data import DataManager
from torch import Tensor
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from causalclip.clip.backbone import load_clip, weights_digest
from causalclip.clip.encode import encode_image
from causalclip.clip.kinds import backbone_of
from causalclip.clip.zeroshot import cosine_logits
from causalclip.data.templates import given_template
from causalclip.engine.backbone_input import as_the_backbone_reads, image_transform
from causalclip.engine.cache_size import feature_home
from causalclip.engine.common_settings import (
    check_common,
    check_domains_known,
    check_several_classes,
)
from causalclip.engine.distributed import own, world_size
from causalclip.engine.evaluation import EvaluatedTrainer
from causalclip.engine.feature_cache import Change, Encoder
from causalclip.engine.loading import Epochs, shown_by, training_loader
from causalclip.engine.prediction import Prediction
from causalclip.engine.settings import Constraint, OneOf, Text, check_settings
from causalclip.icm.subspace import InvariantProjection

PRECISIONS = ("fp32", "fp16", "bf16", "amp")

# Settings that mean the same in every method that has them.
SHARED: Mapping[str, Constraint] = {
    "PREC": OneOf(PRECISIONS),
    "PROJECTION": Text(),  # file of an invariant projection, or empty
    "TEMPLATE": Text(holding="{}"),  # empty takes the data set's published template
}


class CLIPTrainer(EvaluatedTrainer):
    """A method on a frozen CLIP: subclasses say what they learn and how they predict.

    A subclass sets `config_node` (its node below `cfg.TRAINER`), `defaults` (that node's
    keys and values) and `constraints` (what may stand there), builds what it needs in
    `build_method` and answers `predict`; or `predict_features`, where it leaves the image
    tower alone and says so.
    """

    config_node: str
    defaults: Mapping[str, Any] = {}
    constraints: Mapping[str, Constraint] = {}  # a key without one is not checked
    knows_other_classes = True  # whether it can name classes it was not trained on

    # Whether the method classifies the features of CLIP's own image tower. An evaluation then reads
    # them from the feature cache, whichever method or seed encoded them first.
    image_tower_untouched: bool = False

    @property
    def settings(self) -> CfgNode:
        """This method's own node of the configuration."""
        return self.cfg.TRAINER[self.config_node]

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuse settings that this method cannot run with, before any work.

        Raises:
            ValueError: names the key, what is allowed and what came.
        """
        node = self.config_node
        check_settings(cfg.TRAINER[node], {**SHARED, **self.constraints}, where=f"TRAINER.{node}")
        if not cfg.MODEL.BACKBONE.NAME:
            raise ValueError("MODEL.BACKBONE.NAME is empty: name a CLIP, for example tiny")
        check_common(cfg)
        given_template(cfg)  # raises for a DATASET.TEMPLATE that is none

    # Building

    def train_views(self) -> list | None:
        """The transforms of the training images, one per view; None takes INPUT.TRANSFORMS."""
        return None

    def build_data_loader(self) -> None:
        """As Dassl's, with `train_views` as the training transforms and DATALOADER.DRAWS.

        INPUT becomes what the backbone learned with, where it says so.

        Raises:
            ValueError: data of one class, domains of data that have none, or an unknown backbone.
        """
        self.cfg = as_the_backbone_reads(self.cfg)
        self.dm = DataManager(
            self.cfg, custom_tfm_train=self.train_views(), custom_tfm_test=image_transform(self.cfg)
        )
        check_domains_known(self.cfg, self.dm.dataset)
        check_several_classes(self.cfg, self.dm.dataset)
        self.train_loader_x = training_loader(self.dm.train_loader_x, self.cfg)
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def before_epoch(self) -> None:
        """Hook of Dassl's: its number is what an epoch's draws come from."""
        super().before_epoch()
        if isinstance(self.train_loader_x, Epochs):
            self.train_loader_x.epoch = self.epoch

    def build_model(self) -> None:
        """Load the CLIP and build the method on it.

        Raises:
            ValueError: an INPUT.SIZE that is not the backbone's, a projection of another width, or
                what the method refuses.
        """
        cfg = self.cfg
        self.classnames = list(self.dm.dataset.classnames)
        print(f"Loading CLIP (backbone: {cfg.MODEL.BACKBONE.NAME})")
        self.clip = load_clip(
            cfg.MODEL.BACKBONE.NAME,
            device=self.device,
            precision=self.settings.PREC,
            trust_torchscript=cfg.MODEL.BACKBONE.get("TRUST_TORCHSCRIPT", False),
            activation=cfg.MODEL.BACKBONE.get("ACTIVATION", ""),
        )
        check_input_size(cfg.INPUT.SIZE, backbone_of(self.clip).image_size, cfg.MODEL.BACKBONE.NAME)
        self.digest = weights_digest(self.clip)
        self.projection = self._load_projection()
        self.training_cost = None
        self.build_method()

    def _load_projection(self) -> InvariantProjection | None:
        path = self.settings.get("PROJECTION", "")
        if not path:
            return None
        projection = InvariantProjection.load(path).to(self.device)
        width = backbone_of(self.clip).embed_dim
        if projection.basis.shape[0] != width:
            raise ValueError(
                f"{path}: projection of {projection.basis.shape[0]}-d features, "
                f"but {self.cfg.MODEL.BACKBONE.NAME} has {width}-d features"
            )
        return projection

    def build_method(self) -> None:
        """Build and register what the method learns; nothing for a method that learns nothing."""

    # Features of the image tower as it is

    @cached_property
    def encoder(self) -> Encoder:
        """CLIP's own image tower behind the test transform, with its cache on disk."""
        return Encoder(
            encode=self._encode,
            dim=backbone_of(self.clip).embed_dim,
            identity=f"{self.digest} {self.settings.PREC} {self.device.type}",
            transform=shown_by(self.test_loader).transform,
            root=self.cfg.DATASET.ROOT,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            num_workers=self.cfg.DATALOADER.NUM_WORKERS,
            cache=feature_home() if self.cfg.FEATURE_CACHE else None,
            shared=world_size() > 1,
        )

    def _encode(self, images: Tensor) -> Tensor:
        with self.autocast():
            return encode_image(self.clip, images.to(self.device, non_blocking=True))

    def features(
        self, items: Sequence, change: Change | None = None, *, desc: str = "encode"
    ) -> np.ndarray:
        """Features (N, D) of N data set items, changed by `change` first; from the disk cache.

        Raises:
            ValueError: features that are NaN or infinite; names the images.
        """
        return self.encoder.features([item.impath for item in items], change, desc=desc)

    def encode_ahead(self) -> None:
        """Bring into the cache what this method reads from it: test features, at least."""
        if self.image_tower_untouched:
            self.features(self.dm.dataset.test, desc="test")

    def labelled(self, items: Sequence, *, desc: str = "encode") -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of data set items, on the CPU."""
        features = torch.from_numpy(self.features(items, desc=desc))
        return features, torch.tensor([item.label for item in items])

    # Classifying

    @property
    def logit_scale(self) -> Tensor:
        """exp(logit_scale) of CLIP in fp32; 100 in the released models."""
        return self.clip.logit_scale.detach().float().exp()

    def classify(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """scale * cosine (..., K), inside the invariant subspace when PROJECTION names one.

        Args:
            image_features: (..., E), not normalised.
            text_features: (K, E), or (..., K, E) where each image or template has its own.
        """
        image_features, text_features = image_features.float(), text_features.float()
        if self.projection is not None:
            image_features = self.projection(image_features)
            text_features = self.projection(text_features)
        return cosine_logits(image_features, text_features, self.logit_scale)

    def predict(self, images: Tensor) -> Prediction:
        """The readings of a test batch (B, 3, H, W): probabilities (B, K), uncertainty (B,)."""
        return self.predict_features(self._encode(images).float())

    def predict_features(self, features: Tensor) -> Prediction:
        """What `predict` answers, from the image tower's features (B, E) in fp32.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError

    def predictor(self) -> Callable[[Tensor], Prediction]:
        """As in EvaluatedTrainer."""
        return self.predict_features if self.image_tower_untouched else self.predict

    def model_inference(self, images: Tensor) -> Tensor:
        """Class log-probabilities (B, K): what Dassl's generic code expects from a trainer."""
        return self.predict(images).main.probabilities.clamp_min(1e-12).log()

    def autocast(self) -> torch.autocast:
        """Mixed precision under PREC amp: fp16 on a GPU, bf16 on a CPU; otherwise nothing."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.settings.PREC == "amp")

    def test_batches(self, loader: DataLoader) -> Iterator[tuple[Tensor, Tensor, Sequence[str]]]:
        """As in EvaluatedTrainer; where the method leaves the image tower alone, the features.

        They are (B, E), of the same images in the same batches.
        """
        if self.image_tower_untouched:
            return self._feature_batches(shown_by(loader).data_source)
        return super().test_batches(loader)

    def _feature_batches(self, items: Sequence) -> Iterator[tuple[Tensor, Tensor, Sequence[str]]]:
        features, labels = self.labelled(items, desc="evaluate")
        size = self.cfg.DATALOADER.TEST.BATCH_SIZE
        paths = [item.impath for item in items]
        for start in own(range(0, len(items), size)):
            part = slice(start, start + size)
            # A copy: a view that is sent to another process takes all labels along.
            yield features[part].to(self.device), labels[part].clone(), paths[part]


def check_input_size(size: Iterable[int], expected: int, backbone: str) -> None:
    """Refuse another INPUT.SIZE than the backbone's position embedding was made for.

    Raises:
        ValueError: names both sizes.
    """
    if tuple(size) != (expected, expected):
        raise ValueError(
            f"INPUT.SIZE must be ({expected}, {expected}) for {backbone}, got {tuple(size)}"
        )
