"""`causalclip data`: the list, the checks, and downloads by name."""

from __future__ import annotations

from dataclasses import replace as shrunk

import pytest
import replicas

from causalclip.data import catalogue
from causalclip.data.catalogue import BUNDLED, CATALOGUE
from causalclip.data.command import main


def test_the_list_has_a_row_for_every_set_with_licence_and_source(tmp_path, capsys):
    replicas.eurosat(tmp_path)
    assert main(["--root", str(tmp_path), "list"]) == 0
    table = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in table if line}
    for name, facts in CATALOGUE.items():
        assert facts.licence in rows[name] and facts.page in rows[name]
    assert rows["EuroSAT"].endswith("yes") and rows["Food101"].endswith("no")
    assert rows["HandwrittenDigits"].endswith("on first use")


@pytest.mark.parametrize("command", [["list"], ["check", "all"], ["missing", "dtd"]])
def test_a_root_that_is_no_folder_is_said(monkeypatch, tmp_path, capsys, command):
    monkeypatch.setenv("DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 2
    assert f"{tmp_path / 'nowhere'} is not a folder (DATA, or --root)" in capsys.readouterr().err


def test_missing_names_what_is_known_to_be_absent(tmp_path, capsys):
    replicas.eurosat(tmp_path)
    names = ["eurosat", "food101", "SUN397", "food101", "handwritten_digits", "my_own"]
    assert main(["--root", str(tmp_path), "missing", *names]) == 0
    assert capsys.readouterr().out.split() == ["food101", "SUN397"]


def test_without_a_root_the_list_still_comes_and_checks_say_what_to_set(monkeypatch, capsys):
    monkeypatch.delenv("DATA", raising=False)
    assert main(["list"]) == 0
    assert "DATA is not set" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["check", "all"])
    assert "set DATA to the folder of all data sets" in capsys.readouterr().err


def test_counts_that_differ_from_the_published_are_named(load, tmp_path, capsys):
    replicas.caltech101(tmp_path)
    load("Caltech101", tmp_path)
    assert main(["--root", str(tmp_path), "check", "Caltech101"]) == 1
    said = capsys.readouterr().out
    assert "5 classes, published 100" in said and "test images, published 2,465" in said
    assert "data download Caltech101" in said


def test_check_all_passes_over_absent_sets(tmp_path, capsys):
    assert main(["--root", str(tmp_path), "check", "all"]) == 0
    assert "Food101: not present" in capsys.readouterr().out


@pytest.mark.parametrize("name", [facts.name for facts in BUNDLED])
def test_a_set_that_is_not_drawn_yet_is_said_to_be_absent_and_is_no_fault(tmp_path, capsys, name):
    assert main(["--root", str(tmp_path), "check", name, "--decode"]) == 0
    assert capsys.readouterr().out == f"{name}: not present (drawn on first use)\n"


def test_a_damaged_drawn_set_is_to_be_removed_not_downloaded(drawn, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(catalogue.CATALOGUE, drawn.name, shrunk(drawn, pictures=6))
    assert main(["--root", str(tmp_path), "check", drawn.name]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{drawn.name}: not as drawn")
    assert f"Remove {tmp_path / drawn.folder} to have it drawn again" in said
    assert "download" not in said


def test_a_drawn_set_is_not_downloaded_and_leaves_no_empty_folder(tmp_path, capsys):
    assert main(["--root", str(tmp_path), "download", "CausalShapes"]) == 0
    assert "nothing to download" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_command_downloads_by_name_only_and_reports_what_is_left(
    food, monkeypatch, tmp_path, capsys, drive, server
):
    monkeypatch.setitem(catalogue.CATALOGUE, "Food101", food)
    assert main(["--root", str(tmp_path), "download", "food101", "--trust"]) == 0
    assert "2 of 2 files" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["food-101"]
    drive.clear()
    assert main(["--root", str(tmp_path), "download", "StanfordCars"]) == 1
    said = capsys.readouterr().out
    assert "By hand: The owner's links are dead" in said and "0 of 1 files" in said
    assert main(["--root", str(tmp_path), "download", "MNIST"]) == 2
