"""run.json: the identity of a run, written into its folder before any work.

Two runs are the same if they have the same data, backbone weights and settings that can change a
result and, for a test, the same checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from causalclip.files.atomic import replacing
from causalclip.files.caches import NotJSONError, read_json
from causalclip.files.digests import content_digests
from causalclip.records.results import RESULTS_FILE
from causalclip.settings.check import base_node, changes_results, flatten, names_file

RUN_SCHEMA = 1
RUN_FILE = "run.json"
DEFAULT = "its default"
ZERO_SHOT = "zero_shot"
FEWEST_IMAGES = 20
"""Fewest images for which an accuracy is compared with chance."""
QUANTILE = 2.33
"""99 % quantile of the standard normal distribution."""

Settings = dict[str, Any]
Difference = tuple[str, Any, Any]
"""A key, its recorded value and its value now."""


@dataclass(frozen=True)
class Identity:
    """All that the result of a run depends on."""

    settings: Settings
    """Settings that can change a result: dotted key -> JSON value."""
    epoch: int | None = None
    """Epoch of the checkpoint that a test loads; None if no epoch was given."""
    weights: str | None = None
    """Digest of the backbone's weights; None before they are loaded."""
    model: str | None = None
    """Digest of the checkpoints that a test evaluates."""
    data: Mapping[str, str] | None = None
    """Digest of each split; None before the data are read."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the identity as canonical JSON."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def run_settings(cfg: Mapping[str, Any], node: str = "") -> Settings:
    """Return the settings of a configuration that can change a result, as JSON values.

    If you give the method's own `node` below TRAINER, the settings of other methods are left out.
    """
    settings, nodes = {}, {node}
    if node:
        nodes.add(base_node(cfg["TRAINER"].get(node, {})))
    for key, value in flatten(cfg):
        other_method = key.startswith("TRAINER.") and key.count(".") > 1
        if node and other_method and key.split(".")[1] not in nodes:
            continue
        if changes_results(key):
            settings[key] = counted_value(key, value)
    return settings


def counted_value(key: str, value: Any) -> Any:
    """Return a setting's value as a JSON value; for a file, the digest of its content."""
    if names_file(key) and isinstance(value, str) and Path(value).is_file():
        (digest,) = content_digests([value])
        return f"a file of sha256 {digest[:16]}"
    return _json_value(value)


def _json_value(value: Any) -> Any:
    """Return a value as it is read from JSON, with lists for tuples; 5.0 becomes 5."""
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def setting_differences(
    recorded: Settings, current: Settings, defaults: Settings
) -> list[Difference]:
    """Return the settings in which a recorded run differs from the current one.

    A setting that one of them lacks, because it is of another version, has its default there.
    """
    differences = []
    for key in sorted(recorded.keys() | current.keys()):
        default = defaults.get(key, DEFAULT)
        there, here = recorded.get(key, default), current.get(key, default)
        if there != here:
            differences.append((key, there, here))
    return differences


def describe(differences: Sequence[Difference]) -> str:
    """Return differences as text for an error."""
    return "; ".join(f"{key} is {there!r} there, {here!r} here" for key, there, here in differences)


def model_digest(folder: Path) -> str | None:
    """Return the sha256 of all checkpoints of a training; None if there are none."""
    paths = sorted(path for path in folder.glob("*/model*") if path.is_file())
    if not paths:
        return None
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


# Files


def write_run(folder: Path, identity: Identity, facts: Mapping[str, Any]) -> None:
    """Write run.json atomically; `facts` are for readers and are not compared."""
    content = {
        "schema": RUN_SCHEMA,
        "fingerprint": identity.fingerprint,
        "identity": asdict(identity),
        **facts,
    }
    with replacing(folder / RUN_FILE) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")


def read_run(folder: Path) -> Identity | None:
    """Return the identity in run.json; None without the file.

    Raises:
        ValueError: another schema, or a file that is damaged.
    """
    content = _object(folder / RUN_FILE)
    if content is None:
        return None
    if content.get("schema") != RUN_SCHEMA:
        raise ValueError(
            f"{folder / RUN_FILE}: schema {content.get('schema')}, known is {RUN_SCHEMA}"
        )
    try:
        identity = Identity(**content["identity"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / RUN_FILE} is damaged: {error}") from error
    if not all(isinstance(node, dict) for node in (identity.settings, identity.data or {})):
        raise ValueError(f"{folder / RUN_FILE} is damaged: settings must be KEY: VALUE pairs")
    if content.get("fingerprint") != identity.fingerprint:
        raise ValueError(f"{folder / RUN_FILE} is damaged: its fingerprint is of other settings")
    return identity


def recorded_config(folder: Path) -> Mapping[str, Any] | None:
    """Return the configuration in results.json, or None; for folders without run.json."""
    try:
        config = (_object(folder / RESULTS_FILE) or {}).get("config")
    except ValueError:
        return None
    return config if isinstance(config, dict) else None


def recorded_fingerprint(folder: str | Path) -> str | None:
    """Return the fingerprint of the run in a folder; None without run.json."""
    return (_object(Path(folder) / RUN_FILE) or {}).get("fingerprint")


def has_result(folder: Path) -> bool:
    """Return whether results.json exists and contains an accuracy."""
    try:
        metrics = (_object(folder / RESULTS_FILE) or {}).get("metrics")
    except ValueError:
        return False
    return isinstance(metrics, dict) and isinstance(metrics.get("accuracy"), (int, float))


def _object(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None without the file."""
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except NotJSONError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it must be an object, got a {type(content).__name__}")
    return content


# Zero-shot accuracy of a run's CLIP, and a warning if it is near chance


@dataclass(frozen=True)
class ZeroShot:
    """The accuracy of plain CLIP with the data set's template on training images."""

    accuracy: float
    """Accuracy in per cent."""
    images: int
    classes: int

    @property
    def warning(self) -> str:
        """Warning if the accuracy is not above chance at a significance level of 1 %, else ""."""
        if self.images < FEWEST_IMAGES:
            return ""
        chance = 1 / self.classes
        limit = chance + QUANTILE * sqrt(chance * (1 - chance) / self.images)
        if self.accuracy > 100 * limit:
            return ""
        return (
            f"this CLIP does not know these classes: its zero-shot accuracy on "
            f"{self.images} training images is {self.accuracy:.1f} %, chance {100 * chance:.1f} %"
        )

    def as_fact(self) -> dict[str, Any]:
        """Return the entry of run.json."""
        return {ZERO_SHOT: asdict(self)}


def read_zero_shot(folder: Path) -> ZeroShot | None:
    """Return the zero-shot accuracy of the run in a folder; None where none was recorded."""
    try:
        fact = read_json(folder / RUN_FILE)[ZERO_SHOT]
        zero_shot = ZeroShot(float(fact["accuracy"]), int(fact["images"]), int(fact["classes"]))
    except (FileNotFoundError, NotJSONError, KeyError, TypeError, ValueError, OverflowError):
        return None  # no run.json, or one of a version that did not measure it
    return zero_shot if zero_shot.images > 0 and zero_shot.classes > 1 else None
