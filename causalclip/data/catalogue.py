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
"""How a set lies on the disk, and so how it is checked: with CoOp's split file, with the owners'
own lists of the parts, class folders with `classnames.txt`, a folder a domain, drawn by us."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file to fetch: from a URL or a Google Drive id, and what becomes of it."""

    file: str
    """Where it goes, relative to the set's folder."""
    url: str = ""
    drive: str = ""
    unpack: bool = False
    """Whether it is an archive to unpack into the set's folder."""
    move: Mapping[str, str] = field(default_factory=dict)
    """Folders to move afterwards, from and to, relative to the set's folder (".")."""
    known: Known = field(default_factory=Known)
    """The published size and checksum."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One data set: its name in the registry, its folder below the root, and what is published."""

    name: str
    folder: str
    classes: int
    layout: Layout = "split"
    config: str
    """The file in configs/datasets/, without .yaml."""
    template: str = DEFAULT_TEMPLATE
    """The hand-crafted prompt of CoOp's appendix, {} for the class name."""
    protocols: tuple[str, ...] = ()
    """The published protocols that test on it: base2new, fewshot, xd, dg, lodo, openclass."""

    # On the disk
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

    # Published
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
    """Steps for a person, where a program cannot or may not."""

    @property
    def total(self) -> int | None:
        """The number of images of all parts."""
        return self.images or sum(size for size in self.sizes if size) or None

    def find(self, root: Path) -> Path | None:
        """Return the folder of the set below `root`, the published one first, or None."""
        folders = (root / name for name in (self.folder, *self.also_in))
        return next((folder for folder in folders if folder.is_dir()), None)


def facts_from(name: str, row: Mapping[str, Any]) -> Facts:
    """Return a row of `catalogue.yaml`; what most rows share need not be in it.

    The configuration is called as the folder, a split file split_zhou_NAME.json.

    Raises:
        ValueError: an unknown key or layout, or a file without a name; names the set.
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
"""Every known set by its name in the registry."""


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
    """Return the facts of a set by its registry name, whatever the case, or by its configuration.

    Raises:
        ValueError: for another name; it lists the known ones.
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


# Sets of Dassl's own, which the catalogue does not know; all others take the default.
DASSL_TEMPLATES = {"DigitsDG": "a photo of the number {}."}


def template_for(name: str) -> str:
    """Return the template published for the data set registered as `name` (CoOp's appendix).

    A set without one of its own, of the user's for instance, has "a photo of a {}.".
    """
    facts = CATALOGUE.get(name)
    return facts.template if facts else DASSL_TEMPLATES.get(name, DEFAULT_TEMPLATE)


def given_template(cfg: CfgNode) -> str:
    """Return `DATASET.TEMPLATE`, or "" where the configuration leaves it to the data set."""
    return cfg.DATASET.get("TEMPLATE", "")


def dataset_template(cfg: CfgNode, published: Mapping[str, str] | None = None) -> str:
    """Return the template of the data set that `cfg` names.

    `DATASET.TEMPLATE` comes first, then what a method's own code has `published` by the name of the
    data set, then `template_for`.
    """
    name = cfg.DATASET.NAME
    return given_template(cfg) or (published or {}).get(name) or template_for(name)
