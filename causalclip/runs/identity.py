"""A run's identity: what its result follows from, as `run.json` in its folder from the start.

Two runs are the same where method, data, protocol, part, seed, every setting that changes the
result, the backbone's weights and, for a test, the tested checkpoint are the same.
"""

from __future__ import annotations

import functools
import hashlib
import json
from ast import literal_eval
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from causalclip.files.atomic import replacing
from causalclip.files.download import file_digest
from causalclip.files.json_file import NotJSONError, read_json
from causalclip.report.results import RESULTS_FILE

SCHEMA = 1
RUN_FILE = "run.json"

NO_MATTER = {
    "OUTPUT_DIR": "where, not what",
    "RESUME": "a resumed run ends in the same weights",
    "CONFIG_NAME": "a name; the settings themselves count",
    "DATASET.ROOT": "the same data on another disk",
    "DATALOADER.NUM_WORKERS": "who reads the images; DRAWS item: the same ones, DRAWS dassl: as "
    "another draw of the augmentations",
    "DATALOADER.DECODED_MB": "what is kept in memory",
    "USE_CUDA": "a device, not a method; figures agree to rounding",
    "VERBOSE": "what is printed",
    "VERSION": "of the configuration's layout",
    "FEATURE_CACHE": "where features come from; they are the same",
    "TRAIN.PRINT_FREQ": "what is printed",
    "TRAIN.CHECKPOINT_FREQ": "what is kept on the way",
    "TRAIN.CHECKPOINT_MINUTES": "what is kept on the way",
    "MODEL.BACKBONE.TRUST_TORCHSCRIPT": "whether weights are loaded, not which",
    "TEST.PER_CLASS_RESULT": "what is printed",
    "TEST.COMPUTE_CMAT": "one more file",
}
"""The settings that do not change a result, each with its reason."""

FILES = ("PROJECTION", "CAPTIONS", "INIT_WEIGHTS")
"""Last words of the keys that name a file: what is in it counts, beside its path."""

Settings = dict[str, Any]
Difference = tuple[str, Any, Any]
"""A key, its value there and here."""


@dataclass(frozen=True)
class Identity:
    """What a result follows from."""

    settings: Settings
    """Those that are not the code's defaults, by dotted key."""
    epoch: int | None = None
    """The epoch a test was told to load."""
    weights: str | None = None
    """Digest of the backbone's weights."""
    model: str | None = None
    """Digest of the checkpoints that a test evaluates."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the identity as canonical JSON."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Recorded:
    """What `run.json` says."""

    identity: Identity
    configuration: Settings = field(default_factory=dict)
    """All settings that count, defaults too."""


# Settings


def flat(tree: Mapping[str, Any], *, node: str = "", prefix: str = "") -> Settings:
    """The settings that count, by dotted key, as JSON values.

    Args:
        tree: a configuration or a part of one.
        node: the method's own node below TRAINER; those of other methods are left out.
        prefix: the dotted key of `tree`.
    """
    found: Settings = {}
    for key, value in tree.items():
        name = prefix + str(key)
        if isinstance(value, Mapping):
            if not (prefix == "TRAINER." and node and key != node):
                found.update(flat(value, node=node, prefix=f"{name}."))
        elif name not in NO_MATTER:
            found[name] = counted(name, value)
    return found


def counted(key: str, value: Any) -> Any:
    """What counts of a value: of a file that a setting names, its path and its digest."""
    if key.rpartition(".")[2] in FILES and value and Path(value).is_file():
        return f"{value} (sha256 {file_digest(value)[:12]})"
    return plain(value)


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples are lists, 5.0 is 5."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parsed(text: str) -> Any:
    """A VALUE of the command line, read as yacs does."""
    try:
        return plain(literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def asked_settings(files: Iterable[Path], pairs: Sequence[str]) -> Settings:
    """What files and KEY VALUE pairs say, later ones first; defaults are not known here."""
    found: Settings = {}
    for path in files:
        found.update(file_settings(str(path)))
    given = dict(zip(pairs[::2], map(parsed, pairs[1::2]), strict=True))
    found.update({k: counted(k, value) for k, value in given.items() if k not in NO_MATTER})
    return found


@functools.cache
def file_settings(path: str) -> Settings:
    """What a configuration file says; text is read as yacs reads it: "(224, 224)" is a tuple."""
    said = flat(yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
    return {k: parsed(v) if isinstance(v, str) else v for k, v in said.items()}


def differences(there: Recorded, here: Settings) -> list[Difference]:
    """The settings in which a recorded run differs from what is asked for now.

    Args:
        there: the recorded run.
        here: settings by dotted key; one that is missing has its default.
    """
    recorded = {**there.configuration, **there.identity.settings}
    found = [
        (key, recorded.get(key, "its default"), value)
        for key, value in here.items()
        if key not in recorded or recorded[key] != value
    ]
    for key, value in there.identity.settings.items():
        if key not in here:
            found.append((key, value, "its default"))
    return sorted(found, key=lambda difference: difference[0])


def described(found: Sequence[Difference]) -> str:
    """Differences for an error."""
    return "; ".join(f"{key} is {there!r} there, {here!r} here" for key, there, here in found)


# Checkpoints


def model_digest(folder: Path) -> str | None:
    """sha256 of all checkpoints of a training; None where it has learned nothing.

    A training that was done again has other checkpoints, and what was tested with the old ones is
    then stale.
    """
    paths = sorted(path for path in folder.glob("*/model*") if path.is_file())
    if not paths:
        return None
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


# Files


def write_run(folder: Path, recorded: Recorded, facts: Mapping[str, Any]) -> None:
    """Write `run.json`, whole or not at all; `facts` are for readers, not for comparing."""
    content = {
        "schema": SCHEMA,
        "fingerprint": recorded.identity.fingerprint,
        "identity": asdict(recorded.identity),
        "configuration": recorded.configuration,
        **facts,
    }
    with replacing(folder / RUN_FILE) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")


def read_run(folder: Path) -> Recorded | None:
    """What `run.json` says; None where there is none.

    Raises:
        ValueError: a newer schema, or a file that is damaged.
    """
    said = _object(folder / RUN_FILE)
    if said is None:
        return None
    if said.get("schema") != SCHEMA:
        raise ValueError(f"{folder / RUN_FILE}: schema {said.get('schema')}, known is {SCHEMA}")
    try:
        recorded = Recorded(Identity(**said["identity"]), said["configuration"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / RUN_FILE} is damaged: {error}") from error
    if not all(isinstance(x, dict) for x in (recorded.configuration, recorded.identity.settings)):
        raise ValueError(f"{folder / RUN_FILE} is damaged: settings must be KEY: VALUE pairs")
    if said.get("fingerprint") != recorded.identity.fingerprint:
        raise ValueError(f"{folder / RUN_FILE} is damaged: its fingerprint is of other settings")
    return recorded


def read_result(folder: Path) -> Recorded | None:
    """What results.json says of the settings, for a folder without `run.json`; None for nothing."""
    try:
        config = (_object(folder / RESULTS_FILE) or {}).get("config")
    except ValueError:
        return None
    return Recorded(Identity({}), flat(config)) if isinstance(config, dict) else None


def recorded_fingerprint(folder: str | Path) -> str | None:
    """The fingerprint of the run in a folder, for its results.json; None without `run.json`."""
    return (_object(Path(folder) / RUN_FILE) or {}).get("fingerprint")


def read_seconds(folder: Path) -> float | None:
    """How long the run took, start included; None for one that has not ended.

    Raises:
        ValueError: a `run.json` that is damaged.
    """
    seconds = (_object(folder / RUN_FILE) or {}).get("seconds")
    return seconds if isinstance(seconds, (int, float)) else None


def has_result(folder: Path) -> bool:
    """Whether results.json is there and whole: an empty or cut one is no result."""
    try:
        return "metrics" in (_object(folder / RESULTS_FILE) or {})
    except ValueError:
        return False


def _object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None without the file."""
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except NotJSONError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it must be an object, got a {type(content).__name__}")
    return content
