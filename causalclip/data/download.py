"""Fetches a data set and unpacks it into its layout; never more than was asked for by name."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from causalclip.data.catalogue import Download, Facts, facts_of
from causalclip.files.download import fetch

DRIVE = "https://drive.google.com/uc?id="


def download(facts: Facts, root: Path, *, keep_archives: bool = False) -> list[str]:
    """Fetch and unpack all files of a set below `root`; return what failed, one sentence each.

    Files that are there are not fetched again, and a broken connection is taken up where it ended.
    """
    folder = root / facts.folder
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for item in facts.downloads:
        try:
            _install(item, folder)
        except (OSError, ValueError) as error:
            failures.append(f"{item.file}: {error}")
    if failures:
        if not any(folder.iterdir()):
            folder.rmdir()  # else it would look like a set that is present
        return failures
    if facts.name == TERRA.name:
        sort_terra_incognita(folder)
    if not keep_archives:
        for item in facts.downloads:
            if item.unpack:
                (folder / item.file).unlink(missing_ok=True)
    return []


def _install(item: Download, folder: Path) -> None:
    path = _get(item, folder)
    if item.unpack:
        print(f"Unpacking {path}")
        unpack(path, folder)
    for source, target in item.move:
        if (folder / source).is_dir():
            merge(folder / source, folder / target)


def _get(item: Download, folder: Path) -> Path:
    path = folder / item.file
    if item.url:
        return fetch(item.url, folder, md5=item.md5 or None)
    if item.drive and not path.is_file():
        _get_from_drive(item.drive, path)
    return path


def _get_from_drive(key: str, path: Path) -> None:
    import gdown
    from gdown.exceptions import DownloadError

    try:
        arrived = gdown.download(id=key, output=str(path), resume=True)
    except (DownloadError, OSError) as error:  # the latter without a connection
        raise ConnectionError(_by_hand(key, path, error)) from error
    if arrived is None:
        raise ConnectionError(_by_hand(key, path, "no answer"))


def _by_hand(key: str, path: Path, reason: object) -> str:
    return (
        f"Google Drive did not give it ({reason}). Run again later, or open {DRIVE}{key} in a "
        f"browser and save it as {path}"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar(.gz) archive below `folder`.

    Raises:
        ValueError: before anything is written, for a member that would land outside of it or is a
            device, and for a file that is no archive.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():
                _require_inside(name, archive)
            file.extractall(folder)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as file:
            _require_safe(file, archive)
            # Python's own filter also refuses what is only reached through links made on the way.
            file.extractall(folder, filter="data")
    else:
        raise ValueError(f"{archive} must be a .zip or .tar archive")


def _require_safe(file: tarfile.TarFile, archive: Path) -> None:
    for member in file:
        _require_inside(member.name, archive)
        if member.issym():
            _require_inside(str(PurePosixPath(member.name).parent / member.linkname), archive)
        elif member.islnk():
            _require_inside(member.linkname, archive)
        elif not (member.isfile() or member.isdir()):
            raise ValueError(f"{archive} must hold files and folders only, got {member.name!r}")


def _require_inside(name: str, archive: Path) -> None:
    path = os.path.normpath(name.replace("\\", "/"))
    if path.startswith(("/", "..")) or ":" in PurePosixPath(path).parts[0]:
        raise ValueError(f"{archive} must stay in its folder, it holds {name!r}; nothing unpacked")


def merge(source: Path, target: Path) -> None:
    """Move the content of `source` into `target`, over files of the same name, and remove it."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in list(source.iterdir()):
        if entry.is_dir() and (target / entry.name).is_dir():
            merge(entry, target / entry.name)
        else:
            os.replace(entry, target / entry.name)
    source.rmdir()


TERRA = facts_of("DomainBedTerraIncognita")


def sort_terra_incognita(folder: Path) -> None:
    """Sort the cameras' common image folder into DomainBed's location_<n>/<class>/."""
    images, annotations = folder / "eccv_18_all_images_sm", folder / "eccv_18_annotation_files"
    for image, name in _terra_images(annotations):
        target = folder / _terra_domain(image) / name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images / image["file_name"], target / image["file_name"])
    shutil.rmtree(images)
    shutil.rmtree(annotations)


def _terra_domain(image: dict) -> str:
    return f"location_{image['location']}"


def _terra_images(annotations: Path) -> Iterator[tuple[dict, str]]:
    content = defaultdict(list)
    for path in sorted(annotations.glob("*.json")):
        for key, values in json.loads(path.read_text(encoding="utf-8")).items():
            if isinstance(values, list):
                content[key] += values
    names = {category["id"]: category["name"] for category in content["categories"]}
    classes = defaultdict(set)
    for annotation in content["annotations"]:
        classes[annotation["image_id"]].add(names[annotation["category_id"]])
    for image in content["images"]:
        if _terra_domain(image) in TERRA.domains:
            for name in sorted(classes[image["id"]] & set(TERRA.class_names)):
                yield image, name
