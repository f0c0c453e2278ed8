"""TwoSFS: 2SFS, first the LayerNorms of both towers, then the classifier (arXiv 2503.11609)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.interface import backbone_of
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompt_set import PromptSet
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import number
from causalclip.settings.search import GRADIENT_SPACE, Choice
from causalclip.settings.table import COMMON, TEMPLATE, Setting

LAST_RATE = 1e-6  # [code] learning rate at the end of each stage's cosine


class TwoStageWeights(nn.Module):
    """LayerNorms of the blocks of both towers, and a classifier (K, E).

    The classifier is zero until its stage begins.
    """

    def __init__(self, clip: CLIPModel, n_classes: int) -> None:
        """Start at the weights of `clip`, which is not changed."""
        super().__init__()
        self.start = dict(norm_parameters(clip))
        self.norms = nn.ParameterList(p.detach().float().clone() for p in self.start.values())
        self.classifier = nn.Parameter(torch.zeros(n_classes, backbone_of(clip).embed_dim))
        self.register_load_state_dict_pre_hook(fit_classifier)

    def forward(self) -> PromptSet:
        """Return the changes of the LayerNorms, by the names of their weights."""
        pairs = zip(self.start.items(), self.norms, strict=True)
        return PromptSet(weights={name: own - start for (name, start), own in pairs})


def fit_classifier(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Resize the classifier to the classes of a state dict; a hook that runs before loading."""
    rows = state.get(f"{prefix}classifier")
    classifier = model.get_parameter("classifier")
    if isinstance(rows, Tensor) and rows.shape[1:] == classifier.shape[1:]:
        classifier.data = classifier.new_zeros(rows.shape)


def norm_parameters(clip: CLIPModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the names and weights of the LayerNorms in the blocks of both towers.

    As in the published code, the LayerNorms before and after the blocks are frozen.
    """
    backbone = backbone_of(clip)
    names = {id(parameter): name for name, parameter in clip.named_parameters()}
    for tower in (backbone.text_tower(), backbone.image_tower()):
        for module in nn.ModuleList(tower.blocks).modules():
            if isinstance(module, nn.LayerNorm):
                yield from ((names[id(p)], p) for p in module.parameters())


class TwoSFS(PromptTrainer):
    """Train the LayerNorms by cross-entropy, then a classifier that starts at the tuned texts.

    Trained classes have rows of the classifier; other classes use the tuned text tower.
    """

    config_node = "TWOSFS"
    backbones = "ViT"
    model_name = "two_stage"
    templated = True
    model: TwoStageWeights
    settings_table = {
        "FRACTION": Setting(
            0.6, number(0, 1, open_high=True), "Share of the steps that train the LayerNorms."
        ),
        "TEMPLATE": TEMPLATE,
        **COMMON,
    }
    search_space = {**GRADIENT_SPACE, "FRACTION": Choice((0.3, 0.6, 0.9))}

    in_second_stage = False

    def build_prompts(self) -> TwoStageWeights:
        """Return LayerNorms and classifier.

        Raises:
            ValueError: a ResNet.
        """
        return TwoStageWeights(self.clip, len(self.classnames))

    # Training

    def step(self, batch: dict[str, Any]) -> dict[str, float] | None:
        """Take one step of the current stage; return and raise as the base class."""
        done = self.epoch * self.num_batches + self.batch_idx
        steps = self.max_epoch * self.num_batches
        first = min(round(self.settings.FRACTION * steps), steps - 1)
        self.in_second_stage = done >= first
        if done == first:
            self.begin_classifier()
        share = (done - first) / (steps - first) if self.in_second_stage else done / first
        for group in self.optim.param_groups:
            group["lr"] = cosine_rate(self.cfg.OPTIM.LR, share)
        return super().step(batch)

    @torch.no_grad()
    def begin_classifier(self) -> None:
        """Set the classifier to the unit texts of the tuned tower."""
        text = F.normalize(self.text_features(self.model()).float(), dim=-1)
        self.model.classifier.copy_(text)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of the current stage and class logits (B, K)."""
        prompts = self.model()
        if self.in_second_stage:
            with torch.no_grad():
                features = self.image_features(images, prompts)
            logits = self.backbone.classify(features, self.model.classifier)
        else:
            logits = super().logits(images, self.text_features(prompts))
        return F.cross_entropy(logits, labels), logits

    # Prediction

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, K); with `text` None, `evaluation_text` is computed now."""
        return super().logits(images, self.evaluation_text() if text is None else text)

    def evaluation_text(self) -> Tensor:
        """Return (K, E): rows of the classifier, and text features of classes without a row."""
        return self.learned_text(self.classnames)

    def learned_text(self, names: Sequence[str]) -> Tensor:
        """Return `evaluation_text` of any class names.

        Raises:
            ValueError: a classifier whose classes are not known.
        """
        text = super().learned_text(names)
        assert text is not None, "the texts learn"
        classifier = self.model.classifier
        if not classifier.any():
            return text
        trained = self.checkpointer.trained_names()
        if trained is None:
            raise ValueError("TwoSFS needs the results.json of the training: it names the classes")
        rows = dict(zip(trained, classifier, strict=True))
        own = [rows.get(name, features) for name, features in zip(names, text, strict=True)]
        return torch.stack([row.to(text.dtype) for row in own])


def cosine_rate(rate: float, share: float) -> float:
    """Return the learning rate after a `share` of a stage's steps, from `rate` to LAST_RATE."""
    return LAST_RATE + (rate - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2
