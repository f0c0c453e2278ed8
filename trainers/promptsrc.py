"""PromptSRC: IVLP held near CLIP's features and averaged over training (arXiv 2307.06948)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from causalclip.clip.encode import encode_text
from causalclip.clip.kinds import backbone_of
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.templates import IMAGENET_TEMPLATES, spoken
from causalclip.engine.prompt_trainer import (
    MAYBE_DEPTH,
    MAYBE_TOKENS,
    Context,
    PromptTrainer,
    independent_prompts,
)
from causalclip.engine.settings import Number, Text

TEMPLATES = IMAGENET_TEMPLATES[:60]  # the published ones are these of CLIP's eighty


class PromptSRC(PromptTrainer):
    """L = L_ce + L_SCL against frozen CLIP, and prompts averaged over epochs.

    The final prompts are the Gaussian-weighted average of those at the end of every epoch (GPA:
    centre GPA_MEAN, width GPA_STD, in epochs from 1).
    """

    config_node = "PROMPTSRC"
    model_name = "VLPromptLearner"
    defaults = {
        "N_CTX_VISION": 4,
        "N_CTX_TEXT": 4,
        "CTX_INIT": "a photo of a",
        "PREC": "fp32",
        "PROMPT_DEPTH_VISION": 9,
        "PROMPT_DEPTH_TEXT": 9,
        "TEXT_LOSS_WEIGHT": 25.0,
        "IMAGE_LOSS_WEIGHT": 10.0,
        "GPA_MEAN": 15.0,
        "GPA_STD": 1.0,
        "PROJECTION": "",
    }
    constraints = {
        "N_CTX_VISION": MAYBE_TOKENS,
        "N_CTX_TEXT": MAYBE_TOKENS,
        "CTX_INIT": Text(),
        "PROMPT_DEPTH_VISION": MAYBE_DEPTH,
        "PROMPT_DEPTH_TEXT": MAYBE_DEPTH,
        "TEXT_LOSS_WEIGHT": Number(0),
        "IMAGE_LOSS_WEIGHT": Number(0),
        "GPA_MEAN": Number(0),
        "GPA_STD": Number(0, open_low=True),
    }

    def context(self) -> Context:
        """The words that are learned, from N_CTX or CTX_INIT."""
        return Context(self.settings.N_CTX_TEXT, self.settings.CTX_INIT)

    def build_prompts(self) -> nn.Module:
        """Independent prompts of both towers, with a buffer for their average."""
        settings = self.settings
        with torch.no_grad():
            self.teacher_text = self.teacher_text_features()
        prompts = independent_prompts(
            self.clip,
            self.context(),
            text_depth=settings.PROMPT_DEPTH_TEXT,
            n_vision=settings.N_CTX_VISION,
            vision_depth=settings.PROMPT_DEPTH_VISION,
        )
        size = sum(p.numel() for p in prompts.parameters())
        # A buffer, so that it travels in the checkpoint and a resumed run goes on averaging.
        prompts.register_buffer("average", torch.zeros(size))
        return prompts

    def teacher_text_features(self) -> Tensor:
        """(K, E): mean of CLIP's raw features over 60 templates, then normalised [code]."""
        names = [spoken(name) for name in self.classnames]
        total = torch.zeros((), device=self.device)
        backbone = backbone_of(self.clip)
        for template in TEMPLATES:
            texts = [template.format(name) for name in names]
            tokens = backbone.tokenizer(texts, backbone.context_length)
            total = total + encode_text(self.clip, tokens.to(self.device)).float()
        return F.normalize(total, dim=-1)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy plus the three distances from frozen CLIP: text, image and logits."""
        prompts, settings = self.model(), self.settings
        text = F.normalize(self.text_features(prompts).float(), dim=-1)
        image = F.normalize(self.image_features(images, prompts).float(), dim=-1)
        teacher = F.normalize(self.image_features(images, PromptSet()).float(), dim=-1)
        logits = self.classify(image, text)
        loss = F.cross_entropy(logits, labels)
        loss = loss + settings.TEXT_LOSS_WEIGHT * F.l1_loss(text, self.teacher_text)
        loss = loss + settings.IMAGE_LOSS_WEIGHT * F.l1_loss(image, teacher)
        return loss + mean_kl(logits, self.classify(teacher, self.teacher_text)), logits

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float] | None:
        """One step; the last one of an epoch is followed by the averaging."""
        summary = super().forward_backward(batch)
        if self.batch_idx + 1 == self.num_batches:
            self.aggregate()
        return summary

    @torch.no_grad()
    def aggregate(self) -> None:
        """Add this epoch's prompts to the average; after the last epoch it becomes the model."""
        weights = gaussian_weights(self.max_epoch, self.settings.GPA_MEAN, self.settings.GPA_STD)
        learned = parameters_to_vector(self.model.parameters())
        average = self.model.get_buffer("average")
        average += weights[self.epoch].to(learned) * learned
        if self.epoch + 1 == self.max_epoch:
            print("Gaussian-aggregated prompts become the final model")
            vector_to_parameters(average.clone(), self.model.parameters())


def mean_kl(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) of logits (B, K), summed and divided by B K as published [code]."""
    student, teacher = logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return F.kl_div(student, teacher, reduction="sum", log_target=True) / logits.numel()


def gaussian_weights(n_epochs: int, mean: float, std: float) -> Tensor:
    """(n_epochs,) normalised weights exp(-(e - mean)^2 / (2 std^2)) of the epochs e = 1..n."""
    epochs = torch.arange(1, n_epochs + 1, dtype=torch.float64)
    return torch.softmax(-0.5 * ((epochs - mean) / std) ** 2, dim=0)
