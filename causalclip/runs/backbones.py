"""Resolve what a user calls a backbone, and fit a recipe to one that it was not written for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causalclip.errors import UserError, unknown
from causalclip.runs.recipes import CONFIGS, choose_recipe, names
from causalclip.settings.check import flatten
from causalclip.settings.table import Setting

NAME = "MODEL.BACKBONE.NAME"


@dataclass(frozen=True)
class NamedBackbone:
    """A CLIP that replaces the one of the recipe."""

    name: str
    """Of the folder of its results."""
    model: str
    """As `causalclip.load_clip` takes it."""
    file: Path | None = None
    """The configuration that was named."""

    @property
    def packaged(self) -> bool:
        """Whether it is a configuration of configs/backbones/, to which all recipes fit."""
        return self.file is not None and self.file.parent == CONFIGS / "backbones"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of its configuration by dotted key."""
        return {} if self.file is None else _settings(self.file)


def named_backbone(word: str) -> NamedBackbone:
    """Return the backbone of a name.

    Args:
        word: a configuration of configs/backbones/, without .yaml; a YAML; a file of weights; or a
            name that `causalclip.load_clip` takes, as ViT-B/16 or open_clip:MODEL/TAG.

    Raises:
        UserError: there is none.
        ValueError: a YAML that cannot be read.
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


def fitting_pairs(
    backbone: NamedBackbone, recipe: Mapping[str, Any], rows: Iterable[tuple[str, Setting]]
) -> dict[str, Any]:
    """Return the settings by which a recipe fits a backbone: image size, and depths.

    A depth is kept; in a tower of fewer blocks than the recipe's CLIP it shrinks in proportion.
    Nothing is changed for a configuration of configs/backbones/. `recipe` holds all settings, by
    key, `rows` those of the method.
    """
    if backbone.packaged:
        return {}
    from causalclip.clip.shape import VIT_B16, shape_of

    shape = shape_of(backbone.model)
    written_for = shape_of(recipe[NAME]) if recipe[NAME] else VIT_B16  # as the defaults
    size = (shape.image_size, shape.image_size)
    pairs: dict[str, Any] = {NAME: backbone.model, "INPUT.SIZE": size}
    for key, row in rows:
        if row.blocks:
            ratio = min(1, shape.blocks(row.blocks) / written_for.blocks(row.blocks))
            pairs[key] = _reduced(recipe[key], ratio)
    own = backbone.settings
    return {k: v for k, v in pairs.items() if k not in own and str(v) != str(recipe[k])}


def _reduced(depth: Any, ratio: float) -> Any:
    if isinstance(depth, (list, tuple)):
        return sorted({_reduced(block, ratio) for block in depth})
    return max(min(depth, 1), round(depth * ratio))


def fitted(backbone: NamedBackbone, method: str, files: Sequence[Path]) -> dict[str, Any]:
    """Return the settings by which a method's recipe fits a backbone; see `fitting_pairs`."""
    from causalclip.runs.configuration import cfg_from, trainer_class  # imports torch

    kind = trainer_class(method)
    node = getattr(kind, "config_node", "")
    rows = getattr(kind, "settings_table", {})
    recipe = dict(flatten(cfg_from(files, ())))
    return fitting_pairs(
        backbone, recipe, [(f"TRAINER.{node}.{key}", row) for key, row in rows.items()]
    )


@dataclass(frozen=True)
class Start:
    """The configuration that a training of one method starts from."""

    recipe: str
    """Its name."""
    backbone: str
    """The name of a CLIP in place of the recipe's; empty: the recipe's."""
    files: tuple[Path, ...]
    """Of the recipe and of the backbone."""
    fitting: Mapping[str, Any]
    """Settings by which the recipe fits the backbone."""


def start_of(
    method: str, recipe: str, backbone: str, published_for: tuple[str, str, str], *, bundled: bool
) -> Start:
    """Return what a user's words for a recipe and a backbone stand for.

    Arguments and errors are those of `choose_recipe` and `named_backbone`; empty words take those
    that suit the data.
    """
    named = named_backbone(backbone) if backbone else None
    model = named.model if named else ""
    choice = choose_recipe(method, recipe, published_for, model=model, bundled=bundled)
    files = (choice.file,)
    own = (named.file,) if named and named.file else ()
    fitting = fitted(named, method, files) if named else {}
    return Start(choice.name, named.name if named else "", (*files, *own), fitting)


def words_of(pairs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return settings as KEY VALUE words of a command line."""
    return tuple(str(word) for pair in pairs.items() for word in pair)
