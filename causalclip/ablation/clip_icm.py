"""CLIP-ICM's ablation: pairs, kinds, strengths, estimators, and what the sources choose of them."""

from __future__ import annotations

from causalclip.ablation.variants import Ablation, Reference, Table, Variant
from causalclip.runs.protocols import ALL_IMAGES, Part, Protocol

PLAIN = Variant("plain features", reading="plain")
METHOD = Variant("the method")


def images(_: Reference) -> list[Variant]:
    """Few to all images a class of each source."""
    few = [Variant(f"{n} a class", shots=str(n)) for n in (1, 2, 4, 8, 16)]
    return [*few, Variant("all", shots=ALL_IMAGES)]


def draws(_: Reference) -> list[Variant]:
    """Interventions an image."""
    return [Variant(f"{n} an image", {"DRAWS": n}) for n in (1, 2, 4, 8)]


def kinds(reference: Reference) -> list[Variant]:
    """Each kind of intervention alone, and all but it."""
    known = list(dict.fromkeys(reference["KINDS"]))
    alone = [Variant(f"{kind} alone", {"KINDS": [kind]}) for kind in known]
    left = [Variant(f"without {k}", {"KINDS": [x for x in known if x != k]}) for k in known]
    return [PLAIN, METHOD, *alone, *(left if len(known) > 1 else [])]


def strengths(_: Reference) -> list[Variant]:
    """Factors on the strengths of the interventions."""
    return [PLAIN, *(Variant(f"x {s:g}", {"STRENGTH": s}) for s in (0.25, 0.5, 1.0, 2.0, 4.0))]


def pairs(_: Reference) -> list[Variant]:
    """What is held against what."""
    plain = {"TWINS": False, "REMOVE_GAP": False, "PROBE_TEXTS": True}
    rows = {
        "images": {"INTERVENTIONS": "IMAGE"},
        "texts": {"INTERVENTIONS": "TEXT"},
        "images and texts": {"INTERVENTIONS": "BOTH"},
        "image against caption": {"INTERVENTIONS": "CROSS"},
        "image against caption, gap removed": {"INTERVENTIONS": "CROSS", "REMOVE_GAP": True},
        "as in the figure": {"INTERVENTIONS": "FIGURE"},
        "as in the figure, gap removed": {"INTERVENTIONS": "FIGURE", "REMOVE_GAP": True},
    }
    return [PLAIN, *(Variant(name, plain | settings) for name, settings in rows.items())]


def estimators(_: Reference) -> list[Variant]:
    """Both estimators, both ends of the spectrum, raw features, and the published code's way."""
    both = ["difference", "generalized"]
    ends = {"KEEP": "invariant", "NORMALIZE": True, "NORMALIZE_PROJECTED": True}
    reference = {**ends, "KEEP": "reference"}
    published = {"NORMALIZE": False, "NORMALIZE_PROJECTED": False, "KEEP": "reference"}
    rows = {
        "both": {"GRID_ESTIMATORS": both, **ends},
        "difference": {"GRID_ESTIMATORS": ["difference"], **ends},
        "generalized": {"GRID_ESTIMATORS": ["generalized"], **ends},
        "difference, the code's end": {"GRID_ESTIMATORS": ["difference"], **reference},
        "generalized, the code's end": {"GRID_ESTIMATORS": ["generalized"], **reference},
        "both, raw features": {"GRID_ESTIMATORS": both, **ends, "NORMALIZE": False},
        "generalized, not orthonormal": {
            "GRID_ESTIMATORS": ["generalized"],
            **ends,
            "ORTHONORMAL": False,
        },
        "as the code does": {"GRID_ESTIMATORS": ["difference"], **published},
    }
    rows = {name: {"SELECT": "lodo", **settings} for name, settings in rows.items()}
    return [PLAIN, *(Variant(name, settings) for name, settings in rows.items())]


def alone(_: Reference) -> list[Variant]:
    """The method, choosing from its grid."""
    return [Variant("the method", {"SELECT": "lodo"})]


def protocol(_: str) -> Protocol:
    """Leave one domain out; its runs know the figures of both splits."""
    folder = "ablation/{method}/{dataset}/shots_{shots}/{target}/{recipe}/seed{seed}"
    settings = ("DATASET.NUM_SHOTS", "{num_shots}")
    parts = (Part("train", folder, settings),)
    return Protocol("ablation", "Ablation", parts, shots=(ALL_IMAGES,), domains=True)


COLUMNS = ("zero-shot", "worst", "probe", "probe worst", "k", "k probe", "change kept %")
DRAW = "causalclip.ablation.icm_figures"
TABLES = {
    "images": Table("Number of images", images, COLUMNS),
    "draws": Table("Number of interventions", draws, COLUMNS),
    "kinds": Table("Kinds of intervention", kinds, COLUMNS),
    "strengths": Table("Strength of interventions", strengths, COLUMNS),
    "pairs": Table("Pairs of images and texts", pairs, COLUMNS),
    "estimators": Table("Estimators and ends of the spectrum", estimators, COLUMNS),
    "heatmaps": Table("Accuracy over strength and dimension", alone, figure=f"{DRAW}:heat_maps"),
    "spectrum": Table("Spectrum", alone, figure=f"{DRAW}:spectra"),
    "embeddings": Table("Embeddings", alone, figure=f"{DRAW}:embeddings"),
}
NOTE = {
    "val": "each source domain left out in turn, by the best cell of the other sources; no target "
    "domain is looked at",
    "test": "the whole of each target domain, by the cell that all sources choose",
}
CLIP_ICM = Ablation(
    protocol,
    recipe_of="lodo",
    measure="causalclip.ablation.icm_scores:quantities",
    dataset="handwritten_digits",
    seeds=("1",),
    tables=TABLES,
    note=NOTE,
)
