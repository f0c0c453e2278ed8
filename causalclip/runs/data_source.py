"""Resolve a data set from a name, a YAML file, a folder of images or a table.

Also list the domains of a data set, which can be left out of a training.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import causalclip.configs
from causalclip import plugin
from causalclip.data.catalogue import BUNDLED, CATALOGUE
from causalclip.data.hub import HUB_NAME
from causalclip.data.hub_card import HubFolder, metadata_files, parquet_files
from causalclip.data.hub_tables import download_dataset, unpack_dataset
from causalclip.data.listing import image_names, subfolders
from causalclip.datasets.folders import part_folders
from causalclip.datasets.table import find_table, read_table
from causalclip.errors import UserError
from causalclip.runs.configuration import merge_file
from causalclip.settings.check import flatten
from causalclip.settings.config_file import read_config

# isort: split
from dassl.data.datasets import DATASET_REGISTRY

DATASET_CONFIGS = Path(causalclip.configs.__path__[0]) / "datasets"
TABLES = (".csv", ".parquet")
LAYOUTS = "CLASS/IMAGE, {train,test}/CLASS/IMAGE or DOMAIN/CLASS/IMAGE"
HUB = "hf:"


@dataclass(frozen=True)
class DataSource:
    """A data set and the settings that select it."""

    name: str
    """Name in tables and folders: the configuration's, the folder's, or the file's stem."""
    settings: Mapping[str, Any]
    """Settings by key: DATASET.NAME, DATASET.ROOT and others that the data set needs."""
    path: Path | None = None
    """The user's own folder or file; None for a registered data set."""


def resolve_data(spec: str | os.PathLike, root: str | os.PathLike = "") -> DataSource:
    """Return the data set that `spec` names.

    Args:
        spec: the name of a configuration in configs/datasets/ or of a registered data set;
            hf:OWNER/NAME for a data set of the Hugging Face Hub; or a path: a YAML file, a CSV or
            Parquet table with the columns of `Table`, a folder of class folders (`ImageFolder`), of
            domains with class folders (`DomainFolder`), or in a layout of the hub. A name takes
            precedence over a path: write ./dtd for a folder dtd.
        root: the folder of the registered data sets, and the default of DATASET.ROOT for a YAML
            file; empty: $DATA, else data.

    Raises:
        UserError: no such data set or path, a folder of another layout, or a YAML that names no
            data set.
        ValueError: a YAML with an unknown setting, a table without the columns that are needed, or
            a damaged file.
    """
    word, path = str(spec), Path(os.path.expanduser(spec))
    root = root or os.environ.get("DATA") or "data"
    named = {file.stem: file for file in DATASET_CONFIGS.glob("*.yaml")}
    if word in named:
        return DataSource(word, {**_settings_of(named[word]), "DATASET.ROOT": str(root)})
    if word in DATASET_REGISTRY.registered_names():
        return DataSource(word, {"DATASET.NAME": word, "DATASET.ROOT": str(root)})
    if word.startswith(HUB):
        table = download_dataset(word.removeprefix(HUB))
        return replace(_of_table(table), name=re.sub(r"[^\w.-]+", "-", word.removeprefix(HUB)))
    if path.is_dir():
        return _of_folder(Path(os.path.abspath(path)))
    if not path.is_file():
        near = get_close_matches(word, named, cutoff=0.5)
        near = [HUB + word] if HUB_NAME.fullmatch(word) else near
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {' '.join(sorted(named))}"
        raise UserError(f"no data set, file or folder {word!r}; {hint}")
    path = Path(os.path.abspath(path))
    if path.suffix in TABLES:
        return _of_table(path)
    if path.suffix in (".yaml", ".yml"):
        return DataSource(path.stem, {"DATASET.ROOT": str(root), **_settings_of(path)}, path)
    raise UserError(f"data must be a .yaml, a table ({' '.join(TABLES)}) or a folder, got {path}")


def _of_folder(folder: Path) -> DataSource:
    inside = subfolders(folder)
    with_images = [name for name in inside if image_names(folder / name)]
    deeper = [
        name
        for name in inside
        if any(image_names(folder / name / below) for below in subfolders(folder / name))
    ]
    described = metadata_files(folder)
    if with_images == inside or (deeper and not described and part_folders(folder)):
        kind = "ImageFolder" if inside else ""
    else:
        kind = "DomainFolder" if deeper == inside else ""
    if described or (not kind and parquet_files(folder)):
        table = unpack_dataset(HubFolder.read(folder), folder.name)
        return replace(_of_table(table), name=folder.name, path=folder)
    if not kind:
        neither = [name for name in inside if name not in (*with_images, *deeper)]
        found = {
            "images in one folder": image_names(folder)[:3],
            "folders of images": with_images[:3],
            "folders of folders of images": deeper[:3],
            "folders without images": neither[:3],
        }
        held = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items() if names)
        raise UserError(f"{folder} must hold {LAYOUTS}, found {held or 'nothing'}")
    settings = {"NAME": kind, "ROOT": str(folder.parent), "PATH": folder.name}
    return DataSource(folder.name, {f"DATASET.{k}": v for k, v in settings.items()}, folder)


def _of_table(path: Path) -> DataSource:
    read_table(path)
    settings = {"NAME": "Table", "ROOT": str(path.parent), "TABLE": path.name}
    return DataSource(path.stem, {f"DATASET.{k}": v for k, v in settings.items()}, path)


def _settings_of(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML file by their dotted keys."""
    merge_file(plugin.default_cfg(), str(path))  # raises for an unknown setting
    settings = dict(flatten(read_config(path)))
    if not settings.get("DATASET.NAME"):
        raise UserError(f"{path} must name a data set, DATASET: {{NAME: ...}}")
    return settings


# Domains


def domains_of(dataset: str | DataSource, root: Path | None) -> list[str]:
    """Return the domains of a data set in the order in which they are left out.

    Args:
        dataset: a configuration of configs/datasets/, without .yaml; or the user's own data set.
        root: folder of the data sets; None: use the published domains.

    Raises:
        ValueError: the data set has fewer than two domains.
        FileNotFoundError: it has domains, but is not below `root`.
    """
    name = dataset if isinstance(dataset, str) else dataset.name
    facts = next((facts for facts in CATALOGUE.values() if facts.config == dataset), None)
    if isinstance(dataset, DataSource):
        found = _domains(dataset.settings)
    elif facts and not facts.domains:
        raise ValueError(f"{facts.name} has no domains")
    elif facts and (root is None or facts in BUNDLED):
        found = list(facts.domains)
    elif root is None:
        raise ValueError(f"the domains of {dataset} are its folders: set DATA")
    else:
        settings = dict(flatten(read_config(DATASET_CONFIGS / f"{dataset}.yaml")))
        found = _domains({**settings, "DATASET.ROOT": str(root)})
    if len(found) < 2:
        raise ValueError(f"{name} has fewer than two domains to leave one out of")
    return found


def _domains(settings: Mapping[str, Any]) -> list[str]:
    """Return the domains in a table or in the data set's class, else the data set's subfolders."""
    plugin.register_all()
    name, root = settings["DATASET.NAME"], settings["DATASET.ROOT"]
    kind = DATASET_REGISTRY.get(name)
    if table := settings.get("DATASET.TABLE"):
        frame = read_table(find_table(root, table))
        return sorted(set(frame["domain"])) if "domain" in frame else []
    if kind.domains:
        return list(kind.domains)
    if not hasattr(kind, "folder_in"):
        raise ValueError(f"{name} has no domains")
    return subfolders(kind.folder_in(root, settings.get("DATASET.PATH", "")))
