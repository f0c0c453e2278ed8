"""Where the recipes of the bundled CLIPs come from: splits, seeds, candidates (docs/recipes.md)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sklearn import datasets

from causalclip import plugin
from causalclip.runs.configuration import merge_file
from causalclip.runs.plan import parse_value

ROOT = Path(__file__).resolve().parents[1]
# The folder benchmarks/ is imported as the tool imports it; its modules, as a script of it does.
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from benchmarks import photographs, recipes, tuning_sets  # noqa: E402

FACTS = recipes.described()
VARIED = ("IMAGE_PROJECTION", "BASE")  # what CDC's variants add to its recipe
plugin.register_all()


@pytest.fixture(scope="module")
def tuning():
    return recipes.read("tuning")


@pytest.fixture(scope="module")
def looked():
    return recipes.read("test")


def test_no_held_out_world_or_class_has_chosen(tuning, looked):
    heldout = recipes.worlds_of("heldout")
    assert set(recipes.read("heldout").world) == set(heldout)
    assert not set(heldout) & (set(tuning.world) | set(looked.world))
    first = {name: start for name, (start, _) in photographs.PHOTOS.items()}
    assert not {first[name] for name in heldout} & {first[n] for n in first if n not in heldout}


def test_no_seed_of_the_tables_has_chosen(tuning, looked):
    assert set(tuning.seed) <= set(FACTS["seeds"]["tuning"])
    assert set(looked.seed) <= set(FACTS["seeds"]["test"])
    assert not set(tuning.seed) & set(looked.seed)


def test_every_world_and_method_of_the_rows_is_described(tuning, looked):
    for rows in (tuning, looked):
        assert set(rows.world) <= set(FACTS["worlds"])
        assert set(rows.method) <= set(FACTS["candidates"])
    assert set(looked.method) == set(FACTS["candidates"])


def test_every_candidate_was_tried(tuning):
    for method in FACTS["candidates"]:
        tried = set(tuning[tuning.method == method].settings)
        wanted = {" ".join(settings) for settings in recipes.candidates(method)}
        assert tried == wanted, method


def common(rows, seeds=1):
    """The mean HM of each candidate that was run in all worlds with the first `seeds` seeds."""
    first = rows[rows.seed.isin(FACTS["seeds"]["tuning"][:seeds])]
    runs = first.groupby("settings").size()
    return first.groupby("settings")["HM"].mean()[runs == runs.max()]


@pytest.mark.parametrize(
    "method", [name for name, how in FACTS["candidates"].items() if "grid" in how]
)
def test_a_rivals_recipe_is_the_best_of_its_grid(method, tuning):
    seeds = FACTS["candidates"][method].get("seeds", 1)
    best = common(tuning[tuning.method == method], seeds).idxmax().split()
    cfg = plugin.default_cfg()
    merge_file(cfg, str(recipes.recipe_file(method)))
    cfg.merge_from_list([parse_value(word) for word in recipes.extra_settings(method)])
    for key, value in zip(best[::2], best[1::2], strict=True):
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node == parse_value(value), key


@pytest.mark.parametrize("method", [m for m in FACTS["candidates"] if m not in ("CLIP_ICM", "CDC")])
def test_no_chosen_rate_is_at_an_end_of_its_grid(method, tuning):
    grid = FACTS["candidates"][method].get("grid", {})
    seeds = FACTS["candidates"][method].get("seeds", 1)
    best = common(tuning[tuning.method == method], seeds).idxmax().split()
    for rates in (values for key, values in grid.items() if key.endswith("LR")):
        (rate,) = (float(v) for k, v in zip(best[::2], best[1::2], strict=True) if k.endswith("LR"))
        assert min(rates) < rate < max(rates)


def test_the_recipe_of_cdc_is_the_better_of_its_finalists(tuning):
    mine = tuning[(tuning.method == "CDC") & ~tuning.settings.str.contains("|".join(VARIED))]
    runs = mine.groupby("settings").size()
    finalists = runs.index[runs == runs.max()]  # in every world with every seed
    assert runs.max() == len(FACTS["seeds"]["tuning"]) * mine.world.nunique()
    assert len(finalists) > 1
    means = mine.groupby(["settings", "world"])["HM"].mean().groupby("settings").mean()
    assert means[finalists].idxmax() == ""
    assert set(common(mine).nlargest(len(finalists)).index) == set(finalists)


def test_cdcs_variants_are_the_best_with_image_projections_and_on_a_base(tuning):
    """The recipe leaves both towers frozen, as the paper does."""
    mine = tuning[tuning.method == "CDC"]
    kinds = [mine[mine.settings.str.contains(kind)] for kind in VARIED]
    best = [common(kind).idxmax() for kind in kinds]
    assert best == [" ".join(settings) for settings in FACTS["variants"]["CDC"]]


def test_the_settings_of_cdcs_candidates_exist(tuning):
    cfg = plugin.default_cfg()
    for settings in recipes.candidates("CDC"):
        cfg.clone().merge_from_list(list(settings))


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory):
    """A data root for some of the digits, in all looks and colours."""
    scans = datasets.load_digits()
    scans.images, scans.target = scans.images[:300], scans.target[:300]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_digits", lambda: scans)
        yield tmp_path_factory.mktemp("few")


@pytest.mark.parametrize(
    "kind", [cls for cls in tuning_sets.DATASETS if "Folder" not in cls.__name__]
)
def test_no_test_image_is_in_a_tuning_set(kind, make_cfg, few_digits, few_shapes, tmp_path):
    root = few_shapes if "Shapes" in kind.__name__ else few_digits
    options = ["DATASET.SUBSAMPLE_CLASSES", "all", "DATASET.ROOT", str(root)]
    cfg = make_cfg("ZeroshotCLIP", tmp_path, *options)
    ours, theirs = kind(cfg), kind.__bases__[1](cfg)
    parts = [{item.impath for item in part} for part in (ours.train_x, ours.val, ours.test)]
    for part in parts:
        assert part
        assert not part & {item.impath for item in theirs.test}
    scans = [{Path(path).name for path in part} for part in parts]
    assert not scans[0] & scans[2]  # nor under another look


def test_a_folders_test_images_are_in_no_part(tmp_path, make_cfg):
    from PIL import Image

    from causalclip.datasets.folders import ImageFolder

    for name in ("ant", "bee"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for index in range(50):
            Image.new("RGB", (8, 8)).save(tmp_path / "own" / name / f"{index}.png")
    cfg = make_cfg("ZeroshotCLIP", tmp_path / "out", "DATASET.ROOT", str(tmp_path))
    cfg = cfg.clone()
    cfg.merge_from_list(["DATASET.PATH", "own", "DATASET.SUBSAMPLE_CLASSES", "all"])
    ours, theirs = tuning_sets.TuningImageFolder(cfg), ImageFolder(cfg)
    used = {item.impath for part in (ours.train_x, ours.val, ours.test) for item in part}
    assert used
    assert not used & {item.impath for item in theirs.test}
    assert not {i.impath for i in ours.train_x} & {i.impath for i in ours.test}
    assert len(ours.test) == 2 * (25 - tuning_sets.SHOTS + 10 - tuning_sets.VALIDATION)
