"""CDC: decoupled semantic templates, classified separately and fused by uncertainty.

Zhang, Li, Liu, Qiang, "Rethinking Misalignment in Vision-Language Model Adaptation from a Causal
Perspective", NeurIPS 2024, arXiv 2410.12816. What the paper does not state is marked as ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from dassl.data.transforms import build_transform
from torch import Tensor, nn
from torch.optim import Optimizer
from yacs.config import CfgNode

from causalclip.cdc.config import AS_CONFIGURED, FAMILIES, CDCConfig, family_view
from causalclip.cdc.evidence import (
    FUSIONS,
    conflict,
    evidence_from_logits,
    fit_discount,
    opinion_answer,
    softmax_answer,
)
from causalclip.cdc.losses import (
    classification_loss,
    regularisers,
    residual_directions,
    template_cosines,
)
from causalclip.clip.encode_sets import (
    encode_image_sets,
    encode_image_sets_twice,
    encode_text_sets,
)
from causalclip.clip.interface import openai_model
from causalclip.clip.prompt_set import IMAGE_PROJECTION, PromptSet
from causalclip.clip.prompts import DecoupledPrompts, TextPrompts
from causalclip.clip.zeroshot import class_features
from causalclip.engine.calibration import validation_logits
from causalclip.engine.contexts import (
    DEPTH,
    TOKENS,
    Context,
    coupled_prompts,
    handcrafted_features,
    independent_prompts,
)
from causalclip.engine.evaluation import mean_zero_shot_logit
from causalclip.engine.feature_cache import ImageSet
from causalclip.engine.members import Members, base_class
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import either, integer, list_of, number, one_of, or_none, text
from causalclip.settings.dataclass_settings import config_from, settings_of
from causalclip.settings.search import DEPTHS, GRADIENT_SPACE, Choice, LogUniform
from causalclip.settings.table import COMMON

NOT_NEGATIVE = "IMAGE_PROJECTION PROJECTION_WEIGHT INIT_NOISE KL_WEIGHT BETA GAMMA".split()
PROJECTIONS = ("proj", "compound_prompt_projections")  # in CoupledPrompts, from text to image


class CDC(PromptTrainer):
    """M templates, one semantic each, trained by L = L_t-ce + BETA L_de + GAMMA L_con and fused."""

    config_node = "CDC"
    backbones = "ViT"
    softmax = False  # the discount calibrates it instead
    has_members = True
    members: Members | None = None
    """Models of the method BASE, one per template; None without BASE."""
    settings_table = {
        **settings_of(
            CDCConfig,
            {
                "N_TEMPLATES": integer(1, 100),  # M x K texts and B x M images make one batch
                "N_CTX": TOKENS,
                "PROMPT_DEPTH": DEPTH,
                **dict.fromkeys(NOT_NEGATIVE, number(0)),
                **dict.fromkeys(("BETA_IMAGE", "GAMMA_IMAGE"), or_none(number(0))),
                "ANCHORS": list_of(text(), least=0),
                "VIEWS": list_of(one_of((*FAMILIES, AS_CONFIGURED))),
                "KL_EPOCHS": integer(0, 10_000),
                "DISCOUNT": or_none(
                    either(one_of(("fit", "geometric")), number(0, 1, open_low=True))
                ),
            },
            blocks={"PROMPT_DEPTH": "both"},
        ),
        **COMMON,
    }
    search_space = {
        **GRADIENT_SPACE,
        "PROMPT_DEPTH": DEPTHS,
        "N_CTX": Choice((2, 4)),
        "GAMMA": LogUniform(2.0, 50.0),
    }

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raise as the base class, and for settings that exclude each other."""
        super().check_cfg(cfg)
        if name := config_from(CDCConfig, cfg.TRAINER.CDC, where="TRAINER.CDC").base:
            base = base_class(name, where="TRAINER.CDC.BASE")
            base.check_cfg(object.__new__(base), cfg)
            if not base.knows_other_classes(cfg.TRAINER[base.config_node]):
                raise ValueError(f"TRAINER.CDC.BASE {name} must share its prompts among classes")

    @cached_property
    def config(self) -> CDCConfig:
        """The settings under TRAINER.CDC."""
        return config_from(CDCConfig, self.settings, where="TRAINER.CDC")

    # Building

    def train_views(self) -> list:
        """Return one family of augmentations per template; repeat them if there are fewer."""
        families, n_templates, inputs = self.config.views, self.config.n_templates, self.cfg.INPUT
        if unseen := families[n_templates:]:
            print(f"Note: {n_templates} templates see none of the VIEWS {', '.join(unseen)}")
        built = {
            family: build_transform(self.cfg, is_train=True)  # None under INPUT.NO_TRANSFORM
            if family == AS_CONFIGURED
            else family_view(
                family,
                inputs.SIZE,
                interpolation=inputs.INTERPOLATION,
                mean=inputs.PIXEL_MEAN,
                std=inputs.PIXEL_STD,
                crop_scale=inputs.RRCROP_SCALE,
                crop_all=self.config.crop_all_views,
            )
            for family in families
        }
        return [built[families[m % len(families)]] for m in range(n_templates)]

    def context(self) -> Context | None:
        """Return N_CTX learned words that start from CTX_INIT; None if BASE has its own."""
        config = self.config
        return None if config.base else Context(config.n_ctx, config.ctx_init)

    def build_prompts(self) -> nn.Module:
        """Build M sets of prompts, the offset of the evidence and the discount of the fusion.

        Raises:
            ValueError: IMAGE_PROJECTION for a CLIP that is not of OpenAI's classes.
        """
        config, projection = self.config, None
        with torch.no_grad():
            self.handcrafted = handcrafted_features(self, [self.template()])  # t^0
            each = [class_features(self.clip, self.classnames, [text]) for text in config.anchors]
            self.anchors = torch.stack(each) if each else self.handcrafted
        if config.base:
            self.members = Members(base_class(config.base, where="TRAINER.CDC.BASE"), self)
        coupled = config.vision == "coupled" and not config.base
        if config.image_projection:
            projection = openai_model(self.clip, "TRAINER.CDC.IMAGE_PROJECTION").visual.proj.shape
        prompts = DecoupledPrompts(
            self.members.add if self.members else self.template_prompts,
            config.n_templates,
            noise=config.init_noise,
            relative=config.noise_scale == "relative",
            shared=PROJECTIONS if coupled and config.share_projections else (),
            projection=projection,
            scale=config.image_projection,
        )
        if coupled and config.learn == "tokens":
            for template in prompts.templates:
                for name in PROJECTIONS:
                    template.get_submodule(name).requires_grad_(False)
        # Numbers that the method measures once; buffers, so that checkpoints contain them.
        prompts.register_buffer("offset", torch.zeros(()))
        prompts.register_buffer("discount", torch.ones(()))
        return prompts

    def template_prompts(self) -> nn.Module:
        """Build the prompts of one template: MaPLe's or IVLP's in both encoders, or only words."""
        context, depth = Context(self.config.n_ctx, self.config.ctx_init), self.config.prompt_depth
        if self.config.vision == "coupled":
            return coupled_prompts(self.clip, context, depth=depth)
        if self.config.vision == "independent":
            return independent_prompts(
                self.clip, context, text_depth=depth, n_vision=context.n_ctx, vision_depth=depth
            )
        return TextPrompts(context.n_ctx, self.backbone.text_width, init=context.start(self.clip))

    # The model

    @property
    def image_tower_untouched(self) -> bool:
        """Whether the image tower is CLIP's own, which it is without image prompts."""
        if self.members:
            return self.members.models[0].image_tower_untouched
        return self.config.vision == "none"

    def evaluation_text(self) -> Tensor | None:
        """Return text features (M, K, E), or None if BASE's texts depend on the image."""
        return (self.members or super()).evaluation_text()

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, M, K) of images (B, 3, H, W) or, with views, (B, M, 3, H, W)."""
        return (self.members or super()).logits(images, text)

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, M, K) of image features (B, E), which all templates share."""
        if self.members:
            return self.members.feature_logits(features, text)
        shared = features.unsqueeze(1).expand(-1, self.config.n_templates, -1)
        return super().feature_logits(shared, text)

    def image_features(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """Return features (B, M, E) under each template.

        View m of images (B, M, 3, H, W) is encoded under template m, a single view (B, 3, H, W)
        under all templates.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(prompts.image)):
            return encode_image_sets(self.clip, images, prompts)

    def text_features(self, prompts: PromptSet) -> Tensor:
        """Return text features (M, K, E) of the classes under each template."""
        return encode_text_sets(self.clip, self.class_tokens, prompts)

    def evidence(self, logits: Tensor) -> Tensor:
        """Return the evidence (B, M, K) of each template, from logits (B, M, K), scale z^m T^m'."""
        if self.config.evidence_offset == "image":
            offset = logits.float().mean(-1, keepdim=True)
        else:
            offset = self.model.get_buffer("offset")
        return evidence_from_logits(logits, offset, kind=self.config.evidence)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return L_cls plus the weighted L_de and L_con, and the fused scores (B, K).

        Images are (B, M, 3, H, W) with view m for template m, or (B, 3, H, W) for one template.
        """
        config = self.config
        if self.members:
            return self.loss_of_members(images, labels)
        prompts = self.model()
        if config.compares_images:
            image_features, frozen = encode_image_sets_twice(self.clip, images, prompts)
        else:
            image_features, frozen = self.image_features(images, prompts), None
        text_features = self.text_features(prompts)
        logits = self.backbone.classify(image_features, text_features)  # (B, M, K)
        evidence = self.evidence(logits)
        loss = classification_loss(config, logits, evidence, labels, epoch=self.epoch + 1)
        loss = loss + regularisers(
            config, text_features, image_features, handcrafted=self.anchors, frozen=frozen
        )
        if changes := prompts.weights:
            loss = loss + config.projection_weight * changes[IMAGE_PROJECTION].square().sum()
        return loss, FUSIONS[config.fusion].scores(logits, evidence)

    def loss_of_members(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss as `loss` does, and the scores, for templates that are models of BASE.

        With LOSS base, the losses of the M models replace L_cls. L_de and L_con need features of
        their own, in addition to the features that BASE classifies by.
        """
        config, members = self.config, self.members
        assert members is not None, "`loss` calls this with BASE only"
        if config.loss == "base":
            losses, logits = members.losses(images, labels)
            loss = losses.sum() if config.loss_reduction == "sum" else losses.mean()
            evidence = self.evidence(logits)
        else:
            logits = members.logits(images)
            evidence = self.evidence(logits)
            loss = classification_loss(config, logits, evidence, labels, epoch=self.epoch + 1)
        if config.regularised:
            text, image = members.features(images)
            frozen = members.frozen_features(images) if config.compares_images else None
            loss = loss + regularisers(config, text, image, handcrafted=self.anchors, frozen=frozen)
        return loss, FUSIONS[config.fusion].scores(logits, evidence)

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Return the optimizer; with BASE, the one that BASE builds."""
        return (self.members.models[0] if self.members else super()).optimizer(model)

    def after_step(self) -> None:
        """Call `after_step` of each model of BASE."""
        for member in self.members.models if self.members else ():
            member.after_step()

    # Calibration

    def image_sets(self) -> Iterator[ImageSet]:
        """Also yield the training images, if the evidence's offset is computed from them."""
        yield from super().image_sets()
        if self.config.evidence_offset == "training":
            yield ImageSet.of(self.dm.dataset.train_x)

    def before_train(self) -> None:
        """As the base class; then compute the evidence's offset, if it is of the training images.

        Raises:
            ValueError: L_de or L_con of texts that depend on the image.
        """
        super().before_train()
        if self.members and self.config.regularised and self.evaluation_text() is None:
            raise ValueError(
                "TRAINER.CDC.BETA and TRAINER.CDC.GAMMA must be 0 where the texts depend on the "
                f"image, as those of TRAINER.CDC.BASE {self.config.base}"
            )
        # a resumed run has its offset from the checkpoint
        if self.config.evidence_offset == "training" and self.start_epoch == 0:
            offset = mean_zero_shot_logit(self, self.handcrafted)
            self.model.get_buffer("offset").fill_(offset)
            print(f"Evidence offset: {offset:.4f} (mean zero-shot logit)")

    def calibrate(self) -> None:
        """Set the discount eta: from the settings, or by likelihood on the validation split."""
        eta = self.config.discount
        if eta in (None, "geometric"):
            eta = 1 / self.config.n_templates
        elif eta == "fit" and self.val_loader is None:
            print("No validation split to fit the discount on: Dempster's rule, discount 1")
            eta = 1.0
        elif eta == "fit":
            logits, labels = validation_logits(self)
            eta = fit_discount(self.evidence(logits).cpu(), labels)
            print(f"Fusion discount: {eta:.4f} (fitted on {len(labels)} images)")
        self.model.get_buffer("discount").fill_(eta)

    # Prediction

    def prediction_of(self, logits: Tensor) -> Prediction:
        """Return readings of each fusion rule (B, K) and template (B, M, K), and the conflict (B,).

        Logits (B, M, K) are of the plain image, which all templates see at test [ours].
        """
        # In fp64, so that very certain samples do not tie when they are ranked by uncertainty.
        evidence = self.evidence(logits).double()
        # A template answers with what its loss has trained: an opinion, or a softmax.
        trusted = self.config.loss == "trusted"
        templates = opinion_answer(evidence) if trusted else softmax_answer(logits.double())
        discount = self.model.get_buffer("discount").item()
        readings = {
            name: Reading(*fusion.answer(logits, evidence, templates[0], discount))
            for name, fusion in FUSIONS.items()
        }
        return Prediction(
            main=readings[self.config.fusion],
            readings=readings,
            extras={"conflict": conflict(evidence)},
            members={"template": Reading(*templates)},
        )

    def details(self) -> dict[str, Any]:
        """Return the evidence's offset (0: each image's own), the discount, and (M, M) cosines.

        The cosines are of the templates' texts, and of their residuals from t^0 or the anchors.
        """
        facts: dict[str, Any] = {
            "offset": self.model.get_buffer("offset").item(),
            "discount": self.model.get_buffer("discount").item(),
        }
        with torch.no_grad():
            texts = self.evaluation_text()
        if texts is not None:
            residuals = residual_directions(texts, self.anchors)
            facts["template_cosines"] = template_cosines(texts).tolist()
            facts["residual_cosines"] = template_cosines(residuals).tolist()
        return facts
