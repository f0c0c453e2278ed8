"""The hand-crafted template of a data set: the published one, or `DATASET.TEMPLATE`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from yacs.config import CfgNode

from causalclip.data.catalogue import CATALOGUE, DEFAULT_TEMPLATE

# Sets of Dassl's own, which the catalogue does not know; all others take the default.
DASSL_TEMPLATES = {"DigitsDG": "a photo of the number {}."}

NOTHING: Mapping[str, str] = MappingProxyType({})


def template_for(name: str) -> str:
    """Return the template published for the data set registered as `name` (CoOp's appendix).

    A set without one of its own, of the user's for instance, has "a photo of a {}.".
    """
    facts = CATALOGUE.get(name)
    return facts.template if facts else DASSL_TEMPLATES.get(name, DEFAULT_TEMPLATE)


def given_template(cfg: CfgNode) -> str:
    """Return `DATASET.TEMPLATE`, or "" where the configuration leaves it to the data set.

    Raises:
        ValueError: for a template that does not hold {} exactly once.
    """
    template = cfg.DATASET.get("TEMPLATE", "")
    if not isinstance(template, str) or (template and template.count("{}") != 1):
        raise ValueError(
            "DATASET.TEMPLATE must be empty or a text with one {} for the class name, "
            f"got {template!r}"
        )
    return template


def dataset_template(cfg: CfgNode, published: Mapping[str, str] = NOTHING) -> str:
    """Return the template of the data set that `cfg` names.

    `DATASET.TEMPLATE` comes first, then what a method's own code has `published` by the name of the
    data set, then `template_for`.

    Raises:
        ValueError: for a `DATASET.TEMPLATE` that does not hold {} exactly once.
    """
    name = cfg.DATASET.NAME
    return given_template(cfg) or published.get(name) or template_for(name)
