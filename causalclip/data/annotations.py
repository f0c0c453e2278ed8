"""Parse the annotation files of the recognition data sets to rows [path, label, class name].

Paths are relative to the data set's image folder, and labels start at 0. Readers draw no random
numbers. They raise FileNotFoundError for a missing file and ValueError for a malformed one, with
the file's name and, in a text file, the line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from causalclip.data.splits import say_shared_names


class ImageRow(NamedTuple):
    """One image: its path below the image folder, its label and its class name."""

    path: str
    label: int
    classname: str


def read_lines(path: str | Path) -> list[str]:
    """Return the non-empty lines of a text file, stripped and without a byte order mark.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not UTF-8.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text, got {encoding_of(path, error)}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def encoding_of(path: str | Path, error: UnicodeDecodeError) -> str:
    """Describe the encoding of a file that is not UTF-8, for an error message."""
    with open(path, "rb") as file:
        marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return 'UTF-16; save it as "UTF-8"' if marked else str(error)


def oxford_pets(path: Path) -> list[ImageRow]:
    """Read `trainval.txt` or `test.txt`, with lines such as "Abyssinian_100 1 1 1"."""
    rows = []
    for where, line in _lines_of(path):
        stem, label, *_ = _fields(line, 4, where)
        rows.append(ImageRow(f"{stem}.jpg", _label(label, where), stem.rsplit("_", 1)[0].lower()))
    return rows


def stanford_cars(annotations: Path, meta: Path, folder: str) -> list[ImageRow]:
    """Read `cars_*_annos.mat`; the class "BMW M3 Coupe 2012" becomes "2012 BMW M3 Coupe"."""
    names = [str(name[0]) for name in _load_mat(meta, "class_names")[0]]
    rows = []
    for entry in _load_mat(annotations, "annotations")[0]:
        label = int(entry["class"][0, 0]) - 1
        model, year = names[label].rsplit(" ", 1)
        rows.append(ImageRow(f"{folder}/{entry['fname'][0]}", label, f"{year} {model}"))
    return rows


def oxford_flowers(labels: Path, names: Path) -> list[ImageRow]:
    """Read the labels of image_00001.jpg etc. in `imagelabels.mat`, and `cat_to_name.json`."""
    try:
        by_label = dict(json.loads(names.read_bytes()).items())
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{names} must be a JSON object, label to name: {error}") from None
    return [
        ImageRow(f"image_{i:05d}.jpg", int(label) - 1, _look_up(by_label, str(label), str(names)))
        for i, label in enumerate(_load_mat(labels, "labels")[0], start=1)
    ]


def fgvc_aircraft(images: Path, variants: Path) -> list[ImageRow]:
    """Read `images_variant_*.txt` ("1025794 707-320"); labels have the order of `variants.txt`."""
    labels = {name: i for i, name in enumerate(read_lines(variants))}
    rows = []
    for where, line in _lines_of(images):
        stem, variant = _split_once(line, where)
        rows.append(ImageRow(f"{stem}.jpg", _look_up(labels, variant, where), variant))
    return rows


def sun397(images: Path, classes: Path) -> list[ImageRow]:
    """Read `Training_01.txt`; the class of "/a/apse/indoor/sun_x.jpg" is named "indoor apse"."""
    labels = {line.lstrip("/"): i for i, line in enumerate(read_lines(classes))}
    rows = []
    for where, line in _lines_of(images):
        path = line.lstrip("/")
        folder = path.rpartition("/")[0]
        name = " ".join(reversed(folder.split("/")[1:]))
        rows.append(ImageRow(path, _look_up(labels, folder, where), name))
    return rows


def ucf101(videos: Path, classes: Path) -> list[ImageRow]:
    """Read `trainlist01.txt`; "ApplyLipstick/v_x.avi 2" is the JPEG of the video's middle frame."""
    labels = {}
    for where, line in _lines_of(classes):
        label, name = _fields(line, 2, where)
        labels[name] = _label(label, where)
    rows = []
    for where, line in _lines_of(videos):
        action, _, file = line.split(" ")[0].partition("/")
        label = _look_up(labels, action, where)
        name = "_".join(re.findall("[A-Z][^A-Z]*", action))
        rows.append(ImageRow(f"{name}/{file.replace('.avi', '.jpg')}", label, name))
    return rows


def read_names(folder: Path) -> dict[str, str]:
    """Read `classnames.txt` of a data set, or ImageNet's if it has none; return folder -> name.

    A line is "n01440764 tench". The result has the file's order. Shared names are printed.

    Raises:
        FileNotFoundError: if neither file exists.
        ValueError: for a line without a name.
    """
    paths = (folder / "classnames.txt", folder.parent / "imagenet" / "classnames.txt")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{paths[0]} is missing; `causalclip data download ImageNet` gets it"
        )
    names = dict(_split_once(line, where) for where, line in _lines_of(path))
    say_shared_names(names.values(), where=str(path))
    return names


def _lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield pairs of a position (file and line number, for messages) and the line there."""
    return ((f"{path}, line {n}", line) for n, line in enumerate(read_lines(path), start=1))


def _fields(line: str, count: int, where: str) -> Sequence[str]:
    fields = line.split(" ")
    if len(fields) != count:
        raise ValueError(f"{where}: must have {count} fields, got {line!r}")
    return fields


def _split_once(line: str, where: str) -> tuple[str, str]:
    first, _, rest = line.partition(" ")
    if not rest:
        raise ValueError(f"{where}: must be an id and a name, got {line!r}")
    return first, rest.strip()


def _label(text: str, where: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{where}: the label must be a number from 1, got {text!r}")
    return int(text) - 1


def _look_up(labels: dict[str, Any], name: str, where: str) -> Any:
    if name not in labels:
        raise ValueError(f"{where}: must name one of the classes, got {name!r}")
    return labels[name]


def _load_mat(path: Path, key: str) -> Any:
    from scipy.io import loadmat  # a large import, and few data sets need it
    from scipy.io.matlab import MatReadError

    try:
        with open(path, "rb") as file:
            content = loadmat(file)
    except (ValueError, MatReadError) as error:
        raise ValueError(f"{path} must be a MATLAB file, got {error}") from None
    if key not in content:
        raise ValueError(f"{path} must hold {key!r}, got {sorted(content)}")
    return content[key]
