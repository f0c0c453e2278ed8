"""States of a run's folder: empty, its result, a stale one, or another run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from causalclip.errors import UserError
from causalclip.records.identity import Identity, model_digest, write_run
from causalclip.runs import perform, state
from causalclip.runs.configuration import planned_settings
from causalclip.runs.plan import Run, plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.request import Request
from causalclip.runs.state import State, data_of, state_of


@pytest.fixture
def pair(tmp_path):
    """A training and its test, planned below a fresh folder, without data."""
    request = Request(
        PROTOCOLS["base2new"],
        ("CoOp",),
        ("handwritten_digits",),
        output=tmp_path / "out",
        data=tmp_path / "nowhere",
    )
    return plan(request, list)


def leave(run, result='{"metrics": {"accuracy": 50.0}}', data=None, **changed):
    """Write what a finished run leaves in its folder."""
    settings = {**planned_settings(run.arguments), **changed}
    model = model_digest(run.trained) if run.trained else None
    write_run(run.folder, Identity(settings, model=model, data=data), {})
    (run.folder / "results.json").write_text(result)


def learn(folder: Path, numbers: str) -> None:
    path = folder / "prompt_learner" / "model.pth.tar-1"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(numbers)


def test_a_folder_is_to_run_then_finished(pair):
    train, _ = pair
    assert state_of(train) is State.TO_RUN
    leave(train)
    assert state_of(train) is State.FINISHED


@pytest.mark.parametrize("result", ["", '{"metrics": ', "null"])
def test_an_empty_or_cut_result_is_not_finished(pair, result):
    train, _ = pair
    leave(train, result)
    assert state_of(train) is State.TO_RUN


def test_a_test_is_stale_once_its_training_was_done_again(pair):
    train, test = pair
    leave(train)
    learn(train.folder, "first")
    leave(test)
    assert state_of(test) is State.FINISHED
    learn(train.folder, "second")
    assert state_of(test) is State.STALE


def test_a_folder_with_other_settings_is_neither_skipped_nor_overwritten(pair):
    train, _ = pair
    leave(train, **{"OPTIM.MAX_EPOCH": 99})
    assert "holds another run" in state_of(train)
    with pytest.raises(UserError, match=r"holds another run: OPTIM.MAX_EPOCH is 99 there, \d+ he"):
        perform.check_free(pair)


@pytest.fixture
def on_pictures(tmp_path):
    """A function () -> a finished run on pictures of two classes, as a new process plans it."""
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            for index in range(3):
                path = tmp_path / "mine" / part / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path)
    words = f"--root {tmp_path} --output-dir {tmp_path / 'out'} --seed 1 --trainer CoOp"
    words += " DATASET.NAME ImageFolder DATASET.PATH mine DATASET.NUM_SHOTS 2"
    planned = Run("train", tmp_path / "out", tuple(words.split()))

    def make():
        state._digests.clear()  # as in another process
        return planned

    run = make()
    leave(run, data=data_of(run))
    return make


def test_a_finished_run_on_data_that_have_changed_is_refused_by_name(on_pictures, tmp_path):
    assert state_of(on_pictures()) is State.FINISHED
    (tmp_path / "mine/test/ant/0.png").write_bytes((tmp_path / "mine/test/ant/1.png").read_bytes())
    run = on_pictures()
    assert "holds a run on other" in state_of(run)
    said = f"{run.folder} holds a run on other data: the images or labels of test in"
    with pytest.raises(UserError, match=said):
        perform.check_free([run])


def test_a_data_set_of_an_imported_module_is_known_to_the_command_that_plans(
    on_pictures, tmp_path, monkeypatch
):
    (tmp_path / "my_pictures.py").write_text(
        "from causalclip.datasets.folders import ImageFolder\n"
        "from dassl.data.datasets import DATASET_REGISTRY\n"
        "@DATASET_REGISTRY.register(force=True)\nclass MyPictures(ImageFolder):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ("--import", "my_pictures", *on_pictures().arguments, "DATASET.NAME", "MyPictures")
    assert data_of(Run("train", tmp_path / "out", arguments))


def test_data_are_built_once_for_all_runs_on_the_same(on_pictures, monkeypatch):
    run, count = on_pictures(), []
    monkeypatch.setattr(
        "causalclip.engine.data.build_dataset",
        lambda cfg, build=_build: count.append(1) or build(cfg),
    )
    others = [replace(run, arguments=(*run.arguments, "OPTIM.LR", str(lr))) for lr in (0.1, 0.2)]
    assert len({str(data_of(each)) for each in (run, *others)}) == 1
    assert count == [1]


def _build(cfg):
    from dassl.data.datasets import DATASET_REGISTRY

    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)


@pytest.mark.parametrize("content", ["[]", '{"schema": 99}'])
def test_a_damaged_run_file_is_named_and_a_plan_stops_at_it(content, pair):
    train, _ = pair
    train.folder.mkdir(parents=True)
    (train.folder / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json"):
        state_of(train)
    with pytest.raises(UserError, match=r"run\.json.*choose another --output"):
        perform.check_readable([train])
