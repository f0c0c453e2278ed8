"""The table of settings: one row per key, which every other module reads.

A row has the default, the allowed values, one sentence of help, and whether the setting changes a
result. The rows of a method are in its class (`settings_table`); the rows here apply to all runs.
`docs/settings.md` is generated from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from causalclip.settings.constraints import (
    Constraint,
    boolean,
    fixed,
    integer,
    list_of,
    number,
    one_of,
    ordered_pair,
    text,
)


class _Toolkit:
    """The default is the toolkit's own."""

    def __repr__(self) -> str:
        return "as Dassl"


TOOLKIT = _Toolkit()


@dataclass(frozen=True)
class Setting:
    """One setting of the configuration."""

    default: Any
    """Value if you do not set it; `TOOLKIT` keeps Dassl's default."""
    allowed: Constraint
    help: str
    neutral: str = ""
    """Why the setting does not change a result; empty if it can."""
    shared: str = ""
    """Why runs that differ in it still belong to one method in a table; empty if they do not."""
    names_file: bool = False
    """Whether the value may be a path: then the content of the file is compared, not the path."""
    fixed_by_training: bool = False
    """Whether a test must use the value that the model was trained with."""
    training_only: bool = False
    """Whether a trained model is built with the default instead, as in prediction."""
    blocks: str = ""
    """Tower whose blocks a depth counts: text, image, or both; empty for other settings."""


# Rows that several methods have


PRECISIONS = ("fp32", "fp16", "bf16", "amp")
PREC = Setting("fp32", one_of(PRECISIONS), "Precision of the CLIP model.")
_PROJECTION_HELP = "File of an invariant projection; classify in its subspace."
PROJECTION = Setting("", text(), _PROJECTION_HELP, names_file=True)
TEMPLATE = Setting(
    "", text(holding="{}"), "Hand-crafted prompt with one {}; empty: the data set's published one."
)
COMMON = {"PREC": PREC, "PROJECTION": PROJECTION}
SHARED = {**COMMON, "TEMPLATE": TEMPLATE}
"""Keys that mean the same in every method that has them."""

SPEED = "changes the speed"
DISPLAY = "changes what is printed"
COLUMN = "a column or table of its own"
UNUSED = "no method of causalclip reads it"

_BATCH = integer(1, 1_000_000)
_PROBABILITY = number(0, 1)
_POSITIVE = number(0, open_low=True)


def _toolkit(allowed: Constraint, help: str, **kinds: Any) -> Setting:
    return Setting(TOOLKIT, allowed, help, **kinds)


def _unused(allowed: Constraint, help: str) -> Setting:
    return Setting(TOOLKIT, allowed, help, neutral=UNUSED)


_RUN = {
    "VERSION": _toolkit(integer(), "Version of the configuration's layout.", neutral=DISPLAY),
    "OUTPUT_DIR": _toolkit(text(), "Folder of the run.", neutral="a place"),
    "RESUME": _toolkit(
        text(),
        "Folder of a checkpoint to resume.",
        neutral="a resumed run ends in the same weights",
    ),
    "SEED": _toolkit(integer(-(2**63)), "Random seed; negative: none.", shared="averaged over"),
    "TRAIN.START": Setting(
        0,
        integer(0, 10_000),
        "Number of another random start and order of the training images; 0: from SEED alone.",
        shared="members of an ensemble",
    ),
    "USE_CUDA": _toolkit(boolean(), "Use a GPU if there is one.", neutral=SPEED),
    "VERBOSE": _toolkit(boolean(), "Print more.", neutral=DISPLAY),
    "CONFIG_NAME": Setting(
        "", text(), "Name of the method's configuration.", neutral="the settings count"
    ),
    "PROTOCOL": Setting("", text(), "Protocol that requested the run.", neutral="a label"),
    "PROTOCOL_PART": Setting("", text(), "Training or test of the protocol.", neutral="a label"),
    "FEATURE_CACHE": Setting(
        True, boolean(), "Keep image features on disk and read them there.", neutral=SPEED
    ),
}

_INPUT = {
    "SIZE": _toolkit(
        list_of(integer(1, 10_000), least=2),
        "Height and width of an image.",
        fixed_by_training=True,
    ),
    "INTERPOLATION": _toolkit(
        one_of(("bilinear", "bicubic", "nearest")),
        "How images are resized.",
        fixed_by_training=True,
    ),
    "TRANSFORMS": _toolkit(list_of(text(), least=0), "Training augmentations, and `normalize`."),
    "NO_TRANSFORM": _toolkit(fixed(False), "Dassl's switch to keep PIL images."),
    "PIXEL_MEAN": _toolkit(
        list_of(number(), least=3), "Mean of the channels.", fixed_by_training=True
    ),
    "PIXEL_STD": _toolkit(
        list_of(_POSITIVE, least=3), "Deviation of the channels.", fixed_by_training=True
    ),
    "RESIZE_MODE": Setting(
        "shortest",
        one_of(("shortest", "squash")),
        "Resize the shorter side of a test image and crop, or squash the image.",
        fixed_by_training=True,
    ),
    "CROP_PADDING": _toolkit(integer(0, 10_000), "Pixels of padding for random_crop."),
    "RRCROP_SCALE": _toolkit(
        ordered_pair(number(0, 1, open_low=True)),
        "Smallest and largest area of random_resized_crop.",
    ),
    "CUTOUT_N": _toolkit(integer(0, 1000), "Number of holes of cutout."),
    "CUTOUT_LEN": _toolkit(integer(0, 10_000), "Side of a hole of cutout, in pixels."),
    "GN_MEAN": _toolkit(number(), "Mean of gaussian_noise."),
    "GN_STD": _toolkit(number(0), "Deviation of gaussian_noise."),
    "RANDAUGMENT_N": _toolkit(integer(0, 100), "Number of operations of randaugment."),
    "RANDAUGMENT_M": _toolkit(integer(0, 30), "Magnitude of randaugment."),
    "COLORJITTER_B": _toolkit(number(0), "Brightness of colorjitter."),
    "COLORJITTER_C": _toolkit(number(0), "Contrast of colorjitter."),
    "COLORJITTER_S": _toolkit(number(0), "Saturation of colorjitter."),
    "COLORJITTER_H": _toolkit(number(0, 0.5), "Hue of colorjitter."),
    "RGS_P": _toolkit(_PROBABILITY, "Probability of randomgrayscale."),
    "GB_P": _toolkit(_PROBABILITY, "Probability of gaussian_blur."),
    # The memory of a kernel is the square of its size.
    "GB_K": _toolkit(integer(1, 1001), "Kernel size of gaussian_blur, in pixels."),
}

_DATASET = {
    "ROOT": _toolkit(text(), "Folder of the data sets.", neutral="a place"),
    "NAME": _toolkit(text(), "Name of the data set.", shared=COLUMN),
    "TITLE": Setting(
        "", text(), "What tables call your own data set; empty: NAME.", neutral="a label"
    ),
    "SOURCE_DOMAINS": _toolkit(
        list_of(text(), least=0), "Domains to train on.", shared="all but the target"
    ),
    "TARGET_DOMAINS": _toolkit(list_of(text(), least=0), "Domains to test on.", shared=COLUMN),
    "NUM_LABELED": _unused(integer(-1), "Labelled images, in semi-supervised learning."),
    "NUM_SHOTS": _toolkit(
        integer(-(10**9), 10**9), "Training images per class; below 1: all.", shared=COLUMN
    ),
    "VAL_PERCENT": _toolkit(number(0, 1), "Fraction of validation images of some Dassl data sets."),
    "STL10_FOLD": _unused(integer(-1, 9), "Fold of STL10."),
    "CIFAR_C_TYPE": _unused(text(), "Corruption of CIFAR-C."),
    "CIFAR_C_LEVEL": _unused(integer(1, 5), "Level of the corruption."),
    "ALL_AS_UNLABELED": _unused(boolean(), "Use all images as unlabelled ones too."),
    "SUBSAMPLE_CLASSES": Setting(
        "all", one_of(("all", "base", "new")), "Classes to use.", shared="halves of one figure"
    ),
    "SUBSAMPLE_ROUNDING": Setting(
        "ceil", one_of(("ceil", "floor")), "How an odd number of classes is halved."
    ),
    "TEMPLATE": Setting(
        "", text(holding="{}"), "Hand-crafted prompt with one {}, in place of the published one."
    ),
    "DESCRIPTIONS": Setting(
        "",
        text(),
        "JSON file of sentences for each class, in place of the hand-crafted prompt.",
        names_file=True,
    ),
    "PATH": Setting("", text(), "Folder of your images below ROOT."),
    "SPLIT": Setting("split.json", text(), "Split file below the data set's folder."),
    "TABLE": Setting("", text(), "CSV or Parquet file of your images below ROOT."),
    "TRIAL_SEED": Setting(0, integer(0), "Seed of the 80/20 split of a domain."),
    "HOLDOUT_WITHIN": Setting(
        "domain", one_of(("domain", "halves")), "Where a domain is split 80/20."
    ),
    "UNREADABLE": Setting(
        "error", one_of(("error", "skip")), "Stop at images that cannot be read, or skip them."
    ),
    "CORRELATION": Setting(
        0.9, _PROBABILITY, "Correlation of class and background in CausalShapes."
    ),
    "TEST_CORRELATION": Setting(0.0, _PROBABILITY, "The same correlation, in the test images."),
}

_TRAIN_LOADER = {
    "SAMPLER": (text(), "Name of the sampler."),
    "BATCH_SIZE": (_BATCH, "Images per batch."),
    "N_DOMAIN": (integer(0), "Domains per batch, for RandomDomainSampler."),
    "N_INS": (integer(), "Images per class in a batch, for RandomClassSampler."),
}
_DATALOADER = {
    "NUM_WORKERS": _toolkit(integer(0, 1024), "Processes that load images.", neutral=SPEED),
    "K_TRANSFORMS": _toolkit(integer(1, 100), "Augmented views per image."),
    "RETURN_IMG0": _toolkit(boolean(), "Deliver the plain image too.", neutral=UNUSED),
    **{f"TRAIN_X.{name}": _toolkit(*row) for name, row in _TRAIN_LOADER.items()},
    "TRAIN_U.SAME_AS_X": _unused(boolean(), "Load unlabelled images like labelled ones."),
    **{f"TRAIN_U.{name}": _unused(*row) for name, row in _TRAIN_LOADER.items()},
    "TEST.SAMPLER": _toolkit(text(), "Name of the sampler."),
    "TEST.BATCH_SIZE": _toolkit(_BATCH, "Images per batch.", neutral=SPEED),
    "DRAWS": Setting(
        "item",
        one_of(("dassl", "item")),
        "item: draw augmentations from (seed, epoch, image); dassl: from global generators.",
    ),
    "DECODED_MB": Setting(
        512, integer(0, 10_000_000), "Decoded training images to keep, in MB.", neutral=SPEED
    ),
    "VIEWS_KEPT": Setting(
        0,
        integer(0, 1000),
        "Augmented views per image to encode once and train on; 0: new views in every epoch.",
    ),
}

_MODEL = {
    "INIT_WEIGHTS": _toolkit(
        text(), "Checkpoint to start from.", names_file=True, training_only=True
    ),
    "BACKBONE.NAME": _toolkit(text(), "Name or file of the CLIP model.", names_file=True),
    "BACKBONE.PRETRAINED": _unused(boolean(), "Whether Dassl's backbones load pretrained weights."),
    "BACKBONE.TRUST_TORCHSCRIPT": Setting(
        False,
        boolean(),
        "Load a TorchScript file, which runs as a program.",
        neutral="a permission",
    ),
    "BACKBONE.ACTIVATION": Setting(
        "",
        one_of(("", "quick_gelu", "gelu")),
        "Activation of weights from a file that does not state it.",
    ),
    "HEAD.NAME": _unused(text(), "Head of a Dassl model."),
    "HEAD.HIDDEN_LAYERS": _unused(list_of(integer(), least=0), "Widths of the head."),
    "HEAD.ACTIVATION": _unused(text(), "Activation of the head."),
    "HEAD.BN": _unused(boolean(), "Batch normalisation in the head."),
    "HEAD.DROPOUT": _unused(_PROBABILITY, "Dropout of the head."),
}

_OPTIM = {
    "NAME": _toolkit(text(), "Optimizer: sgd, adam, adamw, amsgrad, radam or rmsprop."),
    "LR": _toolkit(number(0, 3e38), "Learning rate."),
    "WEIGHT_DECAY": _toolkit(number(0), "Weight decay."),
    "MOMENTUM": _toolkit(_PROBABILITY, "Momentum of sgd and rmsprop."),
    "SGD_DAMPNING": _toolkit(number(0), "Dampening of sgd."),
    "SGD_NESTEROV": _toolkit(boolean(), "Nesterov momentum."),
    "RMSPROP_ALPHA": _toolkit(_PROBABILITY, "Smoothing constant of rmsprop."),
    "ADAM_BETA1": _toolkit(number(0, 1, open_high=True), "First beta of adam."),
    "ADAM_BETA2": _toolkit(number(0, 1, open_high=True), "Second beta of adam."),
    "STAGED_LR": _toolkit(boolean(), "Other learning rate for new layers; needs Dassl itself."),
    "NEW_LAYERS": _toolkit(list_of(text(), least=0), "Names of the new layers."),
    "BASE_LR_MULT": _toolkit(number(0), "Factor of the learning rate of all other layers."),
    "LR_SCHEDULER": _toolkit(
        one_of(("single_step", "multi_step", "cosine")), "Schedule of the learning rate."
    ),
    "STEPSIZE": _toolkit(list_of(integer(-1)), "Epochs of the steps; -1: no step."),
    "GAMMA": _toolkit(number(0), "Factor of the learning rate at a step."),
    "MAX_EPOCH": _toolkit(integer(1, 1_000_000), "Number of epochs."),
    "WARMUP_EPOCH": _toolkit(integer(-1), "Warm-up epochs; below 1: none."),
    "WARMUP_TYPE": _toolkit(one_of(("linear", "constant")), "Kind of warm-up."),
    "WARMUP_CONS_LR": _toolkit(number(0), "Learning rate of a constant warm-up."),
    "WARMUP_MIN_LR": _toolkit(number(0), "Learning rate that a linear warm-up starts from."),
    "WARMUP_RECOUNT": _toolkit(boolean(), "Start the schedule after the warm-up."),
}

_TRAIN = {
    "CHECKPOINT_FREQ": _toolkit(
        integer(0), "Epochs between checkpoints; 0: the last.", neutral="more files"
    ),
    "CHECKPOINT_MINUTES": Setting(
        10.0, number(0), "Minutes between checkpoints; 0: none by time.", neutral="more files"
    ),
    "PRINT_FREQ": _toolkit(integer(), "Batches between two lines of the log.", neutral=DISPLAY),
    "LOGGERS": Setting(
        ["tensorboard"],
        list_of(one_of(("tensorboard", "wandb", "mlflow")), least=0),
        "Where losses and metrics go, in addition to log.txt.",
        neutral="more files",
    ),
    "COUNT_ITER": _unused(text(), "Loader that counts the iterations of TrainerXU."),
}

_TEST = {
    "EVALUATOR": _toolkit(text(), "Name of Dassl's evaluator.", neutral=DISPLAY),
    "PER_CLASS_RESULT": _toolkit(boolean(), "Print the accuracy of each class.", neutral=DISPLAY),
    "COMPUTE_CMAT": _toolkit(boolean(), "Write the confusion matrix.", neutral="one more file"),
    "NO_TEST": _toolkit(boolean(), "Do not test after training.", shared="there is a result"),
    "SPLIT": _toolkit(one_of(("test", "val")), "Split to evaluate."),
    "FINAL_MODEL": _toolkit(
        one_of(("last_step", "best_val")),
        "Model to test: of the last epoch, or the best in validation.",
    ),
    "CALIBRATION": Setting(
        False,
        boolean(),
        "Add predictions after temperature scaling and DAC to the results.",
        shared="adds predictions and changes none",
    ),
    "CONFORMAL": Setting(
        0.0,
        number(0, 1, open_high=True),
        "Fraction of conformal sets that may miss the true class; 0: no sets.",
        shared="adds metrics and changes none",
    ),
}


_NODES = {
    "INPUT": _INPUT,
    "DATASET": _DATASET,
    "DATALOADER": _DATALOADER,
    "MODEL": _MODEL,
    "OPTIM": _OPTIM,
    "TRAIN": _TRAIN,
    "TEST": _TEST,
    "TRAINER": {"NAME": _toolkit(text(), "Name of the method.", shared=COLUMN)},
}
SETTINGS: Mapping[str, Setting] = {
    **_RUN,
    **{f"{node}.{key}": row for node, rows in _NODES.items() for key, row in rows.items()},
}
"""Every setting that is not a method's own, by its dotted key."""
