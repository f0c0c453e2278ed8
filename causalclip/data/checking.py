"""Verifies a data set on the disk: layout, split file, every image, and the published counts."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from causalclip.data import annotations
from causalclip.data.catalogue import BUNDLED, Facts
from causalclip.data.listing import image_names, missing_files, subfolders
from causalclip.data.splits import PARTS, check_labels, read_split_rows
from causalclip.data.unreadable import unreadable
from causalclip.datasets.domains import FOLDERS, class_names, class_places
from causalclip.datasets.imagenet import class_folders, read_names
from causalclip.datasets.recognition import RENAMED
from causalclip.files.caches import first_existing

BUNDLED_NAMES = {facts.name for facts in BUNDLED}
ANNOTATION_LISTS = {"FGVCAircraft": "images_variant_{}.txt"}


def _folder_name(path: str, renamed: dict[str, str]) -> str:
    folder = PurePosixPath(path).parts[0]
    return renamed.get(folder, folder)


# The published name of an image's class, where it follows from the image's path.
CLASS_OF_PATH: dict[str, Callable[[str], str]] = {
    **{
        name: partial(_folder_name, renamed=RENAMED.get(name, {}))
        for name in ("Caltech101", "DescribableTextures", "EuroSAT", "Food101", "UCF101")
    },
    "OxfordPets": lambda path: PurePosixPath(path).stem.rpartition("_")[0].lower(),
    "SUN397": lambda path: " ".join(reversed(PurePosixPath(path).parts[1:-1])),
}


def place_of(facts: Facts, root: Path) -> Path | None:
    """Return the folder of a set below `root`, in any layout that is read, or None."""
    folders = FOLDERS.get(facts.name, (facts.folder,))
    return next((root / folder for folder in folders if (root / folder).is_dir()), None)


def check(facts: Facts, root: Path, *, decode: bool = False) -> list[str]:
    """Return what is wrong with a set below `root`, one sentence each; empty if it is complete.

    With `decode` each image is also read to its end, which takes as long as an epoch.
    """
    folder = place_of(facts, root)
    if facts.name in BUNDLED_NAMES:
        return []  # drawn whole, or not at all
    if folder is None:
        return [f"{root / facts.folder} is missing"]
    found: list[str] = []
    try:
        problems = list(_check(facts, folder, found))
    except (OSError, ValueError) as error:
        problems = [str(error)]
    if decode:
        problems += [f"{ascii(p)} cannot be read: {why}" for p, why in unreadable(found).items()]
    return problems


def _check(facts: Facts, folder: Path, found: list[str]) -> Iterator[str]:
    if facts.name in FOLDERS:
        return _check_domains(facts, folder, found)
    if facts.split_file:
        return _check_split(facts, folder, found)
    if facts.name in ANNOTATION_LISTS:
        return _check_aircraft(facts, folder, found)
    return _check_imagenet(facts, folder, found)


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


def _check_names(facts: Facts, rows: dict[str, Sequence]) -> Iterator[str]:
    published = CLASS_OF_PATH.get(facts.name)
    if published is None:
        return
    names = {(row[2], published(row[0])) for part in PARTS for row in rows[part]}
    others = sorted(f"{mine!r} for {theirs!r}" for mine, theirs in names if mine != theirs)
    if others:
        yield f"not the published class names ({len(others)}): {', '.join(others[:5])}"


def _check_aircraft(facts: Facts, folder: Path, found: list[str]) -> Iterator[str]:
    variants = folder / "variants.txt"
    rows = {
        part: annotations.fgvc_aircraft(
            folder / ANNOTATION_LISTS[facts.name].format(part), variants
        )
        for part in PARTS
    }
    classes = len(annotations.read_lines(variants))
    yield from _check_parts(facts, folder, rows, classes, found)


def _check_parts(
    facts: Facts, folder: Path, rows: dict[str, Sequence], classes: int, found: list[str]
) -> Iterator[str]:
    images = folder / facts.image_dir
    paths = [str(images / row[0]) for part in PARTS for row in rows[part]]
    missing = missing_files(paths)
    if missing:
        first = ", ".join(ascii(path)[1:-1] for path in missing[:5])
        yield f"{len(missing)} of {len(paths)} images are missing, first: {first}"
    found += sorted(set(paths) - set(missing))
    yield from _differs("classes", classes, facts.classes)
    for part, published in zip(PARTS, facts.sizes, strict=True):
        yield from _differs(f"{part} images", len(rows[part]), published)


def _check_imagenet(facts: Facts, folder: Path, found: list[str]) -> Iterator[str]:
    names = read_names(folder)
    train, _, test = facts.sizes
    parts = {"train": train, "val": test} if train else {"": test}
    for part, published in parts.items():
        place = folder / facts.image_dir / part
        classes = class_folders(place)
        yield from _differs(f"class folders in {place}", len(classes), facts.classes)
        if facts.name != "ImageNetV2":
            unnamed = [name for name in classes if name not in names]
            if unnamed:
                yield f"classnames.txt has no name for {', '.join(unnamed[:5])}"
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
        yield f"classes {', '.join(unknown[:5])}, published {', '.join(facts.class_names)}"
    for domain in domains:
        for name in classes:
            places = class_places(folder / domain, name)
            paths = [str(place / file) for place in places for file in image_names(place)]
            if not paths:
                yield f"domain {domain} has no image of {name}"
            found += paths
    yield from _differs("images", len(found), facts.images)


def _differs(what: str, count: int, published: int | None) -> Iterator[str]:
    if published is not None and count != published:
        yield f"{count:,} {what}, published {published:,}"
