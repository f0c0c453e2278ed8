"""HandwrittenDigits and ColouredDigits: the real scans, split, four domains, colours, building."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2_contingency
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from causalclip.data.bundled import MARKER, PART_SHARES, assign_parts, build_once
from causalclip.data.rendering import COLOURS, DIGIT_COLOURS, DIGIT_DOMAINS, DIGIT_NAMES
from causalclip.datasets.handwritten_digits import SPLIT_FILE, draw_scan

SOURCES = {"SOURCE_DOMAINS": ["ink", "chalk", "neon"], "TARGET_DOMAINS": ["noisy_paper"]}


@pytest.fixture
def digits(load, all_digits):
    return lambda **settings: load("HandwrittenDigits", all_digits, **settings)


def scan_number(item):
    return int(Path(item.impath).stem.split("_")[1])


def pixels(items):
    return np.stack([np.asarray(Image.open(item.impath).convert("L"), float) for item in items])


def test_all_1797_scans_are_there_once_under_their_own_label(digits):
    data, truth = digits(), load_digits()
    items = [*data.train_x, *data.val, *data.test]
    assert sorted(map(scan_number, items)) == list(range(1797))
    assert all(truth.target[scan_number(item)] == item.label for item in items)
    assert data.classnames == list(DIGIT_NAMES) and data.num_classes == 10


def test_a_picture_is_its_scan_dark_on_white(digits):
    truth = load_digits()
    for item in digits().test[::40]:
        counts = truth.images[scan_number(item)] / 16.0
        blocks = 1.0 - pixels([item])[0].reshape(8, 4, 8, 4).mean((1, 3)) / 255.0
        assert np.corrcoef(counts.ravel(), blocks.ravel())[0, 1] > 0.95


def test_the_split_is_stratified_50_10_40_and_disjoint(digits):
    data = digits()
    sizes = Counter(load_digits().target.tolist())
    for share, items in ((0.5, data.train_x), (0.1, data.val), (0.4, data.test)):
        for label, count in Counter(item.label for item in items).items():
            assert abs(count - share * sizes[label]) <= 1
    paths = [{item.impath for item in part} for part in (data.train_x, data.val, data.test)]
    assert len(set.union(*paths)) == sum(map(len, paths)) == 1797


def test_the_split_file_is_coops_and_does_not_depend_on_the_seed(digits, all_digits):
    first = digits()
    split = json.loads((all_digits / "handwritten_digits" / SPLIT_FILE).read_text())
    assert set(split) == {"train", "val", "test"}
    path, label, name = split["test"][0]
    assert (all_digits / "handwritten_digits" / path).is_file() and DIGIT_NAMES[label] == name
    assert [i.impath for i in first.train_x] == [i.impath for i in digits(seed=7).train_x]


def test_base_and_new_are_zero_to_four_and_five_to_nine(digits):
    assert digits(SUBSAMPLE_CLASSES="base").classnames == list(DIGIT_NAMES[:5])
    new = digits(SUBSAMPLE_CLASSES="new")
    assert new.classnames == list(DIGIT_NAMES[5:])
    assert {item.label for item in new.test} == set(range(5))


def test_shots_are_drawn_per_class_and_repeat_for_the_seed(digits):
    data = digits(NUM_SHOTS=16)
    assert set(Counter(item.label for item in data.train_x).values()) == {16}
    assert set(Counter(item.label for item in data.val).values()) == {4}
    again, other = digits(NUM_SHOTS=16), digits(NUM_SHOTS=16, seed=2)
    assert [i.impath for i in data.train_x] == [i.impath for i in again.train_x]
    assert [i.impath for i in data.train_x] != [i.impath for i in other.train_x]


def test_leaving_a_domain_out_trains_on_the_sources_and_tests_on_the_whole_target(digits):
    data = digits(**SOURCES)
    sources = {Path(i.impath).parts[-3] for i in (*data.train_x, *data.val)}
    assert sources == {"ink", "chalk", "neon"}
    assert {Path(i.impath).parts[-3] for i in data.test} == {"noisy_paper"}
    assert sorted(map(scan_number, data.test)) == list(range(1797))
    assert {item.domain for item in data.train_x} == {0, 1, 2}
    assert {item.domain for item in data.test} == {3}


def test_the_held_out_fifth_shows_scans_that_no_source_domain_shows(digits):
    data = digits(**SOURCES)
    held = {scan_number(i) for i in data.test if i.impath in data.heldout_test}
    seen = {scan_number(i) for i in (*data.train_x, *data.val)}
    assert len(data.heldout_test) == len(held) and abs(len(held) - 1797 / 5) <= 5
    assert not held & seen and held | seen == set(range(1797))


def test_shots_are_drawn_per_class_and_domain(digits):
    data = digits(NUM_SHOTS=4, **SOURCES)
    assert set(Counter((i.domain, i.label) for i in data.train_x).values()) == {4}
    assert len(data.train_x) == 3 * 10 * 4


def test_the_domains_look_different_and_keep_the_digit(digits):
    """A pixel classifier reads a domain it was trained on, and reads another one worse."""
    rng = np.random.default_rng(0)
    data = digits(SOURCE_DOMAINS=["ink"], TARGET_DOMAINS=["neon"])
    chosen = rng.permutation(len(data.train_x))[:400]
    train = [data.train_x[i] for i in chosen]
    probe = LogisticRegression(C=0.1, max_iter=300).fit(
        pixels(train).reshape(400, -1) / 255.0, [i.label for i in train]
    )
    inside = list(data.val)
    other = [i for i in data.test if i.impath in data.heldout_test]
    score = [
        probe.score(pixels(items).reshape(len(items), -1) / 255.0, [i.label for i in items])
        for items in (inside, other)
    ]
    assert score[0] > 0.8 and score[1] < score[0] - 0.3


@pytest.mark.parametrize(("name", "count"), [("HandwrittenDigits", 1797), ("ColouredDigits", 900)])
def test_every_domain_holds_every_scan_once_under_its_label(
    load, all_digits, coloured_digits, name, count
):
    root, truth = coloured_digits if name == "ColouredDigits" else all_digits, load_digits().target
    folder = Path(load(name, root).dataset_dir)
    for domain in DIGIT_DOMAINS:
        files = list((folder / domain).glob("*/*.png"))
        assert sorted(int(f.stem.split("_")[1]) for f in files) == list(range(count))
        assert all(DIGIT_NAMES[truth[int(f.stem.split("_")[1])]] == f.parent.name for f in files)


# Colours


def picture(item):
    return np.asarray(Image.open(item.impath), float)


def chroma(rgb):
    """RGB without lightness and saturation: what white and black in the mixture leave alone."""
    low, high = rgb.min(-1, keepdims=True), rgb.max(-1, keepdims=True)
    return (rgb - low) / (high - low)


def seen_colour(item, counts):
    """Which of the colours the stroke of a neon sign has."""
    stroke = picture(item)[np.kron(counts, np.ones((4, 4))) >= 14].mean(0)
    palette = np.array([COLOURS[name] for name in DIGIT_COLOURS], float)
    return int(((chroma(palette) - chroma(stroke)) ** 2).sum(1).argmin())


def test_without_domains_all_four_are_one_set(load, coloured_digits):
    data = load("ColouredDigits", coloured_digits)
    parts = (data.train_x, data.val, data.test)
    assert all({Path(i.impath).parts[-3] for i in part} == set(DIGIT_DOMAINS) for part in parts)


def test_the_colour_says_nothing_about_the_digit(load, coloured_digits):
    data = load("ColouredDigits", coloured_digits, SOURCE_DOMAINS=["ink"], TARGET_DOMAINS=["neon"])
    scans = load_digits().images
    for item in data.test[::200]:
        drawn = draw_scan(scans[scan_number(item)], "neon", scan_number(item), coloured=True)
        assert np.array_equal(picture(item), drawn)
    table = np.zeros((10, len(DIGIT_COLOURS)))
    for item in data.test:
        table[item.label, seen_colour(item, scans[scan_number(item)])] += 1
    assert (table.sum(0) > 0.06 * table.sum()).all()  # all eight are seen; 12.5 % each by chance
    assert chi2_contingency(table).pvalue > 1e-3


# Parts and building


def test_parts_do_not_depend_on_the_other_classes():
    labels = [0] * 50 + [1] * 50
    assert assign_parts(labels)[:50] == assign_parts([0] * 50)
    assert Counter(assign_parts(labels)) == {
        part: 100 * share for part, share in PART_SHARES.items()
    }


def test_building_that_fails_leaves_nothing_and_the_next_try_succeeds(tmp_path):
    def broken(folder):
        (folder / "half").mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_once(tmp_path, "toys", broken, edition=1)
    assert list(tmp_path.iterdir()) == []
    folder = build_once(tmp_path, "toys", lambda f: (f / "whole").mkdir(), edition=1)
    assert (folder / "whole").is_dir()


def test_the_first_of_two_builders_wins(tmp_path):
    def slow(folder):
        build_once(tmp_path, "toys", lambda f: (f / "first").mkdir(), edition=1)
        (folder / "second").mkdir()

    folder = build_once(tmp_path, "toys", slow, edition=1)
    assert {p.name for p in folder.iterdir()} == {"first", MARKER}
    assert [p.name for p in tmp_path.iterdir()] == ["toys"]


def test_what_is_built_is_not_built_again(tmp_path):
    build_once(tmp_path, "toys", lambda f: None, edition=1)

    def never(folder):
        raise AssertionError

    assert build_once(tmp_path, "toys", never, edition=1) == tmp_path / "toys"


@pytest.mark.parametrize("stored", [None, {"edition": 1}, [2], "2"])
def test_a_folder_of_another_edition_or_of_somebody_else_is_refused(tmp_path, stored):
    (tmp_path / "toys").mkdir()
    if stored:
        (tmp_path / "toys" / MARKER).write_text(json.dumps(stored))
    with pytest.raises(FileExistsError, match="must be a toys folder of edition 2.*remove it"):
        build_once(tmp_path, "toys", lambda f: None, edition=2)
