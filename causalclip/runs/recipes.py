"""Recipes: which configuration a method uses for a protocol, as published or as tuned.

They are in configs/trainers/METHOD/_recipes.yaml, next to the configurations.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import causalclip.configs
from causalclip.data.catalogue import BUNDLED
from causalclip.errors import UserError, unknown

CONFIGS = Path(causalclip.configs.__path__[0])
READINGS = ("published", "tuned")
BUNDLED_DATA = tuple(facts.config for facts in BUNDLED)


@dataclass(frozen=True)
class RecipeRule:
    """A configuration or settings for some protocols, data sets and shots; empty: for all."""

    config: str = ""
    paper: str = ""
    protocols: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    shots: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    """Configurations that the rule's settings are added to; empty: all."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Settings in addition to the configuration."""

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> RecipeRule:
        """Return the rule of one row of the file."""
        lists = {name: tuple(map(str, v)) for name, v in row.items() if isinstance(v, list)}
        return cls(**{**row, **lists})

    def fits(self, protocol: str, dataset: str, shots: str, recipe: str = "") -> bool:
        """Return whether the rule applies to a run."""
        wanted = (
            (self.protocols, protocol),
            (self.datasets, dataset),
            (self.shots, shots),
            (self.recipes, recipe),
        )
        return all(not names or name in names for names, name in wanted)


@dataclass(frozen=True)
class Recipes:
    """The recipes of one method."""

    tiny: str = "tiny"
    """The configuration for the bundled CLIP and data; its settings were tuned."""
    tiny_published: str = ""
    """The published configuration for the bundled CLIP and data, if the method has one."""
    rules: tuple[RecipeRule, ...] = ()
    tuned: tuple[RecipeRule, ...] = ()
    """Rules for tuned configurations of other CLIPs, if the method has any."""
    settings: tuple[RecipeRule, ...] = ()
    fewshot_folder: str = ""
    """Part of the folder of a few-shot run; its fields are the method's settings."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the few-shot script, and the settings that they set."""

    def config(self, protocol: str, dataset: str, shots: str, *, tuned: bool = False) -> str:
        """Return the published or the tuned configuration of a run, without .yaml."""
        rules = self.tuned if tuned else self.rules
        fitting = (rule.config for rule in rules if rule.fits(protocol, dataset, shots))
        return next(fitting, "vit_b16")

    def extra_settings(
        self, protocol: str, dataset: str, shots: str, recipe: str = ""
    ) -> tuple[str, ...]:
        """Return the KEY VALUE pairs of a run in addition to its configuration `recipe`."""
        pairs: dict[str, Any] = {}
        for rule in self.settings:
            if rule.fits(protocol, dataset, shots, recipe):
                pairs |= rule.set
        return tuple(str(word) for pair in pairs.items() for word in pair)


@dataclass(frozen=True)
class RecipeChoice:
    """The recipe of a run, and the reason for it."""

    name: str
    reason: str
    file: Path


def choose_recipe(
    method: str,
    asked: str,
    published_for: tuple[str, str, str],
    *,
    model: str = "",
    bundled: bool = False,
) -> RecipeChoice:
    """Return the recipe that a user asks for; by default, the one for the backbone.

    Args:
        method: a trainer.
        asked: tiny, published, tuned, a configuration of the method without .yaml, a YAML of the
            user's, or empty.
        published_for: protocol, data set and shots.
        model: the CLIP to use in place of the recipe's; empty: the recipe's.
        bundled: whether the data set is a bundled one, for which tiny is the recipe.

    Raises:
        UserError: the method has no such recipe.
        ValueError, FileNotFoundError: a CLIP that cannot be read.
    """
    recipes, known = recipes_of(method), names(f"trainers/{method}")
    path = Path(os.path.abspath(os.path.expanduser(asked)))
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return RecipeChoice(path.stem, "as asked for", path)
    small, reason = bundled, "for bundled data" if bundled else f"published for {published_for[0]}"
    if model and asked in ("", *READINGS):
        from causalclip.clip.shape import VIT_B16, shape_of  # imports torch

        shape = shape_of(model)
        small = shape.distance(shape_of("tiny")) < shape.distance(VIT_B16)
        reason = f"the nearest to {Path(model).name}: {shape}"
    published = recipes.config(*published_for)
    tuned = recipes.config(*published_for, tuned=True) if recipes.tuned else ""
    # `tiny` replaces a missing published recipe, but not for a CLIP that the user has chosen.
    small_published = recipes.tiny_published or ("" if model else recipes.tiny)
    name = {
        "": recipes.tiny if small else published,
        "tiny": recipes.tiny,
        "published": small_published if small and small_published else published,
        "tuned": recipes.tiny if small else tuned or asked,
    }.get(asked, asked)
    if not known:
        raise UserError(f"{method} has no configurations: name a FILE.yaml as its recipe")
    if name not in known:
        words = ["tiny", "published", *(["tuned"] if tuned else [])]
        known = [*words, *(other for other in known if other != "tiny")]
        raise UserError(unknown("recipe", name, [*known, "FILE.yaml"], of=method))
    reason = "as asked for" if asked else reason
    return RecipeChoice(name, reason, CONFIGS / "trainers" / method / f"{name}.yaml")


@functools.cache
def recipes_of(method: str) -> Recipes:
    """Return the recipes of a method; the defaults if it has no file of recipes."""
    path = CONFIGS / "trainers" / method / "_recipes.yaml"
    if not path.is_file():
        return Recipes()
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name in ("rules", "tuned", "settings"):
        content[name] = tuple(map(RecipeRule.from_dict, content.get(name, ())))
    return Recipes(**content)


def names(folder: str) -> list[str]:
    """Return the configurations in a folder of configs/, without .yaml, sorted."""
    paths = (CONFIGS / folder).glob("*.yaml")
    return sorted(path.stem for path in paths if not path.stem.startswith("_"))


def methods() -> list[str]:
    """Return the methods that have configurations, sorted."""
    folders = (CONFIGS / "trainers").iterdir()
    return sorted(path.name for path in folders if path.is_dir())
