"""What a row of the catalogue says: facts only, for reading, checking and downloading a data set.

Sizes are those of CoOp's appendix and of the sets' own papers; archives are those of the owners'
pages, checksums torchvision's where no other source stands beside them. Figures in gigabytes are
rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from causalclip.files.download import Known

DEFAULT_TEMPLATE = "a photo of a {}."

Layout = Literal["split", "lists", "imagenet", "domains", "drawn"]
"""How a set lies on the disk, and so how it is checked: with CoOp's split file, with the owners'
own lists of the parts, class folders with `classnames.txt`, a folder a domain, drawn by us."""


@dataclass(frozen=True)
class Download:
    """One file to fetch: from a URL or a Google Drive id, and what becomes of it."""

    file: str
    """Where it goes, relative to the set's folder."""
    url: str = ""
    drive: str = ""
    unpack: bool = False
    """Whether it is an archive to unpack into the set's folder."""
    move: tuple[tuple[str, str], ...] = ()
    """What to move afterwards, from and to, relative to the set's folder; "." is that folder."""
    known: Known = field(default_factory=Known)
    """What is published of its bytes; the source stands beside it."""


@dataclass(frozen=True)
class Facts:
    """One data set: its name in the registry, its folder below the root, and what is published."""

    name: str
    folder: str
    classes: int
    layout: Layout = "split"
    config: str = ""
    """The file in configs/datasets/, without .yaml."""
    template: str = DEFAULT_TEMPLATE
    """The hand-crafted prompt of CoOp's appendix, {} for the class name."""
    protocols: tuple[str, ...] = ()
    """The published protocols that test on it: base2new, fewshot, xd, dg, lodo, openclass."""

    # What is on the disk
    also_in: tuple[str, ...] = ()
    """Other folders it may be in: Dassl's trees of the same images."""
    image_dir: str = ""
    split_file: str = ""
    """Which image is in which part; a json."""
    lists: str = ""
    """The owners' lists of the parts where there is no split file, {} for train, val or test."""
    ignored: tuple[str, ...] = ()
    """Class folders that are no class."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Class folders whose classes CoOp calls otherwise."""
    name_in_path: Literal["", "folder", "file", "path"] = ""
    """Where an image's path holds the published class name: in the first folder, before the last
    "_" of the file, in all inner folders backwards, or nowhere."""
    domains: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    """The folders of a drawn set: its domains, and perhaps a plain look."""
    class_names: tuple[str, ...] = ()
    """The class folders in alphabetical order, where they are few."""

    # What is published
    sizes: tuple[int | None, int | None, int | None] = (None, None, None)
    """Images in train, val and test, where a split is published."""
    images: int | None = None
    """All images, where no split is published."""
    pictures: int | None = None
    """Pictures in each folder of a drawn set."""
    gigabytes: float | None = None
    licence: str = ""
    page: str = ""
    downloads: tuple[Download, ...] = ()
    by_hand: str = ""
    """What a person has to do, where a program cannot or may not."""

    @property
    def total(self) -> int | None:
        """The number of images of all parts."""
        counted = [size for size in self.sizes if size]
        return self.images or sum(counted) or None

    @property
    def folders(self) -> tuple[str, ...]:
        """Where the set may be below the root, the published layout first."""
        return (self.folder, *self.also_in)

    def find(self, root: Path) -> Path | None:
        """Return the folder of the set below `root`, in any layout that is read, or None."""
        return next((root / name for name in self.folders if (root / name).is_dir()), None)
