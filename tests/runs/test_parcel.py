"""Folders as bytes: what is in them arrives whole, and nothing arrives outside."""

from __future__ import annotations

import io
import tarfile

import pytest

from causalclip.runs.lock import Busy
from causalclip.runs.parcel import deliver, packed, unpack


@pytest.fixture
def run(tmp_path):
    """A folder as a run leaves it."""
    folder = tmp_path / "there"
    (folder / "prompt").mkdir(parents=True)
    (folder / "prompt" / "model.pth.tar-1").write_bytes(bytes(range(256)))
    (folder / "results.json").write_text("{}")
    (folder / "run.lock").touch()
    return folder


def test_a_folder_arrives_as_it_was_without_its_lock(run, tmp_path):
    unpack(packed(run), tmp_path / "home")
    found = {str(p.relative_to(tmp_path / "home")) for p in (tmp_path / "home").rglob("*.*")}
    assert found == {"prompt/model.pth.tar-1", "results.json"}
    assert (tmp_path / "home/prompt/model.pth.tar-1").read_bytes() == bytes(range(256))


def test_of_a_folder_that_is_not_there_nothing_arrives(tmp_path):
    unpack(packed(tmp_path / "none"), tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_name_outside_of_the_folder_is_refused(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../elsewhere"))
    with pytest.raises(ValueError, match="must stay in its folder"):
        unpack(content.getvalue(), tmp_path / "home")
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_in_a_parcel_is_refused_and_one_in_a_folder_travels_as_its_file(run, tmp_path):
    (run / "best").symlink_to("prompt/model.pth.tar-1")
    unpack(packed(run), tmp_path / "home")
    assert (tmp_path / "home" / "best").read_bytes() == bytes(range(256))
    content, link = io.BytesIO(), tarfile.TarInfo("best")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(link)
    with pytest.raises(ValueError, match="files alone, best is none"):
        unpack(content.getvalue(), tmp_path / "other")


def test_a_cut_delivery_leaves_no_result(run, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "results.json").write_text("an old one")

    def fail(parcel, folder):
        raise OSError("no space left on device")

    monkeypatch.setattr("causalclip.runs.parcel.unpack", fail)
    with pytest.raises(OSError, match="no space"):
        deliver(packed(run), home)
    assert not (home / "results.json").exists()


def test_a_folder_at_work_takes_no_delivery(run, tmp_path, monkeypatch):
    def busy(file, how):
        raise PermissionError(13, "held")

    monkeypatch.setattr("causalclip.runs.lock.fcntl.lockf", busy)
    with pytest.raises(Busy):
        deliver(packed(run), tmp_path / "home")
