"""Images found by listing folders: one look at the file system each, in sorted order."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from dassl.data.datasets import Datum

# torchvision's list, so that DomainBed and we count the same images.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ListedDatum(Datum):
    """A Datum whose file a listing has shown to exist, so that nothing is looked up again.

    Dassl's own Datum asks the file system on construction, which takes minutes for ImageNet on a
    network disk. The folder's string is shared between its images.
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

    def __reduce__(self) -> tuple:
        return _rebuild, (self._folder, self._file, self.label, self.domain, self.classname)


def _rebuild(folder: str, file: str, label: int, domain: int, classname: str) -> ListedDatum:
    return ListedDatum(folder, file, label, domain=domain, classname=classname)


class FolderItems(Sequence[ListedDatum]):
    """The images of class folders, kept as bytes and made into items when asked for.

    A list of 1.28 million items takes 250 MB and is copied into every loading process that touches
    it; this takes 30 and is not.
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
        position = range(len(self))[index]  # raises IndexError, and counts from the end
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
        """Return the items of those `paths`, relative to `root`, that are among the images."""
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
    """Return `path` below `root` with forward slashes; one elsewhere keeps its whole path."""
    return path.removeprefix(os.path.join(root, "")).replace(os.sep, "/")


def subfolders(folder: str | os.PathLike) -> list[str]:
    """Return the names of the visible folders in `folder`, sorted; each must be valid UTF-8.

    Folder names become class names and go through a tokenizer, which takes text only.

    Raises:
        ValueError: for a name that is not UTF-8.
        FileNotFoundError: if `folder` is missing.
    """
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    for name in names:
        check_text(name, f"folder in {str(folder)!a}")
    return names


def image_names(folder: str | os.PathLike) -> list[str]:
    """Return the names of the visible files in `folder` with an image's suffix, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            e.name
            for e in entries
            if e.name.lower().endswith(IMAGE_SUFFIXES)
            and not e.name.startswith(".")
            and e.is_file()
        )


def check_text(name: str, what: str) -> None:
    """Require that `name` holds UTF-8 only; `what` it names is for the message.

    Raises:
        ValueError: if it holds other bytes.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"the name of a {what} must be valid UTF-8, got {os.fsencode(name)!r}"
        ) from None


def missing_files(paths: Iterable[str]) -> list[str]:
    """Return those of `paths` that are no files, in order; each folder is listed once."""
    places = [(path, *os.path.split(path)) for path in paths]
    present = {folder: _files_of(folder) for folder in {folder for _, folder, _ in places}}
    absent = [path for path, folder, file in places if file not in present[folder]]
    # Asked once more one by one: some file systems do not mind upper and lower case.
    return [path for path in absent if not os.path.isfile(path)]


def _files_of(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def require_files(paths: Sequence[str], *, of: str) -> None:
    """Require that all `paths` are files; what they are images `of` is for the message.

    Raises:
        FileNotFoundError: with the count and the first five of those that are missing.
    """
    missing = missing_files(paths)
    if missing:
        first = "".join(f"\n  {ascii(path)[1:-1]}" for path in missing[:5])
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images of {of} are missing, first:{first}"
        )


def require_root(root: str, folder: str) -> Path:
    """Return the absolute `root/folder`.

    Raises:
        FileNotFoundError: if it is missing; says which part is wrong and what is there instead.
    """
    root_path = Path(os.path.abspath(os.path.expanduser(root)))
    if not root_path.is_dir():
        raise FileNotFoundError(f"DATASET.ROOT must be an existing folder, got {str(root_path)!r}")
    if (root_path / folder).is_dir():
        return root_path / folder
    raise FileNotFoundError(_wrong_root(root_path, folder))


def _wrong_root(root: Path, folder: str) -> str:
    if root.name == folder:
        return (
            f"DATASET.ROOT must be the folder that holds {folder}/, got {folder}/ itself; "
            f"try --root {root.parent}"
        )
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    found = ascii(", ".join(folders[:20]))[1:-1] or "no folder at all"
    return f"DATASET.ROOT {root} must hold the folder {folder}/, it holds: {found}"
