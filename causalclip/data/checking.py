"""Verify a data set on the disk: layout, split file, every image, and the published counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from causalclip.data import annotations
from causalclip.data.bundled import MARKER
from causalclip.data.catalogue import Facts
from causalclip.data.listing import (
    class_folders,
    class_names,
    class_places,
    image_names,
    missing_files,
    subfolders,
)
from causalclip.data.pictures import PUBLISHED_SUFFIXES, SHOWN, find_pictures, unreadable
from causalclip.data.splits import PARTS, check_labels, read_split_rows
from causalclip.files.caches import first_existing


def find_problems(facts: Facts, root: Path, *, decode: bool = False) -> list[str]:
    """Return what is wrong with a set below `root`, one sentence each; empty if it is complete.

    With `decode` each image is also read to its end, which takes as long as an epoch.
    """
    folder = facts.find(root)
    if folder is None:
        return [f"{root / facts.folder} is missing"]
    found: list[str] = []
    try:
        problems = list(CHECKS[facts.layout](facts, folder, found))
    except (OSError, ValueError) as error:
        problems = [str(error)]
    if decode:
        problems += [f"{p!a} cannot be read: {why}" for p, why in unreadable(found).items()]
    return problems


# Each check yields what is wrong and adds the paths of the images that it finds to `found`


def _check_split(facts: Facts, folder: Path, found: list[str]) -> Iterator[str]:
    path = first_existing(folder / facts.split_file)
    if path is None:
        yield f"{folder / facts.split_file} is missing"
        if not (folder / facts.image_dir).is_dir():
            yield f"{folder / facts.image_dir} is missing"
        return
    rows = read_split_rows(path)
    names = check_labels(rows, str(path))
    yield from _check_parts(facts, folder, rows, len(names), found)
    yield from _check_names(facts, rows)


def _check_names(facts: Facts, rows: Mapping[str, Sequence]) -> Iterator[str]:
    if not facts.name_in_path:
        return
    names = {(row[2], name_of_path(facts, row[0])) for part in PARTS for row in rows[part]}
    others = sorted(f"{mine!r} for {theirs!r}" for mine, theirs in names if mine != theirs)
    if others:
        yield f"not the published class names ({len(others)}): {', '.join(others[:SHOWN])}"


def name_of_path(facts: Facts, path: str) -> str:
    """Return the published class name of an image, which is in its path (`Facts.name_in_path`)."""
    inside = PurePosixPath(path)
    if facts.name_in_path == "path":
        return " ".join(reversed(inside.parts[1:-1]))
    if facts.name_in_path == "file":
        return inside.stem.rpartition("_")[0].lower()
    return facts.renamed.get(inside.parts[0], inside.parts[0])


def _check_lists(facts: Facts, folder: Path, found: list[str]) -> Iterator[str]:
    variants = folder / "variants.txt"
    rows = {
        part: annotations.fgvc_aircraft(folder / facts.lists.format(part), variants)
        for part in PARTS
    }
    classes = len(annotations.read_lines(variants))
    yield from _check_parts(facts, folder, rows, classes, found)


def _check_parts(
    facts: Facts, folder: Path, rows: Mapping[str, Sequence], classes: int, found: list[str]
) -> Iterator[str]:
    images = folder / facts.image_dir
    paths = [str(images / row[0]) for part in PARTS for row in rows[part]]
    missing = missing_files(paths)
    if missing:
        first = ", ".join(ascii(path)[1:-1] for path in missing[:SHOWN])
        yield f"{len(missing)} of {len(paths)} images are missing, first: {first}"
    found += sorted(set(paths) - set(missing))
    yield from _differs("classes", classes, facts.classes)
    for part, published in zip(PARTS, facts.sizes, strict=True):
        yield from _differs(f"{part} images", len(rows[part]), published)


def _check_imagenet(facts: Facts, folder: Path, found: list[str]) -> Iterator[str]:
    names = annotations.read_names(folder)
    train, _, test = facts.sizes
    parts = {"train": train, "val": test} if train else {"": test}
    for part, published in parts.items():
        place = folder / facts.image_dir / part
        classes = class_folders(place)
        yield from _differs(f"class folders in {place}", len(classes), facts.classes)
        if facts.name != "ImageNetV2":
            unnamed = [name for name in classes if name not in names]
            if unnamed:
                yield f"classnames.txt has no name for {', '.join(unnamed[:SHOWN])}"
        paths = [str(place / name / file) for name in classes for file in image_names(place / name)]
        yield from _differs(f"images in {place}", len(paths), published)
        found += paths


def _check_domains(facts: Facts, folder: Path, found: list[str]) -> Iterator[str]:
    domains = subfolders(folder)
    if len(domains) != len(facts.domains):
        yield f"{len(domains)} domains ({', '.join(domains)}), published {', '.join(facts.domains)}"
    classes = class_names(folder, domains)
    yield from _differs("classes", len(classes), facts.classes)
    unknown = [name for name in classes if name not in facts.class_names and not name.isdigit()]
    if facts.class_names and unknown:
        yield f"classes {', '.join(unknown[:SHOWN])}, published {', '.join(facts.class_names)}"
    for domain in domains:
        for name in classes:
            places = class_places(folder / domain, name)
            paths = [
                str(place / file)
                for place in places
                for file in find_pictures(place, PUBLISHED_SUFFIXES).pictures
            ]
            if not paths:
                yield f"domain {domain} has no image of {name}"
            found += paths
    yield from _differs("images", len(found), facts.images)


def _check_drawn(facts: Facts, folder: Path, found: list[str]) -> Iterator[str]:
    for file in filter(None, (MARKER, facts.split_file)):
        if not (folder / file).is_file():
            yield f"{folder / file} is missing"
    by_look = {look: _pictures(folder / look) for look in facts.looks}
    known = set().union(*by_look.values())  # a picture has the same name in all looks
    for look, pictures in by_look.items():
        if len(pictures) != facts.pictures:
            yield f"{len(pictures):,} of the {facts.pictures:,} pictures are in {folder / look}"
        lacking = sorted(known - pictures)
        if lacking:
            yield f"{folder / look} lacks {', '.join(lacking[:SHOWN])}"
        found += [str(folder / look / picture) for picture in sorted(pictures)]


def _pictures(look: Path) -> set[str]:
    """Return CLASS/FILE of every picture of a look."""
    names = subfolders(look) if look.is_dir() else []
    return {f"{name}/{file}" for name in names for file in image_names(look / name)}


def _differs(what: str, count: int, published: int | None) -> Iterator[str]:
    if published is not None and count != published:
        yield f"{count:,} {what}, published {published:,}"


CHECKS: dict[str, Callable[[Facts, Path, list[str]], Iterator[str]]] = {
    "split": _check_split,
    "lists": _check_lists,
    "imagenet": _check_imagenet,
    "domains": _check_domains,
    "drawn": _check_drawn,
}
