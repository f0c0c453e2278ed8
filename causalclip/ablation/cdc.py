"""CDC's ablation: the tables of the paper's kind, each row as explicit switches.

Rows are relative to the recipe in use, so that they stay what their names say when it changes:
a part that is off in a row is switched off by name, and one that the recipe does without is marked.
"""

from __future__ import annotations

from causalclip.ablation.variants import Ablation, Part, Reference, Table, Variant, ladder, require
from causalclip.runs.protocols import Part as Run
from causalclip.runs.protocols import Protocol

FAMILIES = ["crop", "color_jitter", "gray_blur", "perspective_erasing"]
"""Views where the recipe has none of its own; without the flip, which makes no 2 of a 2."""
TEMPLATES = (1, 2, 4, 8)
TRUSTED = {"LOSS": "trusted", "FUSED_LOSS": True, "FUSION": "discounted"}
PLAIN = {"LOSS": "cross_entropy", "FUSED_LOSS": False, "FUSION": "logits", "KL_WEIGHT": 0.0}

COMPONENTS = (
    Part(
        "augmentations, one a template",
        off={"VIEWS": ["as_configured"], "CROP_ALL_VIEWS": False},
        on={"VIEWS": FAMILIES},
        told_by=("VIEWS",),
    ),
    Part("L_de", off={"BETA": 0.0, "BETA_IMAGE": 0.0}, on={"BETA": 0.1, "BETA_IMAGE": 0.1}),
    Part("L_con, texts", off={"GAMMA": 0.0}, on={"GAMMA": 5.0}),
    Part(
        "L_con, images",
        off={"GAMMA_IMAGE": 0.0},
        on={"GAMMA_IMAGE": 5.0},
        follows={"GAMMA_IMAGE": "GAMMA"},
    ),
    Part("trusted loss and fusion", off=PLAIN, on=TRUSTED, told_by=("LOSS",)),
)
"""The weights of `on` are ours, for a recipe without the part; one that has it has its own."""


def components(reference: Reference) -> list[Variant]:
    """From multiple templates alone to the method, one more part a row."""
    shaped = reference["VISION"] != "none"  # else nothing that learns shapes the image features
    parts = [part for part in COMPONENTS if shaped or part.name != "L_con, images"]
    return ladder("multiple templates alone", parts, reference)


def templates(_: Reference) -> list[Variant]:
    """One to eight templates."""
    return [Variant(f"M = {m}", {"N_TEMPLATES": m}) for m in TEMPLATES]


def augmentations(reference: Reference) -> list[Variant]:
    """The two sets of views, and none of a template's own.

    Raises:
        PlanError: fewer templates than a set has views.
    """
    own = [view for view in reference["VIEWS"] if view != "as_configured"]
    views, m = own if len(own) > 1 else FAMILIES, reference["N_TEMPLATES"]
    require(
        m >= len(views),
        f"table augmentations compares sets of {len(views)} views, one a template: "
        f"TRAINER.CDC.N_TEMPLATES must be at least {len(views)}, got {m}",
    )
    return [
        Variant("as other methods see it", {"VIEWS": ["as_configured"], "CROP_ALL_VIEWS": False}),
        Variant("no augmentation", {"VIEWS": ["plain"], "CROP_ALL_VIEWS": False}),
        Variant("set 1", {"VIEWS": views, "CROP_ALL_VIEWS": False}),
        Variant("set 2: a random crop in each", {"VIEWS": views, "CROP_ALL_VIEWS": True}),
    ]


def semantics(reference: Reference) -> list[Variant]:
    """Each template alone, against what they say together."""
    alone = [Variant(f"S{m + 1}", reading=f"template/{m}") for m in range(reference["N_TEMPLATES"])]
    return [*alone, Variant("fused")]


def fusion(_: Reference) -> list[Variant]:
    """Every rule on the same trained templates."""
    rules = ("dempster", "discounted", "averaging", "probabilities", "logits")
    return [Variant(rule, reading=rule) for rule in rules]


def losses(reference: Reference) -> list[Variant]:
    """What is minimised beside L_de and L_con."""
    trusted = {**TRUSTED, "KL_WEIGHT": 0.0}
    annealed = {**trusted, "KL_WEIGHT": 1.0, "KL_EPOCHS": reference.epochs}
    rows = {
        "trusted, mean": trusted | {"LOSS_REDUCTION": "mean"},
        "trusted, sum (TMC)": trusted | {"LOSS_REDUCTION": "sum"},
        "trusted, mean, KL annealed": annealed | {"LOSS_REDUCTION": "mean"},
        "cross-entropy, mean": PLAIN | {"LOSS_REDUCTION": "mean"},
        "cross-entropy, sum": PLAIN | {"LOSS_REDUCTION": "sum"},
    }
    return [Variant(name, settings) for name, settings in rows.items()]


def learning(_: Reference) -> list[Variant]:
    """What learns, and in which towers."""
    coupled = {"VISION": "coupled", "LEARN": "all"}
    rows = {
        "coupled, tokens alone": {**coupled, "LEARN": "tokens", "SHARE_PROJECTIONS": True},
        "coupled, shared projections": {**coupled, "SHARE_PROJECTIONS": True},
        "coupled, own projections": {**coupled, "SHARE_PROJECTIONS": False},
        "independent": {"VISION": "independent"},
        "text alone": {"VISION": "none", "BETA_IMAGE": 0.0, "GAMMA_IMAGE": 0.0},
    }
    return [Variant(name, settings) for name, settings in rows.items()]


def evidence(_: Reference) -> list[Variant]:
    """What makes evidence of a logit, and what it counts from."""
    image, training = ({"EVIDENCE_OFFSET": name} for name in ("image", "training"))
    rows = {
        "exp, above the image's mean": {"EVIDENCE": "exp", **image},
        "exp, above the training images' mean": {"EVIDENCE": "exp", **training},
        "softplus, above the image's mean": {"EVIDENCE": "softplus", **image},
        "relu, above the image's mean": {"EVIDENCE": "relu", **image},
    }
    return [Variant(name, settings) for name, settings in rows.items()]


def discount(_: Reference) -> list[Variant]:
    """eta by likelihood, 1/M and 1; none of them changes the training."""
    return [
        Variant("fitted", {"DISCOUNT": "fit"}, reading="discounted"),
        Variant("1/M, geometric", {"DISCOUNT": "geometric"}, reading="discounted"),
        Variant("1, Dempster", reading="dempster"),
    ]


def epochs(reference: Reference) -> list[Variant]:
    """The method after each epoch."""
    return [Variant(str(e), epoch=str(e)) for e in range(1, reference.epochs + 1)]


def alone(_: Reference) -> list[Variant]:
    """The method."""
    return [Variant("the method")]


def protocol(split: str) -> Protocol:
    """Base-to-novel, tested on all images of one split; the training sees no test image."""
    folder = "ablation/{method}/{dataset}/shots_{shots}/{part}/{recipe}/seed{seed}"
    base, new = (("DATASET.SUBSAMPLE_CLASSES", half) for half in ("base", "new"))
    whole = ("DATASET.NUM_SHOTS", "-1", "TEST.SPLIT", split)  # not the few of a few-shot set
    few = ("DATASET.NUM_SHOTS", "{num_shots}", "TEST.SPLIT", "val")
    first = "train_base"
    return Protocol(
        "ablation",
        "Ablation",
        (
            Run(first, folder, (*few, *base)),
            Run(f"{split}_base", folder, (*whole, *base), tests=first),
            Run(f"{split}_new", folder, (*whole, *new), tests=first, other_classes=True),
        ),
    )


ACCURACY = ("base", "new", "HM", "ECE base", "ECE new", "AUROC")
COST = ("base", "new", "HM", "parameters (1000)", "ms a step", "images/s", "memory MB")
DRAW = "causalclip.ablation.cdc_figures"
TABLES = {
    "components": Table("Components", components, ACCURACY),
    "templates": Table("Number of templates", templates, COST),
    "augmentations": Table("Augmentations", augmentations, ACCURACY),
    "semantics": Table("Each semantic alone", semantics, ACCURACY),
    "fusion": Table("Fusion rules, of one training", fusion, ACCURACY),
    "losses": Table("Losses", losses, ACCURACY),
    "evidence": Table("Evidence", evidence, ACCURACY),
    "learning": Table("What learns", learning, (*ACCURACY, "parameters (1000)")),
    "discount": Table("Discount of the fusion", discount, ACCURACY),
    "epochs": Table("Accuracy over epochs", epochs, figure=f"{DRAW}:over_epochs"),
    "cosines": Table("Cosines between templates", epochs, figure=f"{DRAW}:template_cosines"),
    "uncertainty": Table("Uncertainty", alone, figure=f"{DRAW}:uncertainties"),
}
NOTE = {
    "val": "all validation images of base and of new classes; a discount that is fitted has seen "
    "some of the base ones",
    "test": "the test split: to report what was chosen, not to choose",
}
CDC = Ablation(
    protocol,
    recipe_of="base2new",
    measure="causalclip.ablation.cdc_scores:quantities",
    dataset="handwritten_digits",
    seeds=("1", "2", "3"),
    tables=TABLES,
    note=NOTE,
)
