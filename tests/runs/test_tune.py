"""A search chooses on training and validation images alone, resumes, and writes a recipe."""

from __future__ import annotations

import shutil
import sys

import pytest

pytest.importorskip("optuna")

from dassl.data.datasets import build_dataset

from causalclip.data.split_set import without_test_images
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.records.searches import read_search
from causalclip.runs import trials as trials_module
from causalclip.runs import tune
from causalclip.runs.configuration import cfg_from, trainer_class
from causalclip.runs.recipes import CONFIGS, methods, recipes_of
from causalclip.settings.check import flatten
from causalclip.settings.search import Choice, Shares

OPENED = None


def note_opened(event, arguments):
    if OPENED is not None and event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(note_opened)  # sees every file that Python opens


@pytest.fixture(scope="module")
def photos(data_root, tmp_path_factory):
    """train/, val/ and test/ of three classes; the test images are no images."""
    folder = tmp_path_factory.mktemp("tune") / "photos"
    for name in ("zero", "one", "two"):
        images = sorted((data_root / "handwritten_digits").glob(f"**/{name}/*.png"))[:8]
        for part, chosen in (("train", images[:2]), ("val", images[2:6]), ("test", images[6:])):
            (folder / part / name).mkdir(parents=True)
            for image in chosen:
                shutil.copy(image, folder / part / name)
    for image in folder.glob("test/*/*.png"):
        image.write_bytes(b"no image")
    return folder


@pytest.fixture
def search(photos, random_clip, tmp_path, runs_here):
    """Run `causalclip tune` on the photos; return its status."""

    def run(*words, method="CoOp", data=(photos,), seeds=("11",)):
        datasets = ("--datasets", *map(str, data), "--backbone", random_clip, "--recipe", "tiny")
        fast = ("OPTIM.MAX_EPOCH", "1", "USE_CUDA", "False")
        output = ("--shots", "all", "--output", str(tmp_path), "--seeds", *seeds)
        return tune.main([method, *datasets, *output, *words, *fast])

    return run


def recipe_in(folder):
    (path,) = folder.glob("**/tuned_*.yaml")
    return path


def test_test_images_are_never_opened_and_the_recipe_says_where_it_comes_from(
    search, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys.modules[__name__], "OPENED", opened := [])
    assert search("--trials", "2") == 0
    pictures = {path.split("/")[-3] for path in opened if path.endswith(".png")}
    assert pictures == {"train", "val"}
    recipe = recipe_in(tmp_path)
    text = recipe.read_text()
    assert "Seeds: 11" in text
    assert "the recipe" in text
    assert "OPTIM.LR" in text  # of the second trial
    cfg = cfg_from([recipe], [])
    assert cfg.OPTIM.MAX_EPOCH == 1
    assert cfg.TRAINER.COOP.CTX_INIT == "a photo of a"
    assert not list(tmp_path.glob("**/results.json"))  # which tables would read
    record = read_search(recipe.with_name("search.json"))
    assert record["result"] == recipe.name
    first, second = record["trials"]
    assert (first["end"], first["settings"]) == ("complete", {})
    assert f"OPTIM.LR {second['settings']['OPTIM.LR']}" in text
    assert f"{first['score']:.2f}  the recipe" in text


def test_the_same_command_resumes_and_another_search_is_refused(
    search, tmp_path, monkeypatch, capsys
):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trials_module, "score", stopped)
        assert search("--trials", "2") == 130
    monkeypatch.setattr(trials_module, "score", lambda search, chosen, *_: 50 + len(chosen))
    assert search("--trials", "2") == 0
    assert search("--trials", "3") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "best" not in line]
    scores = [words[1] for words in lines if words[0].isdigit()]
    assert scores == ["50.00", "51.00", "51.00"]  # the recipe was tried again
    assert search("--trials", "3", "OPTIM.NAME", "adam") == 2
    assert "OPTIM.NAME is 'sgd' there, 'adam' here" in capsys.readouterr().err


def test_a_trial_that_is_worse_than_the_median_ends_early_and_a_nan_ends_one_alone(
    search, monkeypatch, capsys, tmp_path
):
    begun = []

    def score(search, chosen, folder, report):
        begun.append(chosen)
        if len(begun) == 2:
            raise FloatingPointError("the loss is NaN")
        for _ in range(3):
            report(60.0 - 10 * (len(begun) == 7))
        return 60.0

    monkeypatch.setattr(trials_module, "score", score)
    assert search("--trials", "7") == 0
    said = capsys.readouterr().out
    assert said.count("60.00") == 5 + 1  # and as the best
    assert said.count("pruned") == 1
    assert said.count("fail  OPTIM.LR") == said.count("the loss is NaN") == 1
    trials = read_search(recipe_in(tmp_path).with_name("search.json"))["trials"]
    assert [trial["end"] for trial in trials[1:]].count("the loss is NaN") == 1
    (pruned,) = [trial for trial in trials if trial["end"] == "pruned"]
    assert pruned["score"] == 50.0  # the last that was reported


def test_half_of_the_base_classes_stands_for_new_ones(make_cfg, tmp_path):
    parts = {}
    for part in ("base", "new"):
        cfg = make_cfg("CoOp", tmp_path, "DATASET.SUBSAMPLE_CLASSES", part)
        with without_test_images("HandwrittenDigits"):
            parts[part] = build_dataset(cfg)
        assert {item.impath for item in parts[part].val} >= {i.impath for i in parts[part].test}
    assert parts["base"].classnames == ["zero", "one", "two"]
    assert parts["new"].classnames == ["three", "four"]
    whole = build_dataset(cfg)
    tested = {item.impath for item in whole.test}
    assert not tested & {item.impath for part in parts.values() for item in part.val}


def test_base2new_trains_one_half_and_scores_both(search, data_root, tmp_path):
    words = ("--data", str(data_root), "--protocol", "base2new", "--trials", "1", "--shots", "2")
    digits = ("TRAINER.COOP.N_CTX", "4")
    assert search(*words, *digits, data=["handwritten_digits"]) == 2  # six validation images
    words = (*words[:-1], "4")
    assert search(*words, *digits, data=["handwritten_digits"]) == 0
    assert "HM of held-out classes" in recipe_in(tmp_path).read_text()


@pytest.mark.parametrize(
    ("method", "words", "said"),
    [
        ("ZeroshotCLIP", (), "ZeroshotCLIP has no settings to choose"),
        ("CoOp", ("OPTIM.LR", "0.002"), "CoOp has no settings to choose"),
        ("CoOp", ("--seeds", "11", "2"), "--seeds must not be of the tables', 1 to 5, got 2"),
        ("CoOp", ("--trials", "0"), "--trials must be positive, got 0"),
        ("CoOp", ("--minutes", "nan"), "--minutes must be positive, got nan"),
        ("CoOpp", (), "unknown trainer CoOpp; known: "),
        ("CoOp", ("--minutes", "1e-9"), "no trial ended with a score"),
        ("CoOp", ("--shots", "none"), "--shots must be a positive number or all, got none"),
        ("CoOp", ("--shots", "2"), "needs 10 validation images or more, photos has 6"),
        ("CoOp", ("--protocol", "base2new"), "needs 4 of them or more, got 2"),
        ("TipAdapterF", ("--protocol", "base2new"), "TipAdapterF cannot name new classes"),
        ("CoOp", ("OPTIM.RATE", "1"), "no setting OPTIM.RATE"),
    ],
)
def test_what_cannot_be_searched_is_named_in_a_line(search, method, words, said, capsys):
    assert search(*words, method=method) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_without_optuna_it_says_what_to_install(search, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert search() == 2
    assert "pip install 'causalclip[tune]'" in capsys.readouterr().err


@pytest.mark.parametrize("method", methods())
def test_the_ends_of_every_search_space_are_settings_of_the_method(method):
    kind, name = trainer_class(method), recipes_of(method).tiny
    cfg = cfg_from([CONFIGS / "trainers" / method / f"{name}.yaml"], [])
    cfg.TRAINER.NAME = method
    assert ("OPTIM.LR" in kind.search_space) >= issubclass(kind, PromptTrainer)
    if not kind.search_space:
        return
    for words, values in trials_module.space_of(kind, cfg, fixed={}).items():
        ends = values.values if isinstance(values, Choice) else (values.low, values.high)
        for end in ends:
            tried, pairs = cfg.clone(), [word for key in words.split() for word in (key, end)]
            tried.merge_from_list(pairs)
            assert dict(flatten(tried))[words.split()[0]] == end
            if hasattr(kind, "check_cfg"):
                kind.check_cfg(kind.__new__(kind), tried)


def test_shares_of_a_depth_are_blocks_of_the_recipe():
    assert Shares((0.25, 0.5, 1.0)).of(9).values == (2, 4, 9)
    assert Shares((0.25, 0.5, 1.0)).of(1).values == (1,)


@pytest.mark.usefixtures("registry_as_before")
def test_a_method_of_your_own_is_tuned(search, tmp_path, monkeypatch, capsys):
    code = (
        "from causalclip.trainers.coop import CoOp\n\nclass Own(CoOp):\n    config_node = 'OWN'\n"
    )
    (tmp_path / "own_tuned.py").write_text(code)
    (tmp_path / "own.yaml").write_text("OPTIM: {LR: 0.001}\n")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = ("--recipe", str(tmp_path / "own.yaml"), "--trials", "1")
    assert search("--import", "own_tuned", *recipe, method="Own") == 0
    assert "Own from the recipe own, choosing OPTIM.LR" in capsys.readouterr().out
    assert search("--import", "no_such", *recipe, method="Own") == 2
    assert "--import no_such: No module named 'no_such'" in capsys.readouterr().err
