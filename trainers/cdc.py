"""CDC: decoupled semantic templates, each classified on its own, fused by uncertainty.

Zhang, Li, Liu, Qiang, "Rethinking Misalignment in Vision-Language Model Adaptation from a Causal
Perspective", NeurIPS 2024, arXiv 2410.12816. What the paper does not state is ours and marked so.
"""

from __future__ import annotations

from typing import Any

import torch
from dassl.data.data_manager import build_data_loader
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from yacs.config import CfgNode

from causalclip.cdc.evidence import (
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
from causalclip.cdc.views import template_views
from causalclip.clip.injection import encode_image
from causalclip.clip.prompts import (
    DecoupledPrompts,
    PromptSet,
    TextPrompts,
    embed_words,
    encode_image_sets,
    encode_text_sets,
)
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.base import PromptTrainer, coupled_prompts

PROJECTIONS = ("proj", "compound_prompt_projections")  # of CoupledPrompts, text to image


@TRAINER_REGISTRY.register()
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

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        settings = cfg.TRAINER.CDC
        if settings.N_TEMPLATES < 1:
            raise ValueError(
                f"TRAINER.CDC.N_TEMPLATES must be a positive int, got {settings.N_TEMPLATES}"
            )
        if settings.VISION not in ("coupled", "none"):
            raise ValueError(f"TRAINER.CDC.VISION must be coupled or none, got {settings.VISION!r}")
        eta, least = settings.DISCOUNT, 1 / settings.N_TEMPLATES
        if eta is not None and not (isinstance(eta, (int, float)) and least <= eta <= 1):
            raise ValueError(
                f"TRAINER.CDC.DISCOUNT must be None (fit) or a number in [{least:g}, 1], got {eta}"
            )

    # -- building ------------------------------------------------------------------------------

    def train_views(self) -> list:
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

    def build_prompts(self) -> nn.Module:
        settings = self.settings
        words = settings.CTX_INIT.replace("_", " ")
        self.class_tokens = self.tokens(n_ctx=settings.N_CTX, prefix=words)
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
        if self.settings.VISION == "coupled":
            return coupled_prompts(self.clip, self.settings)
        words, n_ctx = self.settings.CTX_INIT.replace("_", " "), self.settings.N_CTX
        init = embed_words(self.clip, words, n_ctx) if words else None
        return TextPrompts(n_ctx, self.clip.token_embedding.weight.shape[1], init=init)

    # -- the model -----------------------------------------------------------------------------

    def image_features(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """(B, M, E): view m through template m; a single view (B, C, H, W) goes through all."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(prompts.image)):
            return encode_image_sets(self.clip, images, prompts)

    def text_features(self, prompts: PromptSet) -> Tensor:
        """(M, K, E), the classes under each template."""
        if self._text is not None:
            return self._text
        return encode_text_sets(self.clip, self.class_tokens, prompts)

    def evidence(self, logits: Tensor) -> Tensor:
        """Evidence of every template (B, M, K) from l^m = scale z^m T^m'."""
        return evidence_from_logits(logits, self.model.offset, kind=self.settings.EVIDENCE)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
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
        """L_de over the class features, and over the image features where prompts shape them."""
        value = diversity_loss(text)
        return value + diversity_loss(image.transpose(0, 1)) if prompts.image else value

    # -- calibration ---------------------------------------------------------------------------

    def before_train(self) -> None:
        super().before_train()
        if self.start_epoch == 0:  # a resumed run has its offset from the checkpoint
            self.model.offset.fill_(self.mean_zeroshot_logit())
            print(f"Evidence offset: {self.model.offset.item():.4f} (mean zero-shot logit)")

    @torch.no_grad()
    def mean_zeroshot_logit(self) -> float:
        """Mean of CLIP's logits over the training images and all classes, without augmentation."""
        loader = build_data_loader(
            self.cfg,
            sampler_type="SequentialSampler",
            data_source=self.dm.dataset.train_x,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=self.test_loader.dataset.transform,
            is_train=False,
        )
        total, count = 0.0, 0
        with torch.random.fork_rng():  # a loader draws a seed, which must not shift the training
            for batch in loader:
                images, _ = self.parse_batch_test(batch)
                with self.autocast():
                    features = encode_image(self.clip, images)
                logits = self.classify(features, self.handcrafted)
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
        self.model.discount.fill_(eta)

    @torch.no_grad()
    def fitted_discount(self) -> float:
        """eta by likelihood on the validation split; the training's random stream is untouched."""
        evidence, labels = [], []
        with torch.random.fork_rng(), self.evaluating():
            for batch in self.val_loader:
                images, label = self.parse_batch_test(batch)
                with self.autocast():
                    evidence.append(self.evidence(self.logits(images)).float().cpu())
                labels.append(label.cpu())
        self.set_model_mode("train")
        return fit_discount(torch.cat(evidence), torch.cat(labels))

    # -- prediction ----------------------------------------------------------------------------

    def predict(self, images: Tensor) -> dict[str, Any]:
        # At test all templates see the plain image [ours]. In fp64, so that very certain samples do
        # not tie when they are ranked by uncertainty.
        evidence = self.evidence(self.logits(images)).double()
        rule, eta = self.settings.FUSION, self.model.discount.item()
        readings = {
            "dempster": fuse(evidence),
            "discounted": fuse(evidence, discount=eta),
            "averaging": fuse(evidence, rule="averaging"),
        }
        return {
            **opinion_of(readings["averaging" if rule == "averaging" else "discounted"]),
            "conflict": conflict(evidence),
            "template_probabilities": probabilities(evidence),
            "template_uncertainty": uncertainty(evidence),
            "variants": {name: opinion_of(fused) for name, fused in readings.items()},
        }

    def details(self) -> dict[str, Any]:
        return {"offset": self.model.offset.item(), "discount": self.model.discount.item()}


def opinion_of(evidence: Tensor) -> dict[str, Tensor]:
    """Class probabilities alpha / S and uncertainty K / S of one opinion."""
    return {"probabilities": probabilities(evidence), "uncertainty": uncertainty(evidence)}
