"""Trees of `<domain>/<class>/*`: which domains may be asked for, and where a class's images are.

DomainBed's trees, and Dassl's, which put `train/`, `val/` and the like between domain and class.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from causalclip.data.listing import subfolders

PARTS = {"train", "val", "crossval", "test"}
"""Folders between a domain and its classes in Dassl's trees, merged: the protocol splits anew."""


def check_domains(
    sources: Sequence[str], targets: Sequence[str], known: Sequence[str], *, where: str
) -> None:
    """Require that both lists name known domains, once, and share none; `where` is for messages.

    Raises:
        ValueError: for an empty list, an unknown domain (it lists the known ones), a domain named
            twice, or a target among the sources.
    """
    for option, domains in (("SOURCE_DOMAINS", sources), ("TARGET_DOMAINS", targets)):
        if not domains:
            raise ValueError(f"DATASET.{option} must name one or more of {', '.join(known)}")
        for domain in domains:
            if domain not in known:
                raise ValueError(
                    f"DATASET.{option} must be among {', '.join(known)} of {where}, got {domain!r}"
                )
        if len(set(domains)) < len(domains):
            raise ValueError(f"DATASET.{option} must name a domain once, got {list(domains)}")
    both = [domain for domain in targets if domain in sources]
    if both:
        raise ValueError(f"a target domain must not be among the sources, got {', '.join(both)}")


def class_names(folder: Path, domains: Sequence[str]) -> list[str]:
    """Return the sorted class folders of all `domains` below `folder` together.

    Raises:
        ValueError: if there is none.
    """
    found = {name for domain in domains for name in _classes_of(folder / domain)}
    if not found:
        raise ValueError(f"{folder} must hold <domain>/<class>/ folders, found no class")
    return sorted(found)


def class_places(domain: Path, name: str) -> list[Path]:
    """Return the folders that hold a class of a domain: one, or one a part in Dassl's trees."""
    parts = [domain / part for part in _parts_of(domain)] or [domain]
    return [part / name for part in parts if (part / name).is_dir()]


def _parts_of(domain: Path) -> list[str]:
    inside = subfolders(domain)
    return [part for part in inside if part in PARTS] if set(inside) <= PARTS | {"full"} else []


def _classes_of(domain: Path) -> set[str]:
    places = [domain / part for part in _parts_of(domain)] or [domain]
    return {name for place in places for name in subfolders(place)}
