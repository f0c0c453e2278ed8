"""PromptSRC: IVLP held near CLIP's features and averaged over training (arXiv 2307.06948)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from causalclip.clip.encode import encode_image_twice, encode_text
from causalclip.clip.interface import backbone_of
from causalclip.clip.texts import readable
from causalclip.clip.zeroshot import IMAGENET_TEMPLATES, mean_text_features
from causalclip.engine.contexts import descriptions_of
from causalclip.settings.constraints import number
from causalclip.settings.table import COMMON, Setting
from causalclip.trainers.ivlp import IVLP, independent_prompt_settings

SIXTY_TEMPLATES = IMAGENET_TEMPLATES[:60]  # the published code uses these of CLIP's eighty


class PromptSRC(IVLP):
    """L = L_ce + L_SCL against frozen CLIP, and prompts averaged over epochs.

    The final prompts are the Gaussian-weighted average of those at the end of every epoch (GPA:
    centre GPA_MEAN, width GPA_STD, in epochs from 1).
    """

    config_node = "PROMPTSRC"
    settings_table = {
        **independent_prompt_settings(n_ctx=4),
        "TEXT_LOSS_WEIGHT": Setting(25.0, number(0), "Weight of the texts' distance from CLIP's."),
        "IMAGE_LOSS_WEIGHT": Setting(
            10.0, number(0), "Weight of the images' distance from CLIP's."
        ),
        "GPA_MEAN": Setting(15.0, number(0), "Centre of the Gaussian average, in epochs."),
        "GPA_STD": Setting(1.0, number(0, open_low=True), "Width of the Gaussian average."),
        **COMMON,
    }

    @property
    def image_tower_untouched(self) -> bool:
        """False: the loss needs the images, to encode them with frozen CLIP too."""
        return False

    def build_prompts(self) -> nn.Module:
        """Return independent prompts of both towers, with a buffer for their average."""
        with torch.no_grad():
            self.teacher_text = self.teacher_text_features()
        prompts = super().build_prompts()
        size = sum(p.numel() for p in prompts.parameters())
        # A buffer, so that checkpoints contain it and a resumed run continues the average.
        prompts.register_buffer("average", torch.zeros(size))
        return prompts

    def teacher_text_features(self) -> Tensor:
        """Return (K, E): mean of CLIP's raw features over 60 templates, then normalised [code].

        With DATASET.DESCRIPTIONS, the mean is over its sentences.
        """
        if (sentences := descriptions_of(self)) is not None:
            return mean_text_features(self.clip, sentences).float()
        names = [readable(name) for name in self.classnames]
        total = torch.zeros((), device=self.device)
        backbone = backbone_of(self.clip)
        for template in SIXTY_TEMPLATES:
            texts = [template.format(name) for name in names]
            tokens = backbone.tokenizer(texts, backbone.context_length)
            total = total + encode_text(self.clip, tokens.to(self.device)).float()
        return F.normalize(total, dim=-1)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss with distances of text, image and logits from CLIP's, and the logits."""
        prompts, settings = self.model(), self.settings
        text = F.normalize(self.text_features(prompts).float(), dim=-1)
        features = encode_image_twice(self.clip, images, prompts.image)
        image, teacher = (F.normalize(own.float(), dim=-1) for own in features)
        logits = self.backbone.classify(image, text)
        loss = F.cross_entropy(logits, labels)
        loss = loss + settings.TEXT_LOSS_WEIGHT * F.l1_loss(text, self.teacher_text)
        loss = loss + settings.IMAGE_LOSS_WEIGHT * F.l1_loss(image, teacher)
        return loss + mean_kl(logits, self.backbone.classify(teacher, self.teacher_text)), logits

    @torch.no_grad()
    def after_step(self) -> None:
        """After an epoch, add the prompts to the average; after the last it becomes the model."""
        if self.batch_idx + 1 < self.num_batches:
            return
        weights = gaussian_weights(self.max_epoch, self.settings.GPA_MEAN, self.settings.GPA_STD)
        learned = parameters_to_vector(self.model.parameters())
        average = self.model.get_buffer("average")
        average += weights[self.epoch].to(learned) * learned
        if self.epoch + 1 == self.max_epoch:
            print("Gaussian-aggregated prompts become the final model")
            vector_to_parameters(average.clone(), self.model.parameters())


def mean_kl(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return KL(teacher || student) of logits (B, K), its sum over B K as published [code]."""
    student, teacher = logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return F.kl_div(student, teacher, reduction="sum", log_target=True) / logits.numel()


def gaussian_weights(n_epochs: int, mean: float, std: float) -> Tensor:
    """Return weights (n,) of the epochs e = 1..n, exp(-(e - mean)^2 / (2 std^2)) over their sum."""
    epochs = torch.arange(1, n_epochs + 1, dtype=torch.float64)
    return torch.softmax(-0.5 * ((epochs - mean) / std) ** 2, dim=0)
