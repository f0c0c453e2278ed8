"""Recipes as data: the configuration that a method was published with for a protocol.

The bundled data run on the bundled CLIP; everything else with the first rule that fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import causalclip.configs
from causalclip.data.catalogue import BUNDLED

CONFIGS = Path(causalclip.configs.__path__[0])
BUNDLED_DATA = tuple(facts.config for facts in BUNDLED)

CLASS_BOUND = {
    "LinearProbe": "",
    "TipAdapter": "",
    "TipAdapterF": "",
    "CoOp": "TRAINER.COOP.CSC",
}
"""The methods that cannot name classes they were not trained on; with a key, only where it is True.

The trainers say so themselves (`knows_other_classes`, `class_bound`); a plan is made without
importing them.
"""


@dataclass(frozen=True)
class Rule:
    """A method's configuration for some protocols, data sets and shots; nothing named: for all."""

    method: str
    file: str
    paper: str
    protocols: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    shots: tuple[str, ...] = ()

    def fits(self, method: str, protocol: str, dataset: str, shots: str) -> bool:
        """Whether it is meant for this run."""
        return method == self.method and all(
            not named or given in named
            for named, given in (
                (self.protocols, protocol),
                (self.datasets, dataset),
                (self.shots, shots),
            )
        )


_COOP = "CoOp, arXiv 2109.01134"
_COCOOP = "CoCoOp, arXiv 2203.05557"
_MAPLE = "MaPLe, arXiv 2210.03117"
_PROMPTSRC = "PromptSRC, arXiv 2307.06948"
_PROGRAD = "ProGrad, arXiv 2205.14865"
_TCP = "TCP, arXiv 2311.18231"
_MMRL = "MMRL, arXiv 2503.08497"
_CDC = "CDC, arXiv 2410.12816"
_B2N, _FEW = ("base2new",), ("fewshot",)

RULES = (
    Rule("CoOp", "vit_b16_ep50_ctxv1", f"{_COCOOP}, table 1", _B2N, ("imagenet",)),
    Rule("CoOp", "vit_b16_ctxv1", f"{_COCOOP}, table 1", _B2N),
    # CoOp's paper trains as long as there are images: 50 epochs for one a class, 100 for 2 and 4,
    # else 200; on ImageNet always 50.
    Rule("CoOp", "vit_b16_ep50", _COOP, _FEW, ("imagenet",)),
    Rule("CoOp", "vit_b16_ep50", _COOP, _FEW, shots=("1",)),
    Rule("CoOp", "vit_b16_ep100", _COOP, _FEW, shots=("2", "4")),
    Rule("CoOp", "vit_b16", _COOP, _FEW),
    Rule("CoOp", "vit_b16_ep50_ctxv1", f"{_COCOOP}, tables 2 and 3"),
    Rule("CoCoOp", "vit_b16_c4_ep10_batch1_ctxv1", _COCOOP),
    Rule("MaPLe", "vit_b16_c2_ep5_batch4_2ctx", f"{_MAPLE}, table 3", (*_B2N, *_FEW)),
    Rule("MaPLe", "vit_b16_c2_ep5_batch4_2ctx_cross_datasets", f"{_MAPLE}, tables 4 and 5"),
    Rule("CDC", "vit_b16_m4", _CDC, (*_B2N, *_FEW)),
    Rule("CDC", "vit_b16_m4_cross_datasets", _CDC),
    Rule("PromptSRC", "vit_b16_c2_ep20_batch4_4+4ctx", _PROMPTSRC, _B2N),
    Rule("PromptSRC", "vit_b16_c2_ep50_batch4_4+4ctx_few_shot", _PROMPTSRC, _FEW),
    Rule("PromptSRC", "vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets", _PROMPTSRC),
    Rule("KgCoOp", "vit_b16_ep100_ctxv1", "KgCoOp, arXiv 2303.13283"),
    # As CoOp's epochs, but base-to-new 100.
    Rule("ProGrad", "vit_b16_ep100", _PROGRAD, _B2N),
    Rule("ProGrad", "vit_b16_ep50", _PROGRAD, _FEW, ("imagenet",)),
    Rule("ProGrad", "vit_b16_ep50", _PROGRAD, _FEW, shots=("1",)),
    Rule("ProGrad", "vit_b16_ep100", _PROGRAD, _FEW, shots=("2", "4")),
    Rule("ProGrad", "vit_b16", _PROGRAD, _FEW),
    Rule("ProGrad", "vit_b16_ep50", _PROGRAD),
    Rule("TCP", "vit_b16_ep25", _TCP, datasets=("imagenet", "sun397")),
    Rule("TCP", "vit_b16_ep50", _TCP),
    Rule("MMRL", "vit_b16_imagenet", _MMRL, (*_B2N, *_FEW), ("imagenet",)),
    Rule("MMRL", "vit_b16", _MMRL, _B2N),
    Rule("MMRL", "vit_b16_few_shot", _MMRL, _FEW),
    Rule("MMRL", "vit_b16_cross_datasets", _MMRL),
    Rule("MMA", "vit_b16_ep5", "MMA, CVPR 2024"),
    Rule("VPT", "vit_b16_c2_ep5_batch4_4", f"{_MAPLE}, its baseline"),
    Rule("IVLP", "vit_b16_c2_ep5_batch4_2+2ctx", f"{_MAPLE}, its baseline"),
)

FINE_GRAINED = ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat")
"""PromptSRC's few-shot runs weight the prompts of the last epochs more on these (its scripts)."""
LESS_GENERAL = ("oxford_flowers", "dtd", "eurosat")
"""ProGrad's few-shot runs of 8 and 16 images a class project less on these (its README)."""

NEAR_CLIP = {
    "imagenet": "0.5",
    "caltech101": "0.5",
    "oxford_pets": "0.2",
    "stanford_cars": "7.0",
    "oxford_flowers": "4.0",
    "food101": "5.0",
    "fgvc_aircraft": "6.0",
    "sun397": "6.0",
    "dtd": "6.0",
    "eurosat": "0.01",
    "ucf101": "3.0",
}
"""MMRL's weight of the distance from CLIP, base-to-novel and few-shot (its trainers/config.py)."""


def names(folder: str) -> list[str]:
    """The configurations in a folder of configs/, without .yaml, sorted."""
    return sorted(path.stem for path in (CONFIGS / folder).glob("*.yaml"))


def methods() -> list[str]:
    """The methods that have a recipe, sorted."""
    return sorted(path.name for path in (CONFIGS / "trainers").iterdir() if path.is_dir())


def recipe(method: str, protocol: str, dataset: str, shots: str) -> str:
    """The configuration of a method, without .yaml: of the bundled CLIP for the bundled data."""
    if dataset.startswith(BUNDLED_DATA):
        return "tiny_m4" if method == "CDC" else "tiny"
    fitting = (rule.file for rule in RULES if rule.fits(method, protocol, dataset, shots))
    return next(fitting, "vit_b16")


@dataclass(frozen=True)
class Context:
    """CoOp's context words in its few-shot runs, which its folders name."""

    words: str = "16"
    specific: str = "False"
    """CSC: whether each class has a context of its own."""
    position: str = "end"

    def of(self, recipe: str) -> Context:
        """The same, as long as the start of a recipe that starts from "a photo of a"."""
        started = recipe == "tiny" or recipe.endswith("ctxv1")
        return Context("4", self.specific, self.position) if started else self

    @property
    def folder(self) -> str:
        """As in CoOp's layout."""
        return f"/nctx{self.words}_csc{self.specific}_ctp{self.position}"

    @property
    def settings(self) -> tuple[str, ...]:
        """KEY VALUE pairs."""
        return (
            *("TRAINER.COOP.N_CTX", self.words),
            *("TRAINER.COOP.CSC", self.specific),
            *("TRAINER.COOP.CLASS_TOKEN_POSITION", self.position),
        )


def settings_of(method: str, protocol: str, dataset: str) -> tuple[str, ...]:
    """KEY VALUE pairs that a method learns a data set with beside its configuration.

    Those of few-shot runs alone are `few_shot_settings`.
    """
    if method == "MMA" and dataset == "imagenet":
        return ("DATALOADER.TRAIN_X.BATCH_SIZE", "128")
    if method == "MMRL" and protocol in (*_B2N, *_FEW) and dataset in NEAR_CLIP:
        wide = ("TRAINER.MMRL.REP_DIM", "2048") if dataset == "eurosat" else ()
        return ("TRAINER.MMRL.REG_WEIGHT", NEAR_CLIP[dataset], *wide)
    return ()


def few_shot_settings(method: str, dataset: str, shots: str, context: Context) -> tuple[str, ...]:
    """KEY VALUE pairs of a method's few-shot runs beside its configuration."""
    if method == "CoOp":
        return context.settings
    if method == "PromptSRC" and dataset in FINE_GRAINED:
        return ("TRAINER.PROMPTSRC.GPA_MEAN", "45.", "TRAINER.PROMPTSRC.GPA_STD", "5.")
    if method == "ProGrad" and dataset in LESS_GENERAL and shots in ("8", "16"):
        return ("TRAINER.PROGRAD.LAMBDA", "0.8")
    return ()


def knows_other_classes(method: str, settings: Mapping[str, Any]) -> bool:
    """Whether a method with these settings can name classes it was not trained on."""
    key = CLASS_BOUND.get(method)
    return key is None or (key != "" and not settings.get(key, False))
