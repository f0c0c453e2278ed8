"""Folders in the formats of the Hugging Face Hub: what their card declares, and their files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from causalclip.data.pictures import is_hidden
from causalclip.data.splits import PART_OF
from causalclip.files.reading import parse_yaml

CARD = "README.md"
METADATA = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class Features:
    """Columns of images and of numbered classes, as a card or a Parquet file declares them."""

    images: Sequence[str] = ()
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Column -> names of the classes."""

    @classmethod
    def of(cls, types: Mapping[str, Any]) -> Features:
        """Return the features of `types`: column -> type, as in a card or a Parquet schema."""
        images, classes = [], {}
        for column, kind in types.items():
            if kind == "image" or kind == {"_type": "Image"}:
                images.append(column)
            elif isinstance(kind, Mapping) and (
                names := kind.get("class_label", kind).get("names")
            ):
                if isinstance(names, Mapping):  # number -> name
                    names = [names[number] for number in sorted(names, key=int)]
                classes[column] = [str(name) for name in names]
        return cls(images, classes)


@dataclass(frozen=True)
class HubFolder:
    """A folder in a format of the hub, with the splits and columns to read."""

    folder: Path
    splits: Sequence[tuple[str, str]]
    """(split, pattern of paths) in the card; if the split is empty, the path gives the part."""
    features: Features
    label: str = ""
    """Column of the labels; if empty, the column is found by type and name."""

    @classmethod
    def read(cls, folder: Path, subset: str = "", label: str = "") -> HubFolder:
        """Read the card, if there is one.

        Raises:
            ValueError: the card is not YAML or has another form, there is no such subset, or there
                are several and you name none.
        """
        path = folder / CARD
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
        card = (parse_yaml(head[1], path) if head else None) or {}
        try:
            configs = {str(config["config_name"]): config for config in card.get("configs") or ()}
            subset = subset or ("default" if "default" in configs else "")
            if configs and (subset not in configs if subset else len(configs) > 1):
                raise ValueError(
                    f"{folder} has the subsets {' '.join(configs)}: name one, "
                    f"hf:OWNER/NAME/SUBSET{subset and f', got {subset}'}"
                )
            subset = subset or "".join(configs)
            infos = card.get("dataset_info") or {}
            infos = infos if isinstance(infos, list) else [infos]
            info = next((i for i in infos if i.get("config_name") == subset), infos[0])
            features = Features.of({f["name"]: f["dtype"] for f in info.get("features") or ()})
            splits = tuple(_splits(configs.get(subset, {"data_dir": subset})))
            return cls(folder, splits, features, label)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: configs and dataset_info must be in the hub's form: {error!r}"
            ) from None

    def part_of(self, path: Path, *, folders_only: bool = False) -> str:
        """Return the part of a file; empty if it is in none.

        With `folders_only`, only the folders in the path count, not the file's own name.
        """
        below = path.relative_to(self.folder)
        matching = (s for s, pattern in self.splits if fnmatchcase(below.as_posix(), pattern))
        if split := next(matching, None):
            return PART_OF.get(split, "")
        words = re.split("[^a-z]+", str(below.parent if folders_only else below).lower())
        told = next((PART_OF[word] for word in reversed(words) if word in PART_OF), "train")
        return told if split == "" else ""

    def files(self) -> list[Path]:
        """Return the Parquet files of a part, or the metadata files if there are none."""
        found = [path for path in parquet_files(self.folder) if self.part_of(path)]
        return found or metadata_files(self.folder)


def _splits(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (split, pattern) of a subset of a card."""
    folder = f"{config['data_dir'].strip('/')}/" if config.get("data_dir") else ""
    files = config.get("data_files") or [{"split": "", "path": "*"}]
    for entry in [files] if isinstance(files, str) else files:
        entry = {"split": "train", "path": entry} if isinstance(entry, str) else entry
        paths = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
        yield from ((str(entry["split"]), folder + path.removeprefix("./")) for path in paths)


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files below a folder, sorted, without hidden ones."""
    found = sorted(folder.rglob("*.parquet"))
    return [p for p in found if not any(map(is_hidden, p.relative_to(folder).parts))]


def metadata_files(folder: Path) -> list[Path]:
    """Return each metadata.csv and .jsonl with file names, of a folder and its subfolders."""
    places = (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("data/*/")))
    found = (place / name for place in places for name in METADATA)
    return [path for path in found if path.is_file() and "file_name" in _first_line(path)]


def _first_line(path: Path) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline(100_000)
