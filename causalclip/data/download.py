"""Download a data set by name and unpack it into its layout."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from causalclip.data.catalogue import Download, Facts, facts_of
from causalclip.data.splits import is_plain
from causalclip.files.digests import Known
from causalclip.files.download import check_size, fetch, merge, unpack, verify_download

UNKNOWN_GB = 50.0  # size of a data set for which the catalogue has none
DRIVE = "https://drive.google.com/uc?id="


def download(
    facts: Facts, root: Path, *, keep_archives: bool = False, trust: bool = False
) -> list[str]:
    """Fetch and unpack all files of a set below `root`; return what failed, one sentence each.

    Existing files are not fetched again, and a broken download is resumed.
    A file without a known checksum or exact size is only fetched with `trust`.
    """
    folder = root / facts.folder
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for item in facts.downloads:
        if not trust and (why := unverified(item, folder)):
            failures.append(f"{item.file}: {why}")
            continue
        try:
            _install(item, folder, most_bytes(facts))
        except (OSError, ValueError) as error:
            failures.append(f"{item.file}: {error}")
    if failures:
        if not any(folder.iterdir()):
            folder.rmdir()  # an empty folder would look like a present data set
        return failures
    if facts.name == TERRA.name:
        sort_terra_incognita(folder)
    if not keep_archives:
        for item in facts.downloads:
            if item.unpack:
                (folder / item.file).unlink(missing_ok=True)
    return []


def _install(item: Download, folder: Path, most: int) -> None:
    path = _get(item, folder)
    if item.unpack:
        print(f"Unpacking {path}")
        unpack(path, folder, most_bytes=most)
    for source, target in item.move.items():
        if (folder / source).is_dir():
            merge(folder / source, folder / target)


def _get(item: Download, folder: Path) -> Path:
    path = folder / item.file
    if item.url:
        return fetch(item.url, folder, known=item.known)
    with _locked(folder):  # a second process waits, and then finds the file
        if item.drive and not path.is_file():
            _get_from_drive(item.drive, path, item.known)
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _get_from_drive(key: str, path: Path, known: Known) -> None:
    """Download a file from Google Drive; resume the download of an earlier call."""
    import gdown
    from gdown.exceptions import DownloadError

    def check(received: int, total: int | None) -> None:
        check_size(max(received, total or 0), known, f"{DRIVE}{key}")

    part = path.with_name(f"{path.name}.part")
    try:
        arrived = gdown.download(id=key, output=str(part), resume=True, progress=check)
    except (DownloadError, OSError) as error:  # OSError: no connection
        raise ConnectionError(_by_hand(key, path, error)) from error
    except ValueError:  # too large
        for received in path.parent.glob(f"{glob.escape(part.name)}*"):
            received.unlink()
        raise
    if arrived is None:
        raise ConnectionError(_by_hand(key, path, "no answer"))
    verify_download(known, part, f"{DRIVE}{key}")
    os.replace(part, path)


def _by_hand(key: str, path: Path, reason: object) -> str:
    return (
        f"Google Drive did not give it ({reason}). Run again later, or open {DRIVE}{key} in a "
        f"browser and save it as {path}"
    )


def most_bytes(facts: Facts) -> int:
    """Return the most bytes an archive may unpack to: four times the published size plus 1 GB."""
    return int((4 * (facts.gigabytes or UNKNOWN_GB) + 1) * 1e9)


def unverified(item: Download, folder: Path) -> str:
    """Return why fetching a file requires --trust; "" if it does not."""
    if item.known or not (item.url or item.drive) or (folder / item.file).is_file():
        return ""
    return (
        "its owner publishes no checksum and none is known, so nobody can tell whether what "
        "arrives is what was published. Give --trust to fetch it all the same"
    )


TERRA = facts_of("DomainBedTerraIncognita")


def sort_terra_incognita(folder: Path) -> None:
    """Sort Terra Incognita's images from one folder into DomainBed's location_<n>/<class>/."""
    images, annotations = folder / "eccv_18_all_images_sm", folder / "eccv_18_annotation_files"
    for file, domain, name in _terra_images(annotations):
        if not is_plain(file):
            raise ValueError(f"{annotations} must name images below {images}, got {file!r}")
        (folder / domain / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images / file, folder / domain / name / file)
    shutil.rmtree(images)
    shutil.rmtree(annotations)


def _terra_images(annotations: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the file, the domain and the class of each image that DomainBed uses."""
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
        if (domain := f"location_{image['location']}") in TERRA.domains:
            for name in sorted(classes[image["id"]] & set(TERRA.class_names)):
                yield image["file_name"], domain, name
