"""The domains of a data set: what can be left out of its training."""

from __future__ import annotations

from pathlib import Path

from causalclip.data.catalogue import BUNDLED, CATALOGUE
from causalclip.runs.recipes import CONFIGS


def domains_of(dataset: str, root: Path | None) -> list[str]:
    """The domains in the order in which they are left out.

    Args:
        dataset: a configuration of configs/datasets/, without .yaml.
        root: folder of the data sets; without one, the published domains.

    Raises:
        ValueError: the data set has fewer than two domains.
        FileNotFoundError: it has domains, and is not below `root`.
    """
    facts = next((facts for facts in CATALOGUE.values() if facts.config == dataset), None)
    if facts and not facts.domains:
        raise ValueError(f"{facts.name} has no domains")
    if facts and (root is None or facts in BUNDLED):
        found = list(facts.domains)
    elif root is None:
        raise ValueError(f"the domains of {dataset} are its folders: set DATA")
    else:
        found = _on_disk(dataset, root)
    if len(found) < 2:
        raise ValueError(f"{dataset} has fewer than two domains to leave one out of")
    return found


def _on_disk(dataset: str, root: Path) -> list[str]:
    """The folders below the data set's own."""
    # Only here: they bring torch along.
    import causalclip.datasets
    from causalclip import plugin
    from causalclip.data.listing import require_root, subfolders

    # isort: split
    from dassl.data.datasets import DATASET_REGISTRY

    plugin.register_package(causalclip.datasets)
    cfg = plugin.default_cfg()
    cfg.merge_from_file(str(CONFIGS / "datasets" / f"{dataset}.yaml"))
    kind = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if kind.domains:
        return list(kind.domains)
    if not hasattr(kind, "folders"):
        raise ValueError(f"{cfg.DATASET.NAME} has no domains")
    places = [root / folder for folder in kind.folders or (cfg.DATASET.PATH,)]
    place = next((place for place in places if place.is_dir()), None)
    return subfolders(place or require_root(str(root), str(places[0].relative_to(root))))
