"""CausalShapes: drawn shapes whose invariant and variant factors are known, with exact twins.

The class is the shape; colour, texture, background and style vary. Domains are styles. A setting
controls how strongly the background depends on the class, and so the confounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm
from yacs.config import CfgNode

from causalclip.data.bundled import PART_SHARES, BundledDataset, assign_parts, build_once
from causalclip.data.catalogue import facts_of
from causalclip.data.listing import ListedDatum
from causalclip.data.rendering import (
    BACKGROUNDS,
    SHAPES,
    STYLES,
    ShapeFactors,
    draw_factors,
    intervene,
    render_shape,
)
from causalclip.data.splits import Items

EDITION = 1
INSTANCES = 80  # per shape; the poses are the same in every style
HOME: dict[str, str] = dict(zip(SHAPES, BACKGROUNDS, strict=True))
"""Shape -> background of its confounded pictures."""
FACTS = facts_of("CausalShapes")

Instance = Mapping[str, ShapeFactors]
"""Version -> factors before the style is set: on the shape's own background (`home`), on one drawn
uniformly (`free`), and with every variant factor changed (`twin`)."""


def draw_instance(label: int, number: int) -> Instance:
    """Draw the three versions of one instance, in the first style."""
    rng = np.random.default_rng((EDITION, label, number))
    free = draw_factors(SHAPES[label], rng, style=STYLES[0])
    home = replace(free, background=HOME[free.shape])
    return {"home": home, "free": free, "twin": intervene(home, rng, avoid=(free.background,))}


def write_shapes(folder: Path) -> None:
    """Draw every instance in all versions and styles below `folder`, with their factors."""
    labels = np.repeat(np.arange(len(SHAPES)), INSTANCES)
    rows = []
    parts = assign_parts(labels)
    for style in STYLES:
        for shape in SHAPES:
            (folder / style / shape).mkdir(parents=True)
    for index, part in enumerate(tqdm(parts, desc="CausalShapes", unit="instance", disable=None)):
        label, number = divmod(index, INSTANCES)
        instance = draw_instance(label, number)
        for style in STYLES:
            for version, factors in instance.items():
                picture = render_shape(replace(factors, style=style))
                path = folder / style / factors.shape / _file(number, version)
                Image.fromarray(picture).save(path, compress_level=1)
        stored = {version: asdict(factors) for version, factors in instance.items()}
        rows.append({"label": label, "number": number, "part": part, **stored})
    (folder / FACTS.split_file).write_text(json.dumps(rows), encoding="utf-8")


def _file(number: int, version: str) -> str:
    return f"{number:03d}_{version}.png"


def confounded(count: int, correlation: float, *, seed: tuple[int, ...]) -> list[bool]:
    """Return for each instance whether it has its home background: round(count * correlation) do.

    The other backgrounds are uniform, so Cramer's V of class and background is the `correlation`,
    in [0, 1]. A higher correlation adds instances to the chosen ones and removes none.
    """
    rank = np.random.default_rng(seed).permutation(count)
    return (rank < round(count * correlation)).tolist()


class Placed(NamedTuple):
    """Source of a picture: its row in the file of factors, its style and its version."""

    row: dict
    style: str
    version: str


class CausalShapes(BundledDataset):
    """Ten shapes in four styles, 32 x 32; `DATASET.CORRELATION` ties the background to the class.

    `CORRELATION` in [0, 1] applies to train and val, `TEST_CORRELATION` to test: 0 makes the
    background independent of the class, 1 determines it. In addition to the usual attributes:

    twins: path -> path of the exact interventional twin, same shape and pose, all variant factors
        changed; its style is that of the next source domain (its own, if there is no other).
    factors: path -> ShapeFactors of every picture in use and of every twin.

    Raises:
        ValueError: for a correlation outside of [0, 1], or for wrong domains.
        FileExistsError: for an existing folder that causalclip did not draw in this edition.
    """

    dataset_dir = FACTS.folder
    domains = FACTS.domains

    def __init__(self, cfg: CfgNode) -> None:
        self._correlation = _share(cfg, "CORRELATION")
        self._test_correlation = _share(cfg, "TEST_CORRELATION")
        folder = build_once(cfg.DATASET.ROOT, self.dataset_dir, write_shapes, edition=EDITION)
        self._rows = json.loads((folder / FACTS.split_file).read_text(encoding="utf-8"))
        self._placed: dict[str, Placed] = {}
        self._setup(cfg, folder)
        styles = list(cfg.DATASET.SOURCE_DOMAINS) or list(STYLES)
        self.twins, self.factors = self._pair(folder, styles)

    def _items(self, folder: Path, domain: str, part: str, *, number: int, test: bool) -> Items:
        items = []
        share = self._test_correlation if test else self._correlation
        for label, shape in enumerate(SHAPES):
            place = str(folder / domain / shape)
            rows = [row for row in self._rows if (row["label"], row["part"]) == (label, part)]
            seed = (EDITION, label, STYLES.index(domain), list(PART_SHARES).index(part))
            for row, home in zip(rows, confounded(len(rows), share, seed=seed), strict=True):
                version = "home" if home else "free"
                file = _file(row["number"], version)
                item = ListedDatum(place, file, label, domain=number, classname=shape)
                self._placed[item.impath] = Placed(row, domain, version)
                items.append(item)
        return items

    def _pair(
        self, folder: Path, styles: Sequence[str]
    ) -> tuple[dict[str, str], dict[str, ShapeFactors]]:
        twins, factors = {}, {}
        for item in (*self.train_x, *(self.val or ()), *(self.test or ())):
            path, (row, style, version) = item.impath, self._placed[item.impath]
            twin_style = next_style(style, styles)
            shape = SHAPES[row["label"]]
            twin = str(folder / twin_style / shape / _file(row["number"], "twin"))
            twins[path] = twin
            factors[path] = ShapeFactors(**{**row[version], "style": style})
            factors[twin] = ShapeFactors(**{**row["twin"], "style": twin_style})
        return twins, factors


def next_style(style: str, styles: Sequence[str]) -> str:
    """Return the style of a twin: the one after `style` among `styles`, in a circle."""
    if style not in styles:
        return style  # a target's twins have the target's style
    return styles[(styles.index(style) + 1) % len(styles)]


def _share(cfg: CfgNode, key: str) -> float:
    value = float(cfg.DATASET[key])
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"DATASET.{key} must be in [0, 1], got {value}")
    return value


DATASETS = (CausalShapes,)
