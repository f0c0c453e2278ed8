"""Unpack data sets in the formats of the Hugging Face Hub once, to images and a table for `Table`.

The formats are Parquet files with an image and a label column, pictures with metadata.csv or
metadata.jsonl, and class folders. The package `datasets` is not used, because a checkout of CoOp
has a folder of that name.
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from causalclip.data.bundled import build_folder
from causalclip.data.hub import snapshot
from causalclip.data.hub_card import CARD, METADATA, Features, HubFolder
from causalclip.data.pictures import PICTURE_SUFFIXES, find_pictures
from causalclip.data.splits import LABEL, PART_OF, PARTS, cut, is_plain, slashes
from causalclip.errors import UserError
from causalclip.files.caches import cache_home, parse_json

SPEC = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(/(?P<subset>[\w.-]+))?(@(?P<revision>[\w./-]+))?(:(?P<label>.+))?"
)
TABLE = "table.csv"
LABELS = ("label", "labels")


class HubRow(NamedTuple):
    """A labelled image."""

    part: str
    path: str
    """Path of the image below the table's folder."""
    number: int
    """Position of the class among the declared names; 0 if none are declared."""
    classname: str
    domain: str = ""


def download_dataset(spec: str) -> Path:
    """Download a data set of the hub and unpack it; return its table.

    Args:
        spec: owner/name, optionally followed by /subset, @revision and :column of the labels.

    Raises:
        UserError: `spec` has another form, no such data set, no connection, or a missing package.
        ValueError: the data set is in none of the hub's formats, or damaged.
    """
    match = SPEC.fullmatch(spec)
    if not match:
        raise UserError(
            "a data set of the hub is hf:OWNER/NAME, then perhaps /SUBSET, @REVISION and :COLUMN "
            f"of the labels, got hf:{spec}"
        )
    name, subset = match["name"], match["subset"] or ""
    first = snapshot(name, "dataset", match["revision"], [CARD])
    suffixes = (".parquet", *PICTURE_SUFFIXES, *map(str.upper, PICTURE_SUFFIXES))
    patterns = [
        pattern if split else f"{pattern}{suffix}"  # pattern ends in *
        for split, pattern in HubFolder.read(first, subset).splits
        for suffix in (("",) if split else suffixes)
    ]
    folder = snapshot(name, "dataset", first.name, [CARD, *(f"*{m}" for m in METADATA), *patterns])
    hub = HubFolder.read(folder, subset, match["label"] or "")
    return unpack_dataset(hub, name.replace("/", "-"))


def unpack_dataset(hub: HubFolder, title: str) -> Path:
    """Unpack a folder into the cache, unless it is there already; return its table.

    Picture files are linked. Images without a label are left out. `complete` assigns the parts.
    The folder in the cache is named after `title`.

    Raises:
        UserError: pyarrow is missing.
        ValueError: no data, a damaged file, a missing column, or classes without names.
    """
    files = hub.files()
    digest = hashlib.sha256(repr((str(hub.folder.absolute()), hub)).encode())
    for path in files:
        digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    target = cache_home() / "tables" / f"{title}-{digest.hexdigest()[:12]}"
    if (target / TABLE).is_file():
        return target / TABLE
    print(f"unpacking {hub.folder} into {target}", file=sys.stderr)

    def write(folder: Path) -> None:
        rows = [row for path in files for row in _unpacked(hub, path, folder)]
        rows = rows if files else list(_class_folders(hub, folder))
        if not rows:
            raise ValueError(
                f"{hub.folder} holds no labelled image in Parquet files, next to metadata.csv or "
                "metadata.jsonl, or in class folders; archives and scripts are not read"
            )
        with open(folder / TABLE, "w", encoding="utf-8", newline="") as file:
            _write_table(file, complete(rows, str(hub.folder)))

    build_folder(target, write, marker=TABLE, action="unpack")
    return target / TABLE


def _unpacked(hub: HubFolder, file: Path, target: Path) -> Iterator[HubRow]:
    """Write or link the images of a Parquet file or of metadata below `target`; yield the rows."""
    records, features = _records(file)
    features = features if features.classes or features.images else hub.features
    domains = features.classes.get("domain", ())
    stem = file.relative_to(hub.folder).with_suffix("")
    image, label = "file_name" if file.name in METADATA else "", ""
    for number, record in enumerate(records):
        where = f"{file}, row {number + 1}"
        image = image or _only("image", features.images, ("image", "img"), record, file)
        label = label or hub.label or _only("label", features.classes, LABELS, record, file)
        for column in (image, label):
            if column not in record:
                raise ValueError(f"{where} has no {column}; it has {', '.join(record)}")
        key = _class_of(record[label], features.classes.get(label, ()), f"{where}: {label}")
        if key is None:
            continue
        content, name = _image_of(record[image], f"{where}: {image}")
        if content is None:
            source = file.parent / name
            place, part = source.relative_to(hub.folder), hub.part_of(source, folders_only=True)
        else:
            source, suffix = content, Path(name).suffix.lower()
            place = stem / f"{number:07}{suffix if suffix in PICTURE_SUFFIXES else ''}"
            part = hub.part_of(file)
        if part:
            _put(target / place, source)
            domain = record.get("domain", "")
            domain = domains[domain] if domains and isinstance(domain, int) else domain
            yield HubRow(part, place.as_posix(), *key, str(domain))


def _only(
    what: str, declared: Collection[str], usual: Sequence[str], record: Mapping, file: Path
) -> str:
    """Return the only declared column; if none or several are declared, one with a usual name.

    Raises:
        ValueError: there is no such column, or it is not clear which one is meant.
    """
    found = [name for name in declared if name in record] or [n for n in usual if n in record]
    best = found if len(found) == 1 else [name for name in usual if name in found]
    if best:
        return best[0]
    several = f"{', '.join(found)}: name one, hf:OWNER/NAME:COLUMN"
    told = several if found else f"none among {', '.join(record)}"
    raise ValueError(f"{file} must have one column {what}, found {told}")


def _class_of(value: Any, names: Sequence[str], where: str) -> tuple[int, str] | None:
    """Return the number and the name of a class; None without a label.

    Raises:
        ValueError: a number without a name, or neither number nor text.
    """
    if value in (None, "", -1):
        return None
    if isinstance(value, str) and (not names or value in names):
        return (names.index(value) if names else 0), value
    if re.fullmatch(LABEL, str(value)) and int(value) < len(names):
        return int(value), names[int(value)]
    numbers = f" or a number below {len(names)}" if names else ", as nothing names the numbers"
    raise ValueError(f"{where} must be a class name{numbers}, got {value!r:.80}")


def _image_of(value: Any, where: str) -> tuple[bytes | None, str]:
    """Return the bytes and the name of an image; if the bytes are None, the name is a file's path.

    Raises:
        ValueError: neither bytes nor a path, or a path that leads out of its folder.
    """
    value = {"path": value} if isinstance(value, str) else value
    value = {"bytes": value} if isinstance(value, bytes) else value
    if isinstance(value, dict):
        content, name = value.get("bytes"), slashes(str(value.get("path") or ""))
        if isinstance(content, bytes) or is_plain(name):
            return content, name
    raise ValueError(f"{where} must be an image, or a path below its folder, got {value!r:.80}")


def _records(file: Path) -> tuple[Iterator[dict[str, Any]], Features]:
    """Return an iterator over the rows of a Parquet or metadata file, and the declared features.

    Raises:
        UserError: pyarrow is missing.
        ValueError: a damaged file; the iterator can raise it too.
    """
    if file.suffix != ".parquet":
        return _named_errors(file, _metadata(file)), Features()
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UserError("Parquet needs pyarrow: pip install 'causalclip[hub]'") from error
    try:
        table = ParquetFile(file)
        stated = parse_json((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        features = Features.of(stated.get("info", {}).get("features") or {})
    except (ValueError, OSError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} is damaged or no Parquet file: {error}") from error
    rows = (row for batch in table.iter_batches(256) for row in batch.to_pylist())
    return _named_errors(file, rows), features


def _metadata(file: Path) -> Iterator[dict[str, Any]]:
    with open(file, encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines) if file.suffix == ".csv" else map(parse_json, lines)


def _named_errors(file: Path, rows: Iterator[Any]) -> Iterator[dict[str, Any]]:
    try:
        for row in rows:
            if not isinstance(row, dict):
                raise ValueError(f"a row must be an object, got {row!r:.80}")
            yield row
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _class_folders(hub: HubFolder, target: Path) -> Iterator[HubRow]:
    """Link the pictures in class folders below `target`; yield their rows."""
    if not hub.folder.is_dir():  # the snapshot has no file
        return
    for name in find_pictures(hub.folder).pictures:
        path = hub.folder / name
        part, classname = hub.part_of(path, folders_only=True), path.parent.name
        if part and path.parent != hub.folder and classname not in PART_OF:
            _put(target / name, path)
            yield HubRow(part, name, 0, classname)


def _put(place: Path, image: Path | bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        place.write_bytes(image)
    elif not place.is_symlink():
        place.symlink_to(image.absolute())


def complete(rows: Sequence[HubRow], where: str) -> list[HubRow]:
    """Return the rows with the parts train, val and test.

    If only training images have labels, they are split 50/20/30 per class and domain. Otherwise,
    without labelled test images the validation images become the test images. If no validation
    images are left, a fifth of the training images of each class and domain becomes val.

    Raises:
        ValueError: no training images, or too few of a class to split.
    """
    count = Counter(row.part for row in rows)
    if not count["train"]:
        raise ValueError(f"{where} must have labelled images of the split train, got {dict(count)}")
    if count["val"] and count["test"]:
        return list(rows)
    said = "its training images are split 50/20/30"
    if count["val"] or count["test"]:
        tests = "" if count["test"] else "its validation images test, "
        said = f"{tests}a fifth of each class of the training images validates"
    print(f"{where} has no labelled images for all three parts: {said}", file=sys.stderr)
    done = [row._replace(part="test") for row in rows if row.part != "train"]
    groups: dict[tuple, list[HubRow]] = defaultdict(list)
    split: list[HubRow] = []
    for row in rows:
        if row.part == "train":
            groups[row[2:]].append(row)
    for (_, name, _), group in groups.items():
        group.sort(key=lambda row: hashlib.sha256(row.path.encode()).hexdigest())
        fifth = round(len(group) / 5)
        parts = (group[fifth:], group[:fifth], [])
        parts = parts if done else cut(group, 0.5, 0.2, of=f"class {name!r}")
        for part, some in zip(PARTS, parts, strict=True):
            split += [row._replace(part=part) for row in some]
    return done + split


def _write_table(file: IO[str], rows: Sequence[HubRow]) -> None:
    """Write the columns of `Table`; classes are numbered as declared, else by name."""
    keys = sorted({(row.number, row.classname) for row in rows})
    labels = {key: label for label, key in enumerate(keys)}
    has_domains = any(row.domain for row in rows)
    writer = csv.writer(file)
    writer.writerow(["path", "split", "label", "classname", *["domain"] * has_domains])
    for part, path, number, name, domain in rows:
        writer.writerow([path, part, labels[number, name], name, *[domain] * has_domains])
