"""CDC: decoupled semantic templates, each classified on its own, fused by uncertainty.

Zhang, Li, Liu, Qiang, "Rethinking Misalignment in Vision-Language Model Adaptation from a Causal
Perspective", NeurIPS 2024, arXiv 2410.12816. What the paper does not state is ours and marked so.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from causalclip.cdc.evidence import (
    EvidenceKind,
    FusionRule,
    conflict,
    evidence_from_logits,
    fit_discount,
    fuse,
    probabilities,
    uncertainty,
)
from causalclip.cdc.losses import (
    consistency_loss,
    dirichlet_kl,
    diversity_loss,
    trusted_cross_entropy,
)
from causalclip.cdc.views import FAMILIES, template_views
from causalclip.clip.prompts import (
    DecoupledPrompts,
    PromptSet,
    TextPrompts,
    encode_image_sets,
    encode_text_sets,
)
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.feature_cache import batches
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.prompt_trainer import (
    DEPTH,
    TOKENS,
    Context,
    PromptTrainer,
    coupled_prompts,
)
from causalclip.engine.settings import Flag, ListOf, Maybe, Number, OneOf, Text, Whole

PROJECTIONS = ("proj", "compound_prompt_projections")  # of CoupledPrompts, text to image


class CDC(PromptTrainer):
    """M templates, one semantic each: L = L_t-ce + BETA L_de + GAMMA L_con, Dempster at the end."""

    config_node = "CDC"
    defaults = {
        "N_TEMPLATES": 4,  # M of the paper's per-semantic table
        "N_CTX": 2,
        "CTX_INIT": "a photo of a",
        "PROMPT_DEPTH": 9,
        "VISION": "coupled",  # coupled: MaPLe's deep prompts in both encoders; none: text only
        "SHARE_PROJECTIONS": True,  # [ours] one text-to-image projection a depth for all templates
        "INIT_NOISE": 0.02,  # [ours] equal templates would give L_de no gradient
        "VIEWS": ["flip_crop", "color_jitter", "gray_blur", "perspective_erasing"],  # [ours]
        "CROP_ALL_VIEWS": False,  # the paper's second augmentation set
        "EVIDENCE": "exp",  # exp | softplus | relu
        "FUSION": "dempster",  # dempster | averaging
        "DISCOUNT": None,  # eta: a number in [1/M, 1], or None: fitted on the validation split
        "BETA": 0.1,  # [ours] weight of the diversity loss
        "GAMMA": 5.0,  # [ours] weight of the consistency loss
        "KL_WEIGHT": 0.0,  # TMC's KL term; at CLIP's scale it would dominate
        "PREC": "fp32",
        "PROJECTION": "",
    }
    constraints = {
        "N_TEMPLATES": Whole(1, 100),  # M x K texts and B x M images make one batch
        "N_CTX": TOKENS,
        "CTX_INIT": Text(),
        "PROMPT_DEPTH": DEPTH,
        "VISION": OneOf(("coupled", "none")),
        "SHARE_PROJECTIONS": Flag(),
        "INIT_NOISE": Number(0),
        "VIEWS": ListOf(OneOf(tuple(FAMILIES))),
        "CROP_ALL_VIEWS": Flag(),
        "EVIDENCE": OneOf(get_args(EvidenceKind)),
        "FUSION": OneOf(get_args(FusionRule)),
        "DISCOUNT": Maybe(Number(0, 1, open_low=True)),
        "BETA": Number(0),
        "GAMMA": Number(0),
        "KL_WEIGHT": Number(0),
    }

    def check_cfg(self, cfg: CfgNode) -> None:
        """As in CLIPTrainer, and that DISCOUNT suits the number of templates.

        Raises:
            ValueError: names the key, what is allowed and what came.
        """
        super().check_cfg(cfg)
        eta, least = cfg.TRAINER.CDC.DISCOUNT, 1 / cfg.TRAINER.CDC.N_TEMPLATES
        if eta is not None and eta < least:
            raise ValueError(
                f"TRAINER.CDC.DISCOUNT must be None (fit) or a number in [{least:g}, 1], got {eta}"
            )

    # -- building ------------------------------------------------------------------------------

    def train_views(self) -> list:
        """One family of augmentations a template, from the start again where there are fewer."""
        inputs, settings = self.cfg.INPUT, self.settings
        families = [settings.VIEWS[m % len(settings.VIEWS)] for m in range(settings.N_TEMPLATES)]
        return template_views(
            families,
            tuple(inputs.SIZE),
            interpolation=inputs.INTERPOLATION,
            mean=inputs.PIXEL_MEAN,
            std=inputs.PIXEL_STD,
            crop_scale=tuple(inputs.RRCROP_SCALE),
            crop_all=settings.CROP_ALL_VIEWS,
        )

    def context(self) -> Context:
        return Context(self.settings.N_CTX, self.settings.CTX_INIT)

    def build_prompts(self) -> nn.Module:
        """M sets of prompts, with the offset of the evidence and the discount of the fusion."""
        settings = self.settings
        with torch.no_grad():
            template = dataset_template(self.cfg)
            self.handcrafted = class_features(self.clip, self.classnames, [template])  # t^0
        coupled = settings.VISION == "coupled"
        prompts = DecoupledPrompts(
            self.template_prompts,
            settings.N_TEMPLATES,
            noise=settings.INIT_NOISE,
            shared=PROJECTIONS if coupled and settings.SHARE_PROJECTIONS else (),
        )
        # Both are numbers the method measures once; as buffers they travel in the checkpoint.
        prompts.register_buffer("offset", torch.zeros(()))
        prompts.register_buffer("discount", torch.ones(()))
        return prompts

    def template_prompts(self) -> nn.Module:
        """The prompts of one template: MaPLe's in both encoders, or words alone."""
        context = self.context()
        if self.settings.VISION == "coupled":
            return coupled_prompts(self.clip, context, depth=self.settings.PROMPT_DEPTH)
        width = self.clip.token_embedding.weight.shape[1]
        return TextPrompts(context.n_ctx, width, init=context.start(self.clip))

    # -- the model -----------------------------------------------------------------------------

    @property
    def image_tower_untouched(self) -> bool:
        """Without image prompts the image tower is CLIP's own, and a test image one plain view."""
        return self.settings.VISION == "none"

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Class logits (B, M, K) of image features (B, E), which all templates share."""
        shared = features.unsqueeze(1).expand(-1, self.settings.N_TEMPLATES, -1)
        return super().feature_logits(shared, text)

    def image_features(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """(B, M, E): view m of images (B, M, 3, H, W) goes through template m, a single view
        (B, 3, H, W) through all."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(prompts.image)):
            return encode_image_sets(self.clip, images, prompts)

    def text_features(self, prompts: PromptSet) -> Tensor:
        """(M, K, E), the classes under each template."""
        return encode_text_sets(self.clip, self.class_tokens, prompts)

    def evidence(self, logits: Tensor) -> Tensor:
        """Evidence of every template (B, M, K) from its logits (B, M, K), scale z^m T^m'."""
        return evidence_from_logits(
            logits, self.model.get_buffer("offset"), kind=self.settings.EVIDENCE
        )

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """L_t-ce over the M templates and the fused opinion, plus the weighted others.

        Args:
            images: (B, M, 3, H, W), view m for template m.
            labels: (B,) int64.

        Returns:
            The loss, and the fused evidence (B, K).
        """
        prompts = self.model()
        image_features = self.image_features(images, prompts)
        text_features = self.text_features(prompts)
        evidence = self.evidence(self.classify(image_features, text_features))  # (B, M, K)
        fused = fuse(evidence, rule=self.settings.FUSION)
        opinions = torch.cat([evidence, fused.unsqueeze(-2)], dim=-2)  # (B, M + 1, K)
        targets = labels.unsqueeze(-1).expand(opinions.shape[:-1])
        loss = trusted_cross_entropy(opinions, targets)
        if self.settings.KL_WEIGHT:
            loss = loss + self.settings.KL_WEIGHT * dirichlet_kl(opinions, targets)
        loss = loss + self.settings.BETA * self.diversity(image_features, text_features, prompts)
        loss = loss + self.settings.GAMMA * consistency_loss(text_features, self.handcrafted)
        return loss, fused

    def diversity(self, image: Tensor, text: Tensor, prompts: PromptSet) -> Tensor:
        """L_de over the class features (M, K, E), and over the image features (B, M, E) where
        prompts shape them."""
        value = diversity_loss(text)
        return value + diversity_loss(image.transpose(0, 1)) if prompts.image else value

    # -- calibration ---------------------------------------------------------------------------

    def before_train(self) -> None:
        super().before_train()
        if self.start_epoch == 0:  # a resumed run has its offset from the checkpoint
            offset = self.model.get_buffer("offset").fill_(self.mean_zeroshot_logit())
            print(f"Evidence offset: {offset.item():.4f} (mean zero-shot logit)")

    @torch.no_grad()
    def mean_zeroshot_logit(self) -> float:
        """Mean of CLIP's logits over the training images and all classes, without augmentation."""
        total, count = 0.0, 0
        size = self.cfg.DATALOADER.TEST.BATCH_SIZE
        for features in batches(self.features(self.dm.dataset.train_x), size):
            logits = self.classify(features.to(self.device), self.handcrafted)
            total, count = total + logits.sum().item(), count + logits.numel()
        return total / count

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Fit the discount before a checkpoint is written, so that it is part of it."""
        self.calibrate()
        super().save_model(*args, **kwargs)

    def calibrate(self) -> None:
        """Set eta: fixed by the configuration, or by likelihood on the validation split."""
        eta = self.settings.DISCOUNT
        if eta is None and self.val_loader is None:
            print("No validation split to fit the discount on: Dempster's rule, discount 1")
            eta = 1.0
        elif eta is None:
            eta = self.fitted_discount()
            print(f"Fusion discount: {eta:.4f} (fitted on {len(self.dm.dataset.val)} images)")
        self.model.get_buffer("discount").fill_(eta)

    @torch.no_grad()
    def fitted_discount(self) -> float:
        """eta by likelihood on the validation split; the training's random stream is untouched."""
        evidence, labels = [], []
        self.set_model_mode("eval")
        text = self.evaluation_text()
        with torch.random.fork_rng():
            for inputs, label, _ in self.test_batches(self.val_loader):
                with self.autocast():
                    evidence.append(self.evidence(self.test_logits(inputs, text)).float().cpu())
                labels.append(label.cpu())
        self.set_model_mode("train")
        return fit_discount(torch.cat(evidence), torch.cat(labels))

    # -- prediction ----------------------------------------------------------------------------

    def prediction_of(self, logits: Tensor) -> Prediction:
        """Fused three ways (B, K), the conflict (B,), and what each template says (B, M, K).

        Args:
            logits: (B, M, K), of the plain image, which all templates see at test [ours].
        """
        # In fp64, so that very certain samples do not tie when they are ranked by uncertainty.
        evidence = self.evidence(logits).double()
        readings = {
            "dempster": reading_of(fuse(evidence)),
            "discounted": reading_of(
                fuse(evidence, discount=self.model.get_buffer("discount").item())
            ),
            "averaging": reading_of(fuse(evidence, rule="averaging")),
        }
        main = "averaging" if self.settings.FUSION == "averaging" else "discounted"
        extras = {
            "conflict": conflict(evidence),
            "template_probabilities": probabilities(evidence).float(),  # the largest array by far
            "template_uncertainty": uncertainty(evidence),
        }
        return Prediction(readings[main], readings, extras)

    def details(self) -> dict[str, Any]:
        return {
            "offset": self.model.get_buffer("offset").item(),
            "discount": self.model.get_buffer("discount").item(),
        }


def reading_of(evidence: Tensor) -> Reading:
    """Class probabilities alpha / S (B, K) and uncertainty K / S (B,) of opinions (B, K)."""
    return Reading(probabilities(evidence), uncertainty(evidence))
