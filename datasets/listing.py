"""Images found by listing folders: one look at the file system each, in sorted order."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from dassl.data.datasets import Datum

# torchvision's list, so that DomainBed and we count the same images.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ListedDatum(Datum):
    """A Datum whose file a listing has shown to exist, so that nothing is looked up again.

    Dassl's own Datum asks the file system on construction, which takes minutes for ImageNet on a
    network disk. The folder's string is shared between its images.
    """

    __slots__ = ("_folder", "_file", "_label", "_domain", "_classname")

    def __init__(
        self, folder: str, file: str, label: int, *, domain: int = 0, classname: str = ""
    ):
        self._folder, self._file = folder, file
        self._label, self._domain, self._classname = label, domain, classname

    @property
    def impath(self) -> str:
        """The path of the image, as Dassl names it."""
        return os.path.join(self._folder, self._file)

    def __reduce__(self):
        return _rebuild, (self._folder, self._file, self.label, self.domain, self.classname)


def _rebuild(folder, file, label, domain, classname):
    return ListedDatum(folder, file, label, domain=domain, classname=classname)


def listed(path: str, label: int, *, domain: int = 0, classname: str = "") -> ListedDatum:
    """Return the datum of a path that is known to exist."""
    folder, file = os.path.split(path)
    return ListedDatum(folder, file, label, domain=domain, classname=classname)


def relabelled(item: Datum, label: int) -> ListedDatum:
    """Return the same image under another label."""
    return listed(item.impath, label, domain=item.domain, classname=item.classname)


def subfolders(folder: str | os.PathLike) -> list[str]:
    """Return the names of the visible folders in `folder`, sorted; each must be valid UTF-8.

    Folder names become class names and go through a tokenizer, which takes text only.
    """
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    for name in names:
        check_text(name, f"folder in {ascii(str(folder))}")
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
    """Raise ValueError if `name` holds bytes that are not UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"the name of a {what} must be valid UTF-8, got {os.fsencode(name)!r}"
        ) from None


def missing_files(paths: Iterable[str]) -> list[str]:
    """Return those of `paths` that are no files, in order; each folder is listed once."""
    paths = list(paths)
    by_folder = defaultdict(set)
    for path in paths:
        folder, file = os.path.split(path)
        by_folder[folder].add(file)
    present = {folder: _files_of(folder) for folder in by_folder}
    absent = [p for p in paths if os.path.basename(p) not in present[os.path.dirname(p)]]
    # Asked once more one by one: some file systems do not mind upper and lower case.
    return [path for path in absent if not os.path.isfile(path)]


def _files_of(folder: str) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def require_files(paths: Sequence[str], *, of: str) -> None:
    """Raise FileNotFoundError with the count and the first five of the `paths` that are missing."""
    missing = missing_files(paths)
    if missing:
        first = "".join(f"\n  {ascii(path)[1:-1]}" for path in missing[:5])
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images of {of} are missing, first:{first}"
        )


def require_root(root: str, folder: str) -> Path:
    """Return the absolute `root/folder`, or raise FileNotFoundError saying which part is wrong."""
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
