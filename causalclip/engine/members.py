"""A method inside another: the templates of CDC may be models of any prompt method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn

from causalclip.clip.encode import encode_image
from causalclip.engine.prompt_trainer import PromptTrainer


class Members:
    """M models of one prompt method; the data, CLIP, configuration and clock are their owner's."""

    def __init__(self, kind: type[PromptTrainer], owner: PromptTrainer) -> None:
        """Start without models; `add` builds them."""
        self.models: list[Any] = []
        self._owner = owner
        self._class = type(kind.__name__, (_Member, kind), {})

    def add(self) -> nn.Module:
        """Build one more model; return its prompts."""
        model = self._class(self._owner)
        if (texts := model.texts(model.classnames)) is not None:
            model.class_tokens = texts
        model.model = model.build_prompts()
        self.models.append(model)
        return model.model

    def evaluation_text(self) -> Tensor | None:
        """Return the text features (M, K, E); None if they depend on the image."""
        texts = [text for m in self.models if (text := m.evaluation_text()) is not None]
        return torch.stack(texts) if texts else None

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, M, K) of images (B, 3, H, W), or (B, M, 3, H, W) of M views."""
        answers = zip(self.models, self._views(images), self._each(text), strict=True)
        return torch.stack([m.logits(view, own) for m, view, own in answers], dim=1)

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, M, K) of image features (B, E), which all models share."""
        answers = zip(self.models, self._each(text), strict=True)
        return torch.stack([m.feature_logits(features, own) for m, own in answers], dim=1)

    def losses(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each model's loss (M,) of images as in `logits`, and the logits (B, M, K)."""
        views = zip(self.models, self._views(images), strict=True)
        losses, logits = zip(*(m.loss(view, labels) for m, view in views), strict=True)
        return torch.stack(losses), torch.stack(logits, dim=1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class features (M, K, E) and features (B, M, E) of images as in `logits`."""
        prompts = [m.model() for m in self.models]
        models = list(zip(self.models, prompts, self._views(images), strict=True))
        text = torch.stack([m.text_features(own) for m, own, _ in models])
        return text, torch.stack([m.image_features(v, own) for m, own, v in models], dim=1)

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> Tensor:
        """Return CLIP's own features (B, M, E) of images as in `logits`."""
        plain = [encode_image(self._owner.clip, view) for view in self._views(images)]
        return torch.stack(plain, dim=1)

    def _views(self, images: Tensor) -> Sequence[Tensor]:
        return images.unbind(1) if images.dim() == 5 else [images] * len(self.models)

    def _each(self, text: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(self.models) if text is None else text.unbind(0)


class _Member:
    """Takes from its owner everything but the parameters and the method's own state."""

    def __init__(self, owner: PromptTrainer) -> None:
        self.owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["owner"], name)


def base_class(name: str, *, where: str) -> type[PromptTrainer]:
    """Return the registered prompt method `name`, which the setting `where` asks for.

    Raises:
        ValueError: not registered, or a method that builds or steps on its own; names the
            allowed methods.
    """
    known = {one: TRAINER_REGISTRY.get(one) for one in TRAINER_REGISTRY.registered_names()}
    whole = ("build_method", "forward_backward", "step")
    allowed = {
        one: kind
        for one, kind in known.items()
        if issubclass(kind, PromptTrainer)
        and not kind.has_members
        and all(getattr(kind, part) is getattr(PromptTrainer, part) for part in whole)
    }
    if name not in allowed:
        raise ValueError(f"{where} must be empty or one of {', '.join(allowed)}, got {name!r}")
    return allowed[name]
