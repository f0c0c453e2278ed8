"""The domains of a data set: what can be left out of its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalclip.data.catalogue import BUNDLED, CATALOGUE
from causalclip.runs.recipes import CONFIGS
from causalclip.settings.check import flatten
from causalclip.settings.config_file import read_config

if TYPE_CHECKING:
    from causalclip.runs.data_source import DataSource


def domains_of(dataset: str | DataSource, root: Path | None) -> list[str]:
    """The domains in the order in which they are left out.

    Args:
        dataset: a configuration of configs/datasets/, without .yaml; or a set of the user's.
        root: folder of the data sets; without one, the published domains.

    Raises:
        ValueError: the data set has fewer than two domains.
        FileNotFoundError: it has domains, and is not below `root`.
    """
    if not isinstance(dataset, str):
        return _at_least_two(_of_settings(dataset.settings), dataset.name)
    facts = next((facts for facts in CATALOGUE.values() if facts.config == dataset), None)
    if facts and not facts.domains:
        raise ValueError(f"{facts.name} has no domains")
    if facts and (root is None or facts in BUNDLED):
        found = list(facts.domains)
    elif root is None:
        raise ValueError(f"the domains of {dataset} are its folders: set DATA")
    else:
        found = _on_disk(dataset, root)
    return _at_least_two(found, dataset)


def _at_least_two(found: list[str], dataset: str) -> list[str]:
    if len(found) < 2:
        raise ValueError(f"{dataset} has fewer than two domains to leave one out of")
    return found


def _on_disk(dataset: str, root: Path) -> list[str]:
    settings = dict(flatten(read_config(CONFIGS / "datasets" / f"{dataset}.yaml")))
    return _of_settings({**settings, "DATASET.ROOT": str(root)})


def _of_settings(settings: Mapping[str, Any]) -> list[str]:
    """Return the folders below the data set's own, or the domains that a table names."""
    # Only here: they bring torch along.
    import causalclip.datasets
    from causalclip import plugin
    from causalclip.data.listing import require_root, subfolders
    from causalclip.datasets.table import find_table, read_table

    # isort: split
    from dassl.data.datasets import DATASET_REGISTRY

    plugin.register_package(causalclip.datasets)
    name, root = settings["DATASET.NAME"], Path(settings["DATASET.ROOT"])
    kind = DATASET_REGISTRY.get(name)
    if table := settings.get("DATASET.TABLE"):
        frame = read_table(find_table(str(root), table))
        return sorted(set(frame["domain"])) if "domain" in frame else []
    if kind.domains:
        return list(kind.domains)
    if not hasattr(kind, "folders"):
        raise ValueError(f"{name} has no domains")
    places = [root / folder for folder in kind.folders or (settings["DATASET.PATH"],)]
    place = next((place for place in places if place.is_dir()), None)
    return subfolders(place or require_root(str(root), str(places[0].relative_to(root))))
