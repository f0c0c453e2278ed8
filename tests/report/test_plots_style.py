"""Figures as files: whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from causalclip.report.plots_style import write_figure


@pytest.mark.parametrize("suffix", ["pdf", "png", "svg"])
def test_a_figure_that_finds_no_room_is_said_and_the_old_one_stays(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a.{suffix}"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"No space left to write .*a.{suffix}"):
        write_figure(lambda figure: figure.add_subplot(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"
