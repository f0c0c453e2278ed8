"""Results as data: results.json and predictions.npz of one evaluation (docs/results.md).

Reading imports neither torch nor Dassl nor pandas; the functions that need them import them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, get_type_hints

from causalclip.files.atomic import replacing
from causalclip.files.caches import NotJSONError, parse_json
from causalclip.files.reading import read_bounded
from causalclip.files.text import has_controls
from causalclip.records.json_types import (
    fits,
    nan_for_nulls,
    nulls_for_not_finite,
    plain,
    type_name,
)

if TYPE_CHECKING:
    import torch
    from yacs.config import CfgNode

SCHEMA = 2
RESULTS_FILE = "results.json"
EXPLAINED_FOLDER = "explained"
"""Folder next to a run's results to which `causalclip explain` writes its pictures."""
RECORDED_PACKAGES = ("causalclip", "torch", "torchvision", "openai-clip", "numpy")
CURVE = ("epoch", "loss", "accuracy")
TRAINING_NUMBERS = "seconds epochs steps images learnable_parameters".split()
TRAINING_NUMBERS += ["peak_memory_mb", "step_flops"]
MOST_SHOTS = 10**9
MOST_RESULT_BYTES = 100_000_000
NAMES = "trainer backbone dataset config_name subsample_classes split classnames variants".split()
NAMES += ["source_domains", "target_domains"]
MEASURED = ("metrics", "variants", "parts", "variant_parts", "members")

PROTOCOL_TITLES = {
    "base2new": "Base-to-novel",
    "xd": "Cross-dataset",
    "dg": "Domain generalisation",
    "fewshot": "Few-shot",
    "lodo": "Leave one domain out",
    "openclass": "Open class",
}
IMAGENET_VARIANTS = ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")

Metrics = dict[str, float]
"""accuracy, ece, ... as `causalclip.metrics.classification_metrics` names them."""


class TrainedOn(TypedDict):
    """Training data of the model that an evaluation has loaded."""

    dataset: str
    shots: int
    seed: int
    subsample_classes: str
    source_domains: list[str]
    classnames: list[str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One evaluation: what was run, and its results. The fields are the keys of results.json.

    A number that was not finite is null in the file and NaN here.
    """

    trainer: str
    backbone: str
    dataset: str
    seed: int
    shots: int
    """Images per class; a number below 1 means all images."""
    metrics: Metrics
    schema: int = SCHEMA
    protocol: str = ""
    """Protocol for which the run was started, or ablation; empty for none. It is only a label: the
    tables of a protocol choose results by their data and training."""
    protocol_part: str = ""
    """Name of this training or test within the protocol, if the run was given one."""
    config_name: str | None = None
    subsample_classes: str = "all"
    source_domains: list[str] = field(default_factory=list)
    target_domains: list[str] = field(default_factory=list)
    split: str = "test"
    classnames: list[str] = field(default_factory=list)
    time: str = ""
    versions: dict[str, str | None] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] | None = None
    """Digest of the images and labels of each split, if the run has an identity."""
    identity: str | None = None
    """Fingerprint of the run's identity, if the run has one."""
    variants: dict[str, Metrics] = field(default_factory=dict)
    parts: dict[str, Metrics] = field(default_factory=dict)
    variant_parts: dict[str, dict[str, Metrics]] = field(default_factory=dict)
    members: dict[str, list[Metrics]] = field(default_factory=dict)
    """Metrics of each member of an ensemble alone; CDC's templates S1..SM are in `template`."""
    training: dict[str, Any] | None = None
    trained_on: TrainedOn | None = None
    trained_identity: str | None = None
    """Fingerprint of the run whose model was evaluated, if another run trained it."""
    evaluation: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, Any] = field(default_factory=dict)
    """Files of the data set that were not used: their `count`, and the `first` with a reason."""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Result:
        """Return the result that the content of a results.json describes.

        Unknown keys are ignored.

        Raises:
            ValueError: another schema, a missing key, or a key with a value that is not allowed.
        """
        check_schema(record.get("schema"))
        given = {name: record[name] for name in FIELD_TYPES if name in record}
        given |= {name: nan_for_nulls(given[name]) for name in MEASURED if name in given}
        missing = [name for name in REQUIRED_FIELDS if name not in given]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        for name, value in given.items():
            if not fits(value, FIELD_TYPES[name]):
                kind = type_name(FIELD_TYPES[name])
                raise ValueError(f"{name} must be of type {kind}, got {value!r:.80}")
        _check_names({**given, "variants": list(given.get("variants", {}))})
        if given["shots"] > MOST_SHOTS:
            raise ValueError(f"shots must be at most {MOST_SHOTS:,}, got {given['shots']}")
        for name, metrics in {"metrics": given["metrics"], **given.get("variants", {})}.items():
            _check_accuracy(metrics, name)
        for name, members in given.get("members", {}).items():
            for metrics in members:
                _check_accuracy(metrics, f"members.{name}")
        _check_training(given.get("training") or {})
        return cls(**given)

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """Return the result in the file `path`.

        Raises:
            ValueError: an empty, cut or malformed file, or one of another schema; names the file.
        """
        text = read_bounded(path, most=MOST_RESULT_BYTES)
        if not text.strip():
            raise ValueError(f"{path}: empty; remove it and run that evaluation again")
        try:
            record = parse_json(text)
            if not isinstance(record, dict):
                raise ValueError(f"must be a JSON object, got a {type(record).__name__}")
            return cls.of_record(record)
        except NotJSONError as error:
            raise ValueError(f"{path}: cut or damaged, not JSON: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def write(self, folder: str | Path) -> Path:
        """Write results.json into `folder` atomically; return its path."""
        path = Path(folder) / RESULTS_FILE
        record = nulls_for_not_finite(dataclasses.asdict(self))
        text = json.dumps(record, indent=1, allow_nan=False)
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
        return path

    @property
    def training_seconds(self) -> float | None:
        """Duration of the training in seconds; None if the run did not train."""
        return (self.training or {}).get("seconds")

    def trained(self) -> TrainedOn:
        """Return the training data of this result's model, by default this run's own."""
        return self.trained_on or TrainedOn(
            dataset=self.dataset,
            shots=self.shots,
            seed=self.seed,
            subsample_classes=self.subsample_classes,
            source_domains=self.source_domains,
            classnames=self.classnames,
        )


FIELD_TYPES = get_type_hints(Result)
"""The annotated type of each field."""
REQUIRED_FIELDS = [
    field.name
    for field in dataclasses.fields(Result)
    if field.default is field.default_factory is dataclasses.MISSING
]


def _check_names(given: Mapping[str, Any]) -> None:
    """Raise ValueError for a name with control characters, which would act on a terminal."""
    for field_name in NAMES:
        names = given.get(field_name) or []
        for name in [names] if isinstance(names, str) else names:
            if has_controls(name):
                raise ValueError(f"{field_name} must be printed text, got {name!r:.80}")


def _check_accuracy(metrics: Metrics, name: str) -> None:
    if "accuracy" not in metrics:
        raise ValueError(f"{name} lacks accuracy, got {sorted(metrics)}")
    accuracy = metrics["accuracy"]
    if accuracy < 0 or accuracy > 100:  # False for NaN
        raise ValueError(f"accuracy of {name} must be per cent, got {accuracy:g}")


def _check_training(training: Mapping[str, Any]) -> None:
    kinds: dict[str, Any] = dict.fromkeys(TRAINING_NUMBERS, float | None)
    kinds["curve"] = dict[str, list[float | None]] | None
    for name, kind in kinds.items():
        if not fits(training.get(name), kind):
            raise ValueError(f"training.{name} must be of type {kind}, got {training[name]!r:.80}")
    curve = training.get("curve") or {name: [] for name in CURVE}
    if not set(CURVE) <= set(curve) or len({len(curve[name]) for name in CURVE}) > 1:
        raise ValueError(f"training.curve must hold {', '.join(CURVE)}, of one length each")
    if any(abs(value or 0.0) > 1e100 for values in curve.values() for value in values):
        raise ValueError("training.curve must hold numbers that can be drawn, below 1e100")


def check_schema(schema: object) -> None:
    """Raise ValueError unless `schema` is the one of this version."""
    if schema != SCHEMA or isinstance(schema, bool):
        raise ValueError(
            f'"schema" must be {SCHEMA}, got {schema!r:.80}: the file is of another version of '
            "causalclip, or no results.json"
        )


# What a run records


def run_record(cfg: CfgNode, *, classnames: list[str], split: str) -> dict[str, Any]:
    """Return protocol, method, data, seed, versions, command and configuration of a result.

    These are the fields of `Result` that are not measured. The train.py of another code base may
    not set PROTOCOL and CONFIG_NAME.
    """
    return {
        "schema": SCHEMA,
        "protocol": cfg.get("PROTOCOL", ""),
        "protocol_part": cfg.get("PROTOCOL_PART", ""),
        "trainer": cfg.TRAINER.NAME,
        "config_name": cfg.get("CONFIG_NAME"),
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "dataset": dataset_title(cfg),
        "seed": cfg.SEED,
        "shots": cfg.DATASET.NUM_SHOTS,
        "subsample_classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "source_domains": list(cfg.DATASET.SOURCE_DOMAINS),
        "target_domains": list(cfg.DATASET.TARGET_DOMAINS),
        "split": split,
        "classnames": classnames,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "command": sys.argv,
        "config": plain(cfg),
    }


def dataset_title(cfg: CfgNode) -> str:
    """Return the name of a data set in results: TITLE for your own data, else its registry name."""
    return cfg.DATASET.get("TITLE") or cfg.DATASET.NAME


def result_in(directory: str | Path) -> Result | None:
    """Return the result of the run in `directory`; None without a results.json.

    Raises:
        ValueError: a results.json that cannot be read; names it.
    """
    path = Path(directory) / RESULTS_FILE
    return Result.read(path) if path.is_file() else None


def package_versions() -> dict[str, str | None]:
    """Return versions of Python and the recorded packages; None where not installed."""
    import dassl

    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        # The imported version, not an installed one: Dassl is often only on the path.
        "dassl": dassl.__version__,
    }
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None  # a checkout can be on the path without being installed
    return versions


def reset_peak_memory() -> None:
    """Reset the peak memory if the system supports it, as a process may perform several runs."""
    # Documented in proc(5) of Linux; on other systems the peak includes earlier runs.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MiB, of the process or of tensors on a GPU; NaN if unknown."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
