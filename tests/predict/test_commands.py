"""`causalclip predict`: three formats, abstaining, broken images and mistakes."""

from __future__ import annotations

import csv
import io
import json

import pytest

from causalclip.predict.commands import predict_main

NAMES = ["zero", "one", "two", "three", "four"]


@pytest.fixture
def paths(run, recorded):
    """Three test images."""
    return recorded(run("CDC"))["path"][[0, 20, 40]].tolist()


@pytest.fixture
def call(run, capsys):
    """A function (method, *arguments) -> status, stdout, stderr."""

    def call(method, *arguments):
        folder = str(run(method))
        capsys.readouterr()  # discards the output of the training
        status = predict_main([folder, *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


def test_json_has_everything(call, paths, run, recorded):
    status, out, _ = call("CDC", *paths, "--format", "json", "--top", 2)
    rows, expected = json.loads(out), recorded(run("CDC"))
    assert status == 0 and [row["image"] for row in rows] == paths
    for row, place in zip(rows, (0, 20, 40), strict=True):
        best = expected["probabilities"][place].argsort()[::-1][:2]
        assert [one["class"] for one in row["top"]] == [NAMES[k] for k in best]
        assert row["prediction"] == NAMES[best[0]]
        assert row["conflict"] == pytest.approx(expected["conflict"][place], rel=1e-3, abs=1e-6)
        assert len(row["template"]) == 4


def test_csv_has_a_line_an_image(call, paths):
    status, out, _ = call("CoOp", *paths, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and [row["image"] for row in rows] == paths
    total = sum(float(rows[0][f"top_{k}_probability"]) for k in range(1, 6))
    assert total == pytest.approx(1, abs=1e-5)


def test_the_table_stands_in_columns(call, paths):
    status, out, _ = call("CDC", *paths)
    head, *lines = out.splitlines()
    assert status == 0 and len(lines) == 3
    start = head.index("prediction")
    assert all(line[start:].split()[0] in NAMES for line in lines)
    assert all(set(line.split()[-4:]) <= set(NAMES) for line in lines)  # one per template


def test_uncertain_answers_are_withheld(call, paths):
    _, out, _ = call("CoOp", *paths, "--format", "json")
    uncertainty = sorted(row["uncertainty"] for row in json.loads(out))
    _, out, _ = call("CoOp", *paths, "--format", "json", "--abstain", repr(uncertainty[1]))
    for row in json.loads(out):
        assert (row["prediction"] is None) == (row["uncertainty"] > uncertainty[1])
        assert row["top"][0]["class"]
    assert "(abstains)" in call("CoOp", *paths, "--abstain", 0)[1]


def test_a_risk_prints_its_threshold(call, paths, data_root):
    status, _, err = call("CoOp", *paths, "--risk", 90, "--data", data_root)
    assert status == 0
    assert "abstain above uncertainty " in err and "validation images" in err
    status, _, err = call("CoOp", *paths, "--risk", 5)
    assert status == 2 and "with --data" in err


def test_paths_come_from_a_pipe_and_names_from_a_file(call, paths, tmp_path, monkeypatch):
    names = tmp_path / "names.txt"
    names.write_text(
        "\ufeffcat\n\nsea lion\n", encoding="utf-8"
    )  # a byte-order mark, as on Windows
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(paths) + "\n\n"))
    status, out, _ = call("ZeroshotCLIP", "-", "--format", "json", "--classes", names)
    rows = json.loads(out)
    assert status == 0 and [row["image"] for row in rows] == paths
    assert {one["class"] for one in rows[0]["top"]} == {"cat", "sea lion"}


def test_broken_images_are_listed_at_the_end(call, paths, tmp_path):
    (tmp_path / "a.png").write_text("no image")
    status, out, err = call("CoOp", paths[0], tmp_path, paths[1], "--format", "json")
    assert status == 1
    assert [row["image"] for row in json.loads(out)] == paths[:2]
    assert "1 images could not be read:" in err and str(tmp_path / "a.png") in err


def test_mistakes_are_said_in_a_line(call, paths, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "utf16.txt").write_text("cat\ndog\n", encoding="utf-16")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for arguments, message in [
        ([tmp_path / "gone.png"], "no image "),
        ([tmp_path / "notes.txt"], "must be an image, .jpg"),
        ([tmp_path / "empty"], "empty: it holds no files"),
        ([paths[0], "--classes", tmp_path / "names.txt"], "there is no file"),
        (["-"], "got no path on stdin"),
        (["-", paths[0]], "stands alone"),
        ([paths[0], "--top", 0], "--top must be a positive number, got 0"),
        ([paths[0], "--classes", "cat", "cat"], "given twice: cat"),
        ([paths[0], "--classes", "cat", "<|endoftext|>dog"], "got '<|endoftext|>dog'"),
        ([paths[0], "--classes", "nams.txt"], "there is no file nams.txt"),
        ([paths[0], "--classes", tmp_path / "utf16.txt"], "utf16.txt must be UTF-8 text"),
        ([paths[0], "--abstain", "nan"], "--abstain must be an uncertainty in [0, 1], got nan"),
        ([paths[0], "--import", "no_such_module"], "no_such_module"),
    ]:
        status, out, err = call("ZeroshotCLIP", *arguments)
        last = err.splitlines()[-1]
        assert status == 2 and last.startswith("causalclip predict: error: ")
        assert message in last and not out.strip("[]\n")
