"""The published arithmetic of a step: 77 tokens for each text, sets of prompts one by one.

CDC's step is not published. Here it is written as the published code of related methods would: M
passes over all tokens of the texts and of the views, and one more over the views for L_con.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.cdc.losses import classification_loss, regularisers
from causalclip.clip.injection import prompted, with_additions
from causalclip.clip.interface import backbone_of
from causalclip.clip.prompt_set import PromptSet
from causalclip.trainers.prograd import projected
from causalclip.trainers.promptsrc import mean_kl

WITH_TOKENS = ("MMRL", "MMRLpp")  # they also classify by representation tokens


class Plain:
    """The published arithmetic, with the prompts of one of our trainers."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.clip = trainer, trainer.clip
        self.scale = self.clip.logit_scale.exp()

    def text(self, prompts: PromptSet) -> Tensor:
        """Return the unit text features (K, E) from texts of full length."""
        with prompted(self.clip, text=prompts.text, text_additions=prompts.text_additions):
            return F.normalize(self.clip.encode_text(self.trainer.class_tokens.tokens), dim=-1)

    def image(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """Return the unit image features (B, E)."""
        with prompted(self.clip, image=prompts.image, image_additions=prompts.image_additions):
            return F.normalize(self.clip.encode_image(images), dim=-1)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        if self.trainer.cfg.TRAINER.NAME == "CoCoOp":
            return self.one_by_one(images)
        prompts = self.trainer.model()
        if self.trainer.cfg.TRAINER.NAME in WITH_TOKENS:
            return self.trainer.blended(*self.by_both(images, prompts, self.text(prompts))[1:])
        return self.scale * self.image(images, prompts) @ self.text(prompts).T

    def one_by_one(self, images: Tensor) -> Tensor:
        """Return CoCoOp's logits (B, K), with separate texts for each image."""
        features = self.image(images, PromptSet())
        (context,) = self.trainer.model(features).text
        texts = [self.text(PromptSet(text=(own,))) for own in context]
        pairs = zip(features, texts, strict=True)
        return torch.stack([self.scale * image @ text.T for image, text in pairs])

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the method's training loss on a batch (B, 3, H, W) with labels (B,)."""
        trainer = self.trainer
        whole = {"ProGrad": self.aligned, "CDC": self.decoupled}
        whole |= dict.fromkeys(WITH_TOKENS, self.four_terms)
        if trainer.cfg.TRAINER.NAME == "CIPT":
            features, text = self.image(images, PromptSet()), self.text(trainer.model())
            return trainer.objective(features, text, labels)[0]
        if trainer.cfg.TRAINER.NAME in whole:
            return whole[trainer.cfg.TRAINER.NAME](images, labels)
        near = {"KgCoOp": self.near_text, "TCP": self.near_text}
        extra = {**near, "PromptSRC": self.near_teacher}
        if trainer.cfg.TRAINER.NAME not in extra:
            return F.cross_entropy(self.logits(images), labels)
        prompts = trainer.model()
        image, text = self.image(images, prompts), self.text(prompts)
        logits = self.scale * image @ text.T
        regular = extra[trainer.cfg.TRAINER.NAME](images, image, text, logits)
        return F.cross_entropy(logits, labels) + regular

    def aligned(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return ProGrad's cross-entropy with a projected gradient; encode images twice."""
        trainer, ctx = self.trainer, self.trainer.model().text[0].clone()
        logits = self.scale * self.image(images, PromptSet()) @ self.text(PromptSet((ctx,))).T
        zero_shot = self.scale * self.image(images, PromptSet()) @ trainer.handcrafted.T
        distance = trainer.distance(logits, zero_shot)
        (general,) = torch.autograd.grad(distance, ctx, retain_graph=True)
        ctx.register_hook(lambda own: projected(own, general, trainer.settings.LAMBDA))
        return F.cross_entropy(logits, labels)

    def by_both(self, images: Tensor, prompts: PromptSet, text: Tensor) -> tuple[Tensor, ...]:
        """Return MMRL's image features (B, E) and logits (B, K) of class and token features."""
        visual = self.clip.visual
        tower = backbone_of(self.clip).image_tower()
        with with_additions(tower, prompts.image_additions) as left:
            image = F.normalize(self.clip.encode_image(images), dim=-1)
        tokens = self.trainer.model.features(visual.ln_post(left[0].transpose(0, 1)))
        both = (image, F.normalize(tokens, dim=-1))
        return image, *(self.scale * features @ text.T for features in both)

    def four_terms(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return MMRL's loss on a batch (B, 3, H, W) with labels (B,)."""
        prompts, trainer = self.trainer.model(), self.trainer
        text, frozen = self.text(prompts), self.image(images, PromptSet())
        image, *logits = self.by_both(images, prompts, text)
        near = 1 - F.cosine_similarity(image, frozen, dim=-1).mean()
        near = near + 1 - F.cosine_similarity(text, trainer.handcrafted, dim=-1).mean()
        entropies = (F.cross_entropy(of, labels) for of in logits)
        return trainer.blended(*entropies) + trainer.settings.REG_WEIGHT * near

    def decoupled(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return CDC's loss on views (B, M, 3, H, W) with labels (B,), template by template."""
        trainer, config = self.trainer, self.trainer.config
        sets = [template() for template in trainer.model.templates]
        image = [
            self.image(own, prompts) for own, prompts in zip(views.unbind(1), sets, strict=True)
        ]
        text = torch.stack([self.text(prompts) for prompts in sets])
        logits = trainer.backbone.classify(torch.stack(image, dim=1), text)
        evidence = trainer.evidence(logits)
        loss = classification_loss(config, logits, evidence, labels, epoch=trainer.epoch + 1)
        frozen = [self.image(own, PromptSet()) for own in views.unbind(1)]
        return loss + regularisers(
            config,
            text,
            torch.stack(image, dim=1),
            handcrafted=trainer.handcrafted,
            frozen=torch.stack(frozen, dim=1),
        )

    def near_text(self, images: Tensor, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        """Return KgCoOp's and TCP's distance of text features (K, E) from the hand-crafted."""
        distance = 1 - F.cosine_similarity(text, self.trainer.handcrafted, dim=-1).mean()
        return self.trainer.settings.W * distance

    def near_teacher(self, images: Tensor, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        """Return PromptSRC's distances of features and logits from those of frozen CLIP."""
        trainer, settings = self.trainer, self.trainer.settings
        teacher = self.image(images, PromptSet())
        teacher_text = trainer.teacher_text.to(teacher.dtype)
        return (
            settings.TEXT_LOSS_WEIGHT * F.l1_loss(text, teacher_text)
            + settings.IMAGE_LOSS_WEIGHT * F.l1_loss(image, teacher)
            + mean_kl(logits, self.scale * teacher @ teacher_text.T)
        )
