"""ColouredDigits: the scans of HandwrittenDigits, in colours that say nothing about the digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2_contingency
from sklearn.datasets import load_digits

from causalclip.data.rendering import COLOURS, DIGIT_COLOURS, DIGIT_DOMAINS, DIGIT_NAMES
from causalclip.datasets.coloured_digits import draw_coloured

DOMAINS = {"SOURCE_DOMAINS": ["ink", "chalk", "neon"], "TARGET_DOMAINS": ["noisy_paper"]}


@pytest.fixture
def coloured(load, data_root):
    return lambda **settings: load("ColouredDigits", data_root, **settings)


def picture(item):
    return np.asarray(Image.open(item.impath), float)


def number(item):
    return int(Path(item.impath).stem.split("_")[1])


def chroma(rgb):
    """RGB without lightness and saturation: what white and black in the mixture leave alone."""
    low, high = rgb.min(-1, keepdims=True), rgb.max(-1, keepdims=True)
    return (rgb - low) / (high - low)


def seen_colour(item, counts):
    """Which of the colours the stroke of a neon sign has."""
    stroke = picture(item)[np.kron(counts, np.ones((4, 4))) >= 14].mean(0)
    palette = np.array([COLOURS[name] for name in DIGIT_COLOURS], float)
    return int(((chroma(palette) - chroma(stroke)) ** 2).sum(1).argmin())


def test_every_domain_holds_every_scan_once_under_its_label(coloured, data_root):
    coloured()
    truth = load_digits().target
    for domain in DIGIT_DOMAINS:
        files = list((data_root / "coloured_digits" / domain).glob("*/*.png"))
        assert sorted(int(f.stem.split("_")[1]) for f in files) == list(range(1797))
        assert all(DIGIT_NAMES[truth[int(f.stem.split("_")[1])]] == f.parent.name for f in files)


def test_a_domain_is_left_out_with_its_held_out_part(coloured):
    data = coloured(**DOMAINS)
    assert {item.domain for item in data.train_x} == {0, 1, 2}
    assert len(data.test) == 1797 and all("/noisy_paper/" in item.impath for item in data.test)
    held = {number(item) for item in data.test if item.impath in data.heldout_test}
    assert held and not held & {number(item) for item in (*data.train_x, *data.val)}


def test_without_domains_all_four_are_one_set(coloured):
    data = coloured()
    parts = (data.train_x, data.val, data.test)
    assert all({Path(i.impath).parts[-3] for i in part} == set(DIGIT_DOMAINS) for part in parts)


def test_files_are_what_is_drawn_and_the_colour_is_the_look_s_own(coloured):
    data, scans = coloured(**DOMAINS), load_digits().images
    for item in data.test[::200]:
        drawn = draw_coloured(scans[number(item)], "noisy_paper", number(item))
        assert np.array_equal(picture(item), drawn)


def test_the_colour_says_nothing_about_the_digit(coloured):
    data, scans = coloured(SOURCE_DOMAINS=["ink"], TARGET_DOMAINS=["neon"]), load_digits().images
    table = np.zeros((10, len(DIGIT_COLOURS)))
    for item in data.test:
        table[item.label, seen_colour(item, scans[number(item)])] += 1
    assert (table.sum(0) > 0.06 * table.sum()).all()  # all eight are seen; 12.5 % each by chance
    assert chi2_contingency(table).pvalue > 1e-3
