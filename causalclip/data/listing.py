"""Find images by listing folders, each folder once and in sorted order.

This includes trees of `<domain>/<class>/*`: DomainBed's, and Dassl's with `train/`, `val/` etc. in
between.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from dassl.data.datasets import Datum

from causalclip.data.pictures import PUBLISHED_SUFFIXES, SHOWN, is_hidden

PART_FOLDERS = {"train", "val", "valid", "validation", "crossval", "test"}
"""Folders between a domain and its classes in Dassl's trees; merged, as DomainBed splits anew."""


class ListedDatum(Datum):
    """A Datum of a file that a listing has found, so that its existence is not checked again.

    Dassl's own Datum checks it on construction, which takes minutes for ImageNet on a network disk.
    The images of a folder share the folder's string.
    """

    __slots__ = ("_classname", "_domain", "_file", "_folder", "_label")

    def __init__(
        self, folder: str, file: str, label: int, *, domain: int = 0, classname: str = ""
    ) -> None:
        self._folder, self._file = folder, file
        self._label, self._domain, self._classname = label, domain, classname

    @property
    def impath(self) -> str:
        """The path of the image, as Dassl names it."""
        return os.path.join(self._folder, self._file)


class FolderItems(Sequence[ListedDatum]):
    """The images of class folders: file names as bytes, and items that are made on access.

    A list of 1.28 million items takes 250 MB and is copied into every loader process that uses it.
    This sequence takes 30 MB and is not copied.
    """

    def __init__(self) -> None:
        self._folders: list[tuple[str, int, str]] = []
        self._names: list[np.ndarray] = []
        self._ends: list[int] = []

    def add(self, folder: str, names: Sequence[str], label: int, classname: str) -> None:
        """Append the files `names` of a class folder."""
        self._folders.append((folder, label, classname))
        self._names.append(np.array([os.fsencode(name) for name in names]))
        self._ends.append(len(self) + len(names))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> ListedDatum: ...
    @overload
    def __getitem__(self, index: slice) -> list[ListedDatum]: ...
    def __getitem__(self, index: int | slice) -> ListedDatum | list[ListedDatum]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]  # raises IndexError; negative indices work
        place = bisect_right(self._ends, position)
        return self._item(place, self._names[place][position - self._ends[place]].item())

    def __iter__(self) -> Iterator[ListedDatum]:
        for place, names in enumerate(self._names):
            for name in names.tolist():
                yield self._item(place, name)

    def update_digest(self, digest: Any, root: str | os.PathLike) -> None:
        """Add the relative folders, labels, class and file names to a digest, folder by folder."""
        for (folder, label, classname), names in zip(self._folders, self._names, strict=True):
            digest.update(os.fsencode(f"{relative(folder, root)}\t{label}\t{classname}\n"))
            digest.update(b"/".join(names.tolist()))

    def find(self, paths: Iterable[str], root: str | os.PathLike) -> dict[str, ListedDatum]:
        """Return path -> item for all `paths`, relative to `root`, that are among the images."""
        wanted = defaultdict(list)
        for path in paths:
            wanted[os.path.dirname(path)].append(os.path.basename(path))
        found = {}
        for place, (folder, *_) in enumerate(self._folders):
            present = set(self._names[place].tolist()) if relative(folder, root) in wanted else ()
            for name in wanted.get(relative(folder, root), ()):
                if os.fsencode(name) in present:
                    found[f"{relative(folder, root)}/{name}"] = self._item(place, os.fsencode(name))
        return found

    def _item(self, place: int, name: bytes) -> ListedDatum:
        folder, label, classname = self._folders[place]
        return ListedDatum(folder, os.fsdecode(name), label, classname=classname)


def listed(path: str, label: int, *, domain: int = 0, classname: str = "") -> ListedDatum:
    """Return the datum of a path that is known to exist."""
    folder, file = os.path.split(path)
    return ListedDatum(folder, file, label, domain=domain, classname=classname)


def relative(path: str, root: str | os.PathLike) -> str:
    """Return `path` relative to `root`, with forward slashes; a path elsewhere is not shortened."""
    return path.removeprefix(os.path.join(root, "")).replace(os.sep, "/")


def subfolders(folder: str | os.PathLike) -> list[str]:
    """Return the names of the visible folders in `folder`, sorted; each must be valid UTF-8.

    Folder names become class names and go through a tokenizer, which takes text only.

    Raises:
        ValueError: for a name that is not UTF-8.
        FileNotFoundError: if `folder` is missing.
    """
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not is_hidden(e.name) and e.is_dir())
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(
                f"the name of a folder in {str(folder)!a} must be valid UTF-8, "
                f"got {os.fsencode(name)!r}"
            ) from None
    return names


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders in the folder of a part, sorted.

    Raises:
        FileNotFoundError: if `folder` is missing or has no class folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; `causalclip data check` says more")
    folders = subfolders(folder)
    if not folders:
        raise FileNotFoundError(
            f"{folder} must hold one folder a class, it holds {len(os.listdir(folder))} files; "
            "sort the images into folders by class (ImageNet's val comes without)"
        )
    return folders


def image_names(folder: str | os.PathLike) -> list[str]:
    """Return the names of the pictures in a class folder of a published set, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            e.name
            for e in entries
            if e.name.lower().endswith(PUBLISHED_SUFFIXES) and not is_hidden(e.name) and e.is_file()
        )


def missing_files(paths: Iterable[str]) -> list[str]:
    """Return the `paths` that are not files, in order; each folder is listed once."""
    places = [(path, *os.path.split(path)) for path in paths]
    present = {folder: _files_of(folder) for folder in {folder for _, folder, _ in places}}
    absent = [path for path, folder, file in places if file not in present[folder]]
    # Absent paths are checked again one by one, as some file systems ignore upper and lower case.
    return [path for path in absent if not os.path.isfile(path)]


def _files_of(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def require_files(paths: Sequence[str], *, of: str) -> None:
    """Require that all `paths` are files; the message states that they are images of `of`.

    Raises:
        FileNotFoundError: with the count and the first five missing paths.
    """
    missing = missing_files(paths)
    if missing:
        first = "".join(f"\n  {ascii(path)[1:-1]}" for path in missing[:SHOWN])
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images of {of} are missing (or no regular files), "
            f"first:{first}"
        )


def require_root(root: str, folder: str) -> Path:
    """Return the absolute `root/folder`.

    Raises:
        FileNotFoundError: if it is missing; states which part is wrong and what exists instead.
    """
    root_path = Path(os.path.abspath(os.path.expanduser(root)))
    if not root_path.is_dir():
        raise FileNotFoundError(f"DATASET.ROOT must be an existing folder, got {str(root_path)!r}")
    if (root_path / folder).is_dir():
        return root_path / folder
    if root_path.name == folder:
        raise FileNotFoundError(
            f"DATASET.ROOT must be the folder that holds {folder}/, got {folder}/ itself; "
            f"try --root {root_path.parent}"
        )
    folders = sorted(entry.name for entry in os.scandir(root_path) if entry.is_dir())
    found = ascii(", ".join(folders[:20]))[1:-1] or "no folder at all"
    raise FileNotFoundError(
        f"DATASET.ROOT {root_path} must hold the folder {folder}/, it holds: {found}"
    )


# Domain folders with class folders


def check_domains(
    sources: Sequence[str], targets: Sequence[str], known: Sequence[str], *, where: str
) -> None:
    """Require that both lists have known domains, without duplicates; `where` is for messages.

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
        ValueError: if there is no class folder.
    """
    places = [place for domain in domains for place in _places_of(folder / domain)]
    found = {name for place in places for name in subfolders(place)}
    if not found:
        raise ValueError(f"{folder} must hold <domain>/<class>/ folders, found no class")
    return sorted(found)


def class_places(domain: Path, name: str) -> list[Path]:
    """Return the folders of a class in a domain: one, or in Dassl's trees one for each part."""
    return [place / name for place in _places_of(domain) if (place / name).is_dir()]


def _places_of(domain: Path) -> list[Path]:
    """Return the parents of a domain's class folders: the domain, or its parts in Dassl's trees."""
    inside = set(subfolders(domain))
    parts = inside & PART_FOLDERS if inside <= PART_FOLDERS | {"full"} else set()
    return [domain / part for part in sorted(parts)] or [domain]
