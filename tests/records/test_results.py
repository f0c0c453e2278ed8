"""results.json and predictions.npz: writing, reading, and errors that name damaged files."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from dassl.config import get_cfg_default

from causalclip import plugin
from causalclip.records.predictions import Predictions
from causalclip.records.results import (
    Result,
    peak_memory_mb,
    reset_peak_memory,
    result_in,
    run_record,
)

FACTS = {"trainer": "CDC", "backbone": "tiny", "dataset": "Set", "seed": 3, "shots": 16}
FACTS |= {"metrics": {"accuracy": 50.0, "n": 4}}
FILE = {**FACTS, "schema": 2}
TRAINED_ON = {"dataset": "Set", "shots": 16, "seed": 1, "subsample_classes": "all"}
TRAINED_ON |= {"source_domains": [], "classnames": ["a"]}


@pytest.fixture
def read(tmp_path):
    """Read a results.json that holds the record, or the text."""

    def read(content):
        path = tmp_path / "results.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return Result.read(path)

    return read


def test_what_is_written_is_read(tmp_path):
    result = Result(
        **FACTS,
        protocol="xd",
        config_name="m4",
        trained_on=TRAINED_ON,
        variants={"averaging": {"accuracy": 40.0}},
        variant_parts={"averaging": {"heldout": {"accuracy": 30.0}}},
        identity="0f",
        versions={"torch": None},
    )
    assert Result.read(result.write(tmp_path)) == result


def test_a_number_that_is_not_finite_is_null_in_the_file_and_nan_when_read(tmp_path):
    metrics = {"accuracy": np.float32(50), "aurc": math.inf, "nll": math.nan}
    path = Result(**{**FACTS, "metrics": metrics}).write(tmp_path)
    assert json.loads(path.read_text())["metrics"] == {"accuracy": 50, "aurc": None, "nll": None}
    found = Result.read(path).metrics
    assert found["accuracy"] == 50
    assert math.isnan(found["aurc"])
    assert math.isnan(found["nll"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ('{"schema": 2, "trainer": "C', "cut or damaged, not JSON: Unterminated string"),
        ("[1]", "must be a JSON object, got a list"),
        ("{}", '"schema" must be 2, got None: the file is of another version'),
        ({**FACTS, "schema": 99}, '"schema" must be 2, got 99'),
        ({"schema": 2, "trainer": "CDC"}, "lacks backbone, dataset, seed, shots, metrics"),
        ({**FILE, "seed": "1"}, "seed must be of type int, got '1'"),
        (
            {**FILE, "metrics": {"accuracy": "high"}},
            r"metrics must be of type dict\[str, float\], got {'accuracy': 'high'}",
        ),
        ({**FILE, "metrics": {"ece": 1.0}}, r"metrics lacks accuracy, got \['ece'\]"),
        ({**FILE, "trained_on": {"dataset": "Set"}}, "trained_on must be of type .*TrainedOn"),
        ({**FILE, "trainer": "\x1b[2J"}, r"trainer must be printed text, got '\\x1b"),
        ({**FILE, "members": {"t": [{}]}}, r"members\.t lacks accuracy"),
        ({**FILE, "metrics": {"accuracy": 101.0}}, "accuracy of metrics must be per cent, got 101"),
        ({**FILE, "shots": 10**25}, "shots must be at most 1,000,000,000"),
        ({**FILE, "training": {"seconds": "long"}}, "training.seconds must be"),
        ({**FILE, "training": {"curve": {"epoch": [1]}}}, "training.curve must hold"),
        ("[" * 200_000, "cut or damaged, not JSON: it is nested too deeply"),
    ],
)
def test_an_empty_cut_or_malformed_file_is_named_with_what_is_wrong(read, content, said, tmp_path):
    with pytest.raises(ValueError, match=f"^{tmp_path}/results.json: {said}"):
        read(content)


def test_keys_of_others_are_left_out(read):
    assert read({**FILE, "note": "mine"}) == Result(**FACTS)


def test_a_run_records_what_its_configuration_says(tmp_path):
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.merge_from_list(["TRAINER.NAME", "CDC", "DATASET.NAME", "Set", "DATASET.NUM_SHOTS", "4"])
    cfg.SEED = 1
    record = run_record(cfg, classnames=["a", "b"], split="val")
    result = Result.read(Result.of_record({**record, "metrics": {"accuracy": 1.0}}).write(tmp_path))
    assert (result.trainer, result.dataset, result.shots, result.split) == ("CDC", "Set", 4, "val")
    assert result.config["DATASET"]["NUM_SHOTS"] == 4
    assert result.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert result_in(tmp_path).trained() == {**TRAINED_ON, "shots": 4, "classnames": ["a", "b"]}
    assert result_in(tmp_path / "elsewhere") is None


def test_the_facts_of_an_evaluation_are_those_of_the_training_it_loaded(tmp_path):
    Result(**FACTS, trained_on=TRAINED_ON, subsample_classes="new").write(tmp_path)
    assert result_in(tmp_path).trained() == TRAINED_ON


def test_reading_and_printing_tables_load_no_torch_and_no_dassl(tmp_path):
    path = Result(**FACTS).write(tmp_path)
    code = (
        "import sys; from causalclip.records.results import Result\n"
        f"Result.read({str(path)!r})\n"
        "print([name for name in ('torch', 'dassl', 'pandas') if name in sys.modules])\n"
        f"from causalclip.report import summarize; summarize.main([{str(tmp_path)!r}])\n"
        "print([name for name in ('torch', 'dassl') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("[]", "[]")


# Predictions


def test_predictions_are_read_as_they_were_written(tmp_path):
    arrays = {
        "path": np.array(["a.png", "b.png"]),
        "probabilities": np.array([[0.5, 0.5], [0.1, 0.9]], dtype=np.float32),
        "uncertainty": np.array([1e-69, 3e-62]),  # in fp32 both are 0
        "averaging/probabilities": np.ones((2, 2)) / 2,
        "averaging/uncertainty": np.array([0.2, 0.3]),
    }
    found = Predictions.read(Predictions(arrays).write(tmp_path))
    assert found.readings() == ["averaging"]
    assert list(found.arrays["path"]) == ["a.png", "b.png"]
    assert list(found.uncertainty()) == [1e-69, 3e-62]
    assert list(found.uncertainty("averaging")) == [0.2, 0.3]
    assert found.probabilities().dtype == np.float32


def test_arrays_of_different_lengths_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="got {'label': 2, 'prediction': 3}"):
        Predictions({"label": np.zeros(2), "prediction": np.zeros(3)}).write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_reading_that_is_not_there_is_refused_with_the_file_and_what_it_holds(tmp_path):
    path = Predictions({"uncertainty": np.zeros(2)}).write(tmp_path)
    message = f"^{path}: no dempster/uncertainty, there are uncertainty$"
    with pytest.raises(ValueError, match=message):
        Predictions.read(path).uncertainty("dempster")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive", b"\x80\x04N."])
def test_damaged_predictions_are_named(tmp_path, content):
    (tmp_path / "predictions.npz").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/predictions.npz: cut or damaged"):
        Predictions.read(tmp_path / "predictions.npz")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"label": np.int64(3)}, "label must be of kind i or u and 1 dimensions"),
        ({"label": np.array(["a", "b"])}, "label must be of kind"),
        ({"label": np.zeros(2)}, "label must be of kind"),
        ({"path": np.array([["a"], ["b"]])}, "path must be of kind U and 1 dimensions"),
        ({"probabilities": np.zeros(2)}, "probabilities must be of kind f and 2 dim"),
        ({"averaging/uncertainty": np.zeros((2, 2))}, "averaging/uncertainty must be"),
        ({"template_probabilities": np.zeros((2, 2))}, "template_probabilities must .* 3 dim"),
        ({"label": np.zeros(3, int)}, "one row a test image"),
        ({"uncertainty": np.array([0.1, None])}, "kind"),
        ({"x": np.zeros((2, 2**24))}, "it holds 268,43.* more than predictions can"),
    ],
)
def test_arrays_of_another_kind_rank_or_size_are_refused_before_they_are_read(
    tmp_path, changed, reason
):
    path = tmp_path / "predictions.npz"
    arrays = {"path": np.array(["a", "b"]), "label": np.array([0, 1])}
    arrays |= {"probabilities": np.ones((2, 2)) / 2, "uncertainty": np.zeros(2)}
    np.savez_compressed(path, **arrays | changed)
    with pytest.raises(ValueError, match=f"^{path}: cut or damaged: .*{reason}"):
        Predictions.read(path)


def test_a_declared_size_and_a_pipe_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "predictions.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("uncertainty.npy", header.getvalue() + bytes(8))
    with pytest.raises(ValueError, match=r"float64 of shape \(1000000000000,\) in 8 bytes"):
        Predictions.read(path)
    for name, read in (("results.json", Result.read), ("predictions.npz", Predictions.read)):
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} must be a regular file, got a pipe"):
            read(tmp_path / name)
    (tmp_path / "results.json").unlink()
    (tmp_path / "results.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="must be a regular file"):
        Result.read(tmp_path / "results.json")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a peak be forgotten")
def test_a_peak_of_memory_is_that_since_it_was_reset():
    ballast = b"x" * (256 << 20)
    before = peak_memory_mb(torch.device("cpu"))
    del ballast
    reset_peak_memory()
    assert peak_memory_mb(torch.device("cpu")) < before - 200
