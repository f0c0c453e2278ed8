"""Untrusted archives: what they must not do, and that nothing is left when they try."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import zipfile

import pytest
from archives import entry, plain_tar, tar_of, zip_of

from causalclip.files.download import unpack

FILES = {"set/a.txt": b"a" * 3000, "set/deep/b.txt": bytes(range(256)) * 20}


def content_below(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def refused(tmp_path):
    """A function (archive's bytes, *, most_bytes) -> what is said; nothing may be left."""

    def refused(content: bytes, *, most_bytes: int = 10**6) -> str:
        archive = tmp_path / "archive"
        archive.write_bytes(content)
        with pytest.raises(ValueError) as error:
            unpack(archive, tmp_path / "target", most_bytes=most_bytes)
        assert os.listdir(tmp_path) == ["archive"]
        return str(error.value)

    return refused


every_kind = pytest.mark.parametrize(
    "content",
    [*(plain_tar(FILES, mode) for mode in ("w:gz", "w", "w:xz")), zip_of(FILES)],
    ids=["gz", "tar", "xz", "zip"],
)


@every_kind
def test_plain_archives_come_out_next_to_what_is_there(content, tmp_path):
    archive, target = tmp_path / "archive", tmp_path / "target"
    archive.write_bytes(content)
    (target / "set").mkdir(parents=True)
    (target / "set" / "own.txt").write_bytes(b"own")
    unpack(archive, target, most_bytes=10**6)
    assert content_below(target) == {**FILES, "set/own.txt": b"own"}
    assert sorted(os.listdir(tmp_path)) == ["archive", "target"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_what_is_no_plain_file_is_refused(kind, refused):
    content = tar_of(entry("first.txt", b"1"), entry("other", kind=kind, link="first.txt"))
    assert "must hold files and folders only, got 'other'" in refused(content)


@pytest.mark.parametrize("name", ["../a", "/a", "ok/../../a", "..\\a", "C:\\a"])
def test_a_name_outside_the_folder_is_refused(name, refused):
    for content in (tar_of(entry("first", b"1"), entry(name, b"2")), zip_of({"f": "", name: ""})):
        assert f"must stay in its folder, it holds {name!r}; nothing unpacked" in refused(content)


def test_a_page_in_place_of_an_archive_is_named(refused):
    assert "must be a .zip or .tar archive (" in refused(b"<html>quota exceeded</html>")


def test_a_link_in_a_zip_is_refused(refused):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    assert "got 'link', a link" in refused(zip_of({info: "/etc/passwd"}))


def test_a_member_of_a_zip_without_a_name_is_damage(refused):
    content = bytearray(zip_of({"q": b"content"}))
    entry = content.index(b"PK\x01\x02")
    content[entry + 28], content[entry + 30] = 0, 1  # the name's letter counts as an extra field
    assert "is damaged (" in refused(bytes(content))


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a", "A"), ("a", "A/b"), ("a/b", "A/c")],
)
def test_a_file_in_the_place_of_another_is_refused(first, second, refused):
    message = refused(tar_of(entry(first, b"1"), entry(second, b"2")))
    assert f"each file once, case aside, {second!r} is in another's place" in message


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_bomb_is_refused_by_its_size_before_it_fills_the_disk(kind, refused):
    zeros = bytes(3_000_000)
    content = tar_of(entry("zeros", zeros)) if kind == "tar" else zip_of({"zeros": zeros})
    assert len(content) < 10_000
    assert "must hold at most" in refused(content)


def test_a_header_that_would_fill_the_memory_is_refused(refused):
    content = tar_of(entry("h", bytes(3_000_000), kind=tarfile.XHDTYPE), entry("a", b"1"))
    assert "must be a .zip or .tar archive" in refused(content)


def test_a_full_disk_is_said_with_both_names_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(plain_tar(FILES))
    with pytest.raises(OSError, match=r"No space left to unpack .*a.tar.gz into .*target; the arc"):
        unpack(archive, tmp_path / "target", most_bytes=10**6)
    assert os.listdir(tmp_path) == ["a.tar.gz"]
