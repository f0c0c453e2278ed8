"""The protocols that tables are made of, and the one that a result of schema 1 belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causalclip.report.results import Result

PROTOCOLS = {
    "base2new": "Base-to-novel",
    "xd": "Cross-dataset",
    "dg": "Domain generalisation",
    "fewshot": "Few-shot",
    "lodo": "Leave one domain out",
    "openclass": "Open class",
}
VARIANTS = ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")


def inferred_protocol(result: Result) -> str:
    """The protocol of a result that does not say it; empty for one that is of none."""
    if "open" in result.parts:
        return "openclass"
    if result.target_domains:
        return "lodo" if result.subsample_classes == "all" else ""
    if result.subsample_classes != "all":
        return "base2new"
    trained_on = result.trained_on
    if trained_on is None:
        return "fewshot"
    if trained_on["dataset"] == result.dataset or trained_on["subsample_classes"] != "all":
        return ""  # the same run evaluated again, or base classes tested on all
    return "dg" if result.dataset in VARIANTS else "xd"
