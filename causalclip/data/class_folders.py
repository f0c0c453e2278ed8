"""Class folders with WordNet ids and the file that names them: ImageNet's layout."""

from __future__ import annotations

import os
from pathlib import Path

from causalclip.data.annotations import imagenet_names
from causalclip.data.listing import subfolders
from causalclip.data.splits import say_shared_names


def read_names(folder: Path) -> dict[str, str]:
    """Read `classnames.txt` of a set, or ImageNet's if the set has no copy, and say who shares.

    The result is folder -> class name, in the file's order.

    Raises:
        FileNotFoundError: if neither is there.
        ValueError: for a line without a name.
    """
    path = folder / "classnames.txt"
    if not path.is_file():
        path = folder.parent / "imagenet" / "classnames.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder / 'classnames.txt'} is missing; `causalclip data download ImageNet` gets it"
        )
    names = imagenet_names(path)
    say_shared_names(names.values(), where=str(path))
    return names


def class_folders(folder: Path) -> list[str]:
    """Return the sorted class folders of a part, which must be sorted into some.

    Raises:
        FileNotFoundError: if `folder` is missing or holds no class folder.
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
