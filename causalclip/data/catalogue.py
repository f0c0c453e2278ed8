"""The catalogue of data sets: what is published about each, read from `catalogue.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from causalclip.files.digests import Known

if TYPE_CHECKING:
    from yacs.config import CfgNode

DEFAULT_TEMPLATE = "a photo of a {}."

Layout = Literal["split", "lists", "imagenet", "domains", "drawn"]
"""Form of a data set on the disk: with CoOp's split file, with the owners' lists of the parts,
class folders with `classnames.txt`, one folder for each domain, or drawn by causalclip."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file to download from a URL or a Google Drive id, and how to install it."""

    file: str
    """Path of the file, relative to the data set's folder."""
    url: str = ""
    drive: str = ""
    unpack: bool = False
    """Whether it is an archive to unpack into the set's folder."""
    move: Mapping[str, str] = field(default_factory=dict)
    """Folders to move after unpacking: source -> target, relative to the data set's folder (.)."""
    known: Known = field(default_factory=Known)
    """The published size and checksum."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One data set: name in the registry, folder below the root, and what is published about it."""

    name: str
    folder: str
    classes: int
    layout: Layout = "split"
    config: str
    """Name of the file in configs/datasets/, without .yaml."""
    template: str = DEFAULT_TEMPLATE
    """The hand-crafted prompt in CoOp's appendix, with {} for the class name."""
    protocols: tuple[str, ...] = ()
    """The published protocols that test on it: base2new, fewshot, xd, dg, lodo, openclass."""

    # On the disk
    also_in: tuple[str, ...] = ()
    """Other possible folders: Dassl's folders with the same images."""
    image_dir: str = ""
    split_file: str = ""
    """Name of the JSON file that lists the images of each part."""
    lists: str = ""
    """Name of the owners' lists if there is no split file, with {} for train, val or test."""
    ignored: tuple[str, ...] = ()
    """Folders among the class folders that are not classes."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Class folder -> class name, where CoOp uses another name."""
    name_in_path: Literal["", "folder", "file", "path"] = ""
    """Which part of an image's path is the published class name: the first folder, the file name up
    to its last "_", or all inner folders in reverse order; empty for none."""
    domains: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    """Folders of a drawn data set: its domains, and possibly a plain look."""
    class_names: tuple[str, ...] = ()
    """Class folders in alphabetical order; given for data sets with few classes."""

    # Published
    sizes: tuple[int | None, int | None, int | None] = (None, None, None)
    """Number of images in train, val and test, if a split is published."""
    images: int | None = None
    """Number of all images, if no split is published."""
    pictures: int | None = None
    """Number of pictures in each folder of a drawn data set."""
    gigabytes: float | None = None
    licence: str = ""
    page: str = ""
    downloads: tuple[Download, ...] = ()
    by_hand: str = ""
    """Steps that you must do by hand, because a program cannot or may not."""

    @property
    def total(self) -> int | None:
        """The number of images of all parts."""
        return self.images or sum(size for size in self.sizes if size) or None

    def find(self, root: Path) -> Path | None:
        """Return the folder of the set below `root`, the published one first, or None."""
        folders = (root / name for name in (self.folder, *self.also_in))
        return next((folder for folder in folders if folder.is_dir()), None)


def facts_from(name: str, row: Mapping[str, Any]) -> Facts:
    """Return the facts in a row of `catalogue.yaml`.

    By default, the configuration is named after the folder, the split file split_zhou_NAME.json.

    Raises:
        ValueError: an unknown or missing key, or an unknown layout; names the data set.
    """
    try:
        values: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in row.items()
        }
        downloads = tuple(_download(**download) for download in values.pop("downloads", ()))
        values.setdefault("config", values.get("folder"))
        if values.get("layout", "split") == "split":
            values.setdefault("split_file", f"split_zhou_{name}.json")
        facts = Facts(name=name, downloads=downloads, **values)
    except TypeError as error:
        raise ValueError(f"{FILE.name}, {name}: {error}") from error
    if facts.layout not in get_args(Layout):
        allowed = ", ".join(get_args(Layout))
        raise ValueError(f"{FILE.name}, {name}: layout must be {allowed}, got {facts.layout!r}")
    return facts


def _download(
    *, url: str = "", file: str = "", sha256: str = "", md5: str = "", size: int = 0, **rest: Any
) -> Download:
    known = Known(sha256=sha256, md5=md5, size=size)
    return Download(file=file or url.rpartition("/")[2], url=url, known=known, **rest)


FILE = Path(__file__).with_suffix(".yaml")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CATALOGUE = {
    name: facts_from(name, row)
    for name, row in yaml.load(FILE.read_text(encoding="utf-8"), Loader=_LOADER).items()
}
"""Registry name -> facts, for every known data set."""


def _of_layout(*layouts: Layout) -> tuple[Facts, ...]:
    return tuple(facts for facts in CATALOGUE.values() if facts.layout in layouts)


RECOGNITION = _of_layout("split", "lists")
"""CoOp's ten sets other than ImageNet."""
IMAGENET = _of_layout("imagenet")
"""ImageNet and the four variants that prompt learning is tested on."""
DOMAINBED = _of_layout("domains")
BUNDLED = _of_layout("drawn")
BUNDLED_NAMES = {name for facts in BUNDLED for name in (facts.config, facts.name)}


def facts_of(name: str) -> Facts:
    """Return the facts of a data set by its registry name, in any case, or its configuration.

    Raises:
        ValueError: for an unknown name; it lists the known ones.
    """
    for facts in CATALOGUE.values():
        if name.lower() in (facts.name.lower(), facts.config):
            return facts
    raise ValueError(f"the data set must be one of {', '.join(CATALOGUE)}, got {name!r}")


def sets_of(protocol: str) -> list[str]:
    """Return the configurations of the sets that a published protocol tests on, in its order.

    Raises:
        ValueError: for a protocol that no set belongs to; it lists the known ones.
    """
    found = [facts.config for facts in CATALOGUE.values() if protocol in facts.protocols]
    if not found:
        known = dict.fromkeys(name for facts in CATALOGUE.values() for name in facts.protocols)
        raise ValueError(f"the protocol must be one of {', '.join(known)}, got {protocol!r}")
    return found


# Hand-crafted templates


# Dassl's own data sets, which are not in the catalogue; all others use the default.
DASSL_TEMPLATES = {"DigitsDG": "a photo of the number {}."}


def template_for(name: str) -> str:
    """Return the template published for the data set registered as `name` (CoOp's appendix).

    A data set without a published template, such as your own, gets "a photo of a {}.".
    """
    facts = CATALOGUE.get(name)
    return facts.template if facts else DASSL_TEMPLATES.get(name, DEFAULT_TEMPLATE)


def given_template(cfg: CfgNode) -> str:
    """Return `DATASET.TEMPLATE`, or "" if the configuration does not set it."""
    return cfg.DATASET.get("TEMPLATE", "")


def dataset_template(cfg: CfgNode, published: Mapping[str, str] | None = None) -> str:
    """Return the template of the data set that `cfg` names.

    This is `DATASET.TEMPLATE` if it is set. Otherwise it is the template in `published` (those of a
    method's own code, by data set), or else that of `template_for`.
    """
    name = cfg.DATASET.NAME
    return given_template(cfg) or (published or {}).get(name) or template_for(name)
