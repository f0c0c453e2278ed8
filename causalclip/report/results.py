"""Results as data: results.json and predictions.npz of one evaluation (docs/results.md).

Reading loads neither torch nor Dassl nor pandas: what only a run needs is imported where it runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, get_type_hints

from causalclip.files.atomic import replacing
from causalclip.files.json_file import NotJSONError, parse_json
from causalclip.report.json_types import (
    fits,
    nan_for_nulls,
    nulls_for_not_finite,
    plain,
    type_name,
)
from causalclip.report.protocols import VARIANTS

if TYPE_CHECKING:
    import torch
    from yacs.config import CfgNode

SCHEMA = 2
RESULTS_FILE = "results.json"
EXPLAINED_FOLDER = "explained"
"""Where `causalclip explain` puts its pictures, beside a run's results."""
RECORDED_PACKAGES = ("causalclip", "torch", "torchvision", "openai-clip", "numpy")
CURVE = ("epoch", "loss", "accuracy")
MOST_SHOTS = 10**9
MEASURED = ("metrics", "variants", "parts", "variant_parts", "members")

Metrics = dict[str, float]
"""accuracy, ece, ... as `causalclip.metrics.classification_metrics` names them."""


class TrainedOn(TypedDict):
    """What the run was trained on whose model an evaluation has loaded."""

    dataset: str
    shots: int
    seed: int
    subsample_classes: str
    source_domains: list[str]
    classnames: list[str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One evaluation: what was run and what came out; a results.json, key by key.

    A number that was not finite is null in the file and NaN here.
    """

    trainer: str
    backbone: str
    dataset: str
    seed: int
    shots: int
    """Images per class; all of them where it is below 1."""
    metrics: Metrics
    schema: int = SCHEMA
    protocol: str = ""
    """A key of PROTOCOLS, or ablation; empty for a result that is of none."""
    protocol_part: str = ""
    """Which training or test of the protocol it is, where the run says so."""
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
    identity: str | None = None
    """Fingerprint of the settings that shape the result, where the run has one."""
    variants: dict[str, Metrics] = field(default_factory=dict)
    parts: dict[str, Metrics] = field(default_factory=dict)
    variant_parts: dict[str, dict[str, Metrics]] = field(default_factory=dict)
    members: dict[str, list[Metrics]] = field(default_factory=dict)
    """Of each member of an ensemble alone: CDC's templates S1..SM under `template`."""
    training: dict[str, Any] | None = None
    trained_on: TrainedOn | None = None
    evaluation: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Result:
        """A result from the content of a results.json of this schema or an older one.

        An older one comes back in this schema: schema 1 did not say its protocol, it is inferred.
        Keys that are none of ours are left out.

        Raises:
            ValueError: a newer schema, a key that is missing, or one of the wrong type.
        """
        check_schema(record.get("schema"))
        kinds = field_types()
        given = {name: record[name] for name in kinds if name in record}
        given |= {name: nan_for_nulls(given[name]) for name in MEASURED if name in given}
        missing = [name for name in required_fields() if name not in given]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        for name, value in given.items():
            if not fits(value, kinds[name]):
                kind = type_name(kinds[name])
                raise ValueError(f"{name} must be of type {kind}, got {value!r:.80}")
        if given["shots"] > MOST_SHOTS:
            raise ValueError(f"shots must be at most {MOST_SHOTS:,}, got {given['shots']}")
        for name, metrics in {"metrics": given["metrics"], **given.get("variants", {})}.items():
            _check_accuracy(metrics, name)
        _check_training(given.get("training") or {})
        result = cls(**{**given, "schema": SCHEMA})
        protocol = result.protocol or inferred_protocol(result)
        return dataclasses.replace(result, protocol=protocol)

    @classmethod
    def read(cls, path: str | Path) -> Result:
        """The result in the file `path`, of this schema or an older one.

        Raises:
            ValueError: an empty, cut or malformed file, or one of a newer schema; names the file.
        """
        text = Path(path).read_bytes()
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
        """Write results.json into `folder`, whole or not at all; its path."""
        path = Path(folder) / RESULTS_FILE
        record = nulls_for_not_finite(dataclasses.asdict(self))
        text = json.dumps(record, indent=1, allow_nan=False)
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
        return path

    @property
    def training_seconds(self) -> float | None:
        """How long the training took; None for an evaluation only, or nothing to train."""
        return (self.training or {}).get("seconds")

    def trained(self) -> TrainedOn:
        """What this result's model was trained on: by this run, where it loaded none."""
        return self.trained_on or TrainedOn(
            dataset=self.dataset,
            shots=self.shots,
            seed=self.seed,
            subsample_classes=self.subsample_classes,
            source_domains=self.source_domains,
            classnames=self.classnames,
        )


def inferred_protocol(result: Result) -> str:
    """The protocol of a result of schema 1, which did not say it; empty for one that is of none."""
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


def _check_accuracy(metrics: Metrics, name: str) -> None:
    if "accuracy" not in metrics:
        raise ValueError(f"{name} lacks accuracy, got {sorted(metrics)}")
    accuracy = metrics["accuracy"]
    if accuracy < 0 or accuracy > 100:  # neither for NaN
        raise ValueError(f"accuracy of {name} must be per cent, got {accuracy:g}")


def _check_training(training: Mapping[str, Any]) -> None:
    kinds = {"seconds": float | None, "curve": dict[str, list[float | None]] | None}
    for name, kind in kinds.items():
        if not fits(training.get(name), kind):
            raise ValueError(f"training.{name} must be of type {kind}, got {training[name]!r:.80}")
    curve = training.get("curve") or {name: [] for name in CURVE}
    if not set(CURVE) <= set(curve) or len({len(curve[name]) for name in CURVE}) > 1:
        raise ValueError(f"training.curve must hold {', '.join(CURVE)}, of one length each")


def check_schema(schema: object) -> None:
    """Raise ValueError unless a results.json of this schema can be read."""
    if not isinstance(schema, int) or schema < 1:
        raise ValueError(f'must say its "schema" (a number up to {SCHEMA}), got {schema!r:.80}')
    if schema > SCHEMA:
        raise ValueError(
            f"{RESULTS_FILE} of schema {schema}, this version reads up to {SCHEMA}: "
            "upgrade causalclip"
        )


@cache
def field_types() -> dict[str, Any]:
    """The annotated type of each field of a result."""
    return get_type_hints(Result)


@cache
def required_fields() -> list[str]:
    """The fields without a default."""
    absent = dataclasses.MISSING
    return [
        f.name
        for f in dataclasses.fields(Result)
        if f.default is absent and f.default_factory is absent
    ]


# What a run records


def run_record(cfg: CfgNode, *, classnames: list[str], split: str) -> dict[str, Any]:
    """Who produces a result: protocol, method, data, seed, versions, command, configuration.

    The fields of `Result` but those that are measured; a host checkout's train.py may not say
    protocol and config_name.
    """
    return {
        "schema": SCHEMA,
        "protocol": cfg.get("PROTOCOL", ""),
        "protocol_part": cfg.get("PROTOCOL_PART", ""),
        "trainer": cfg.TRAINER.NAME,
        "config_name": cfg.get("CONFIG_NAME"),
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "dataset": cfg.DATASET.NAME,
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


def training_facts(directory: str | Path) -> TrainedOn | None:
    """What the run in `directory` was trained on, from its results.json; None without one.

    Raises:
        ValueError: a results.json that cannot be read; names it.
    """
    path = Path(directory) / RESULTS_FILE
    return Result.read(path).trained() if path.is_file() else None


def training_cost(directory: str | Path) -> dict[str, Any] | None:
    """What the training in `directory` took, from its results.json; None without one.

    Raises:
        ValueError: a results.json that cannot be read; names it.
    """
    path = Path(directory) / RESULTS_FILE
    return Result.read(path).training if path.is_file() else None


def package_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages a result depends on; None where not installed."""
    import dassl

    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        # The one that runs, not one that is installed: Dassl is often only on the path.
        "dassl": dassl.__version__,
    }
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None  # a checkout can be on the path without being installed
    return versions


def reset_peak_memory() -> None:
    """Let the peak be counted from here, where the system can: a process may do several runs."""
    # Documented in Linux' proc(5); elsewhere the peak stays that of all runs so far.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.reset_peak_memory_stats()


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: of the process on a CPU, of the tensors on a GPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
