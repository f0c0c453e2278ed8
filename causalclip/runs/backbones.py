"""Resolve the name of a backbone, and adapt a recipe to a backbone it was not written for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalclip.errors import UserError, unknown
from causalclip.runs.recipes import CONFIGS, RecipeChoice, choose_recipe, names
from causalclip.settings.check import flatten

NAME = "MODEL.BACKBONE.NAME"


@dataclass(frozen=True)
class NamedBackbone:
    """A CLIP to use in place of the recipe's."""

    name: str
    """Name of the folder of its results."""
    model: str
    """Name or file, as `causalclip.load_clip` takes it."""
    file: Path | None = None
    """Configuration file of the backbone, if it has one."""


def named_backbone(word: str) -> NamedBackbone:
    """Return the backbone with a given name.

    Args:
        word: the name of a configuration in configs/backbones/, without .yaml; a YAML file; a file
            of weights; or a name for `causalclip.load_clip`: ViT-B/16, open_clip:MODEL/TAG, ...

    Raises:
        UserError: no such backbone.
        ValueError: a YAML file that cannot be read.
    """
    from causalclip.clip.backbone import available_models  # imports torch
    from causalclip.clip.interface import PREFIX

    path = Path(os.path.abspath(os.path.expanduser(word)))
    configured = {name: CONFIGS / "backbones" / f"{name}.yaml" for name in names("backbones")}
    if word in configured:
        return _of_file(configured[word])
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return _of_file(path)
    for file in configured.values():
        if _settings(file)[NAME] == word:
            return _of_file(file)
    if word.startswith(PREFIX):
        from causalclip.clip.open_clip_backbone import parse_source

        try:
            parse_source(word)
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
    elif word not in available_models():
        if not path.is_file():
            known = [*configured, *available_models()]
            raise UserError(f"{unknown('BACKBONE', word, known)}; or a file")
        return NamedBackbone(path.stem, str(path))
    return NamedBackbone(re.sub(r"[^\w.+-]+", "-", word), word)


def _of_file(file: Path) -> NamedBackbone:
    model = _settings(file).get(NAME)
    if not model:
        raise UserError(f"{file} must name a CLIP, MODEL: {{BACKBONE: {{NAME: ...}}}}")
    return NamedBackbone(file.stem, str(model), file)


def _settings(file: Path) -> dict[str, Any]:
    from causalclip.settings.config_file import read_config

    return dict(flatten(read_config(file)))


def fitted(backbone: NamedBackbone, method: str, recipe: Path) -> dict[str, Any]:
    """Return the settings that adapt a method's recipe to a backbone: name, image size, depths.

    If a tower has fewer blocks than the recipe's CLIP, a depth in it shrinks in proportion.
    Every recipe fits the configurations in configs/backbones/: for these, return no settings.
    """
    if backbone.file is not None and backbone.file.parent == CONFIGS / "backbones":
        return {}
    from causalclip.clip.shape import VIT_B16, shape_of  # imports torch
    from causalclip.runs.configuration import cfg_from, trainer_class

    kind, values = trainer_class(method), dict(flatten(cfg_from([recipe], ())))
    shape = shape_of(backbone.model)
    written_for = shape_of(values[NAME]) if values[NAME] else VIT_B16  # which the defaults are for
    size = (shape.image_size, shape.image_size)
    pairs: dict[str, Any] = {NAME: backbone.model, "INPUT.SIZE": size}
    for name, row in getattr(kind, "settings_table", {}).items():
        if row.blocks:
            key = f"TRAINER.{kind.config_node}.{name}"
            ratio = min(1, shape.blocks(row.blocks) / written_for.blocks(row.blocks))
            pairs[key] = _reduced(values[key], ratio)
    own = {} if backbone.file is None else _settings(backbone.file)
    return {k: v for k, v in pairs.items() if k not in own and str(v) != str(values[k])}


def _reduced(depth: Any, ratio: float) -> Any:
    if isinstance(depth, (list, tuple)):
        return sorted({_reduced(block, ratio) for block in depth})
    return max(min(depth, 1), round(depth * ratio))


@dataclass(frozen=True)
class Start:
    """The configuration that a training of one method starts from."""

    recipe: RecipeChoice
    files: tuple[Path, ...]
    """Configuration files of the recipe and the backbone; later files override earlier ones."""
    fitting: Mapping[str, Any]
    """Settings that adapt the recipe to the backbone."""


def start_of(
    method: str,
    recipe: str,
    backbone: NamedBackbone | None,
    published_for: tuple[str, str, str],
    *,
    bundled: bool = False,
) -> Start:
    """Return the configuration that a training starts from.

    `backbone` replaces the recipe's; the other arguments and the errors are as in `choose_recipe`.
    """
    model = backbone.model if backbone else ""
    choice = choose_recipe(method, recipe, published_for, model=model, bundled=bundled)
    own = (backbone.file,) if backbone and backbone.file else ()
    fitting = fitted(backbone, method, choice.file) if backbone else {}
    return Start(choice, (choice.file, *own), fitting)


def words_of(pairs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return settings as KEY VALUE words of a command line."""
    return tuple(str(word) for pair in pairs.items() for word in pair)
