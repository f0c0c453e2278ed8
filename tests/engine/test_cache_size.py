"""The bound on the cache of features, and the command that shows and empties it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from causalclip.engine.cache_size import (
    entries,
    feature_home,
    features_folder,
    limit_bytes,
    main,
    others_can_write,
    trim,
)


@pytest.fixture
def folder(tmp_path):
    """Three files of 528 bytes, used at the times 1, 2 and 3."""
    folder = features_folder(tmp_path)
    folder.mkdir()
    for age in (2, 1, 3):
        path = folder / f"{age}.npy"
        np.save(path, np.zeros((10, 10), np.float32))
        os.utime(path, (age, age))
    return folder


def test_a_cache_that_others_can_write_is_said_once(folder, monkeypatch, capsys):
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(folder.parent))
    folder.chmod(0o755)
    assert feature_home() == folder.parent and not capsys.readouterr().out
    folder.chmod(0o777)
    feature_home()
    assert capsys.readouterr().out.startswith(f"Note: other users can write '{folder}'")
    feature_home()
    assert not capsys.readouterr().out
    folder.chmod(0o755)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert others_can_write(folder) == (folder.stat().st_uid != 0)


def names(folder):
    return sorted(path.stem for path in folder.glob("*.npy"))


@pytest.mark.parametrize(
    ("n_bytes", "left"), [(1584, "123"), (1583, "23"), (1056, "23"), (600, "3"), (0, "3")]
)
def test_what_was_used_least_recently_goes_first(n_bytes, left, folder):
    trim(folder, n_bytes, keep=folder / "3.npy")
    assert names(folder) == list(left)


def test_the_file_just_written_stays_and_its_size_counts(folder):
    assert trim(folder, 1100, keep=folder / "1.npy") == [folder / "2.npy"]
    assert names(folder) == ["1", "3"]


def test_files_that_are_being_written_are_let_alone(folder):
    part = folder / ".new.npy.1-aa.part"
    part.write_bytes(b"half")
    trim(folder, 0, keep=folder / "3.npy")
    assert part.exists()


def test_the_bound_is_twenty_gigabytes_or_what_the_environment_says(monkeypatch):
    monkeypatch.delenv("CAUSALCLIP_CACHE_GB", raising=False)
    assert limit_bytes() == 20e9
    monkeypatch.setenv("CAUSALCLIP_CACHE_GB", "0.5")
    assert limit_bytes() == 5e8


@pytest.mark.parametrize("value", ["much", "-1", "inf", "nan"])
def test_a_bound_that_is_no_size_is_refused(value, monkeypatch):
    monkeypatch.setenv("CAUSALCLIP_CACHE_GB", value)
    with pytest.raises(ValueError, match=f"CAUSALCLIP_CACHE_GB must be .*, got '{value}'"):
        limit_bytes()


def test_the_command_lists_what_is_kept(folder, tmp_path, capsys):
    assert main(["list", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "3 files" in said and "of 20 GB" in said
    rows = [line.split()[:3] for line in said.splitlines()[3:]]
    assert rows == [["3", "10", "10"], ["2", "10", "10"], ["1", "10", "10"]]


def test_the_command_removes_features_and_nothing_else(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "other").write_text("kept")
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(tmp_path))
    assert main(["clear"]) == 0
    assert "Removed 3 files" in capsys.readouterr().out
    assert entries(folder) == [] and (tmp_path / "other").exists()
    assert main(["list"]) == 0
    assert "0 files" in capsys.readouterr().out


def test_a_limit_that_is_no_number_is_said_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAUSALCLIP_CACHE_GB", "many")
    assert main(["list", "--folder", str(tmp_path)]) == 2
    assert "causalclip cache: error: " in capsys.readouterr().err
