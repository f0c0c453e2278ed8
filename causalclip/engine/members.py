"""A method inside another: the templates of CDC may be models of any prompt method."""

from __future__ import annotations

from typing import Any

from dassl.engine import TRAINER_REGISTRY

from causalclip.engine.prompt_trainer import PromptTrainer


class _Member:
    """All but the learned numbers and the method's own state is the owner's."""

    def __init__(self, owner: PromptTrainer) -> None:
        self.owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["owner"], name)


def base_class(name: str, *, where: str) -> type[PromptTrainer]:
    """Return the registered prompt method `name`, which the setting `where` asks for.

    Raises:
        ValueError: not registered, or a method that builds or steps on its own; names the others.
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


def new_member(kind: type[PromptTrainer], owner: PromptTrainer) -> Any:
    """Return a `kind` that shares the data, CLIP, configuration and clock of `owner`.

    It has no prompts yet: set its `model` to what its `build_prompts` returns.
    """
    return type(kind.__name__, (_Member, kind), {})(owner)
