"""Archives of strangers: what they may not do, and that nothing is left when they try."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalclip.files.archives import unpack

FILES = {"set/a.txt": b"a" * 3000, "set/deep/b.txt": bytes(range(256)) * 20}


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, io.BytesIO(content)


def tar_of(*entries, mode="w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, content)
    return buffer.getvalue()


def plain_tar(mode="w:gz") -> bytes:
    return tar_of(*(entry(name, content) for name, content in FILES.items()), mode=mode)


def plain_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return buffer.getvalue()


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


@pytest.mark.parametrize(
    "content",
    [plain_tar(), plain_tar("w"), plain_tar("w:xz"), plain_zip()],
    ids=["gz", "tar", "xz", "zip"],
)
def test_plain_archives_come_out_beside_what_is_there(content, tmp_path):
    archive, target = tmp_path / "archive", tmp_path / "target"
    archive.write_bytes(content)
    (target / "set").mkdir(parents=True)
    (target / "set" / "own.txt").write_bytes(b"own")
    unpack(archive, target, most_bytes=10**6)
    assert content_below(target) == {**FILES, "set/own.txt": b"own"}
    assert sorted(os.listdir(tmp_path)) == ["archive", "target"]


def test_links_that_lead_outside_by_way_of_each_other_write_nothing_there(refused, tmp_path):
    # CVE-2025-4517: a path that becomes too long for realpath hides where a link leads
    name, steps = "d" * 247, "abcdefghijklmnop"
    entries, path = [], ""
    for step in steps:
        entries.append(entry(os.path.join(path, name), kind=tarfile.DIRTYPE))
        entries.append(entry(os.path.join(path, step), kind=tarfile.SYMTYPE, link=name))
        path = os.path.join(path, name)
    chain = os.path.join("/".join(steps), "l" * 254)
    entries.append(entry(chain, kind=tarfile.SYMTYPE, link="../" * len(steps)))
    entries.append(entry("escape", kind=tarfile.SYMTYPE, link=chain + "/../../.."))
    entries.append(entry("escape/evil.txt", b"evil"))
    assert "a link or a device" in refused(tar_of(*entries))
    assert not list(tmp_path.parent.glob("evil.txt"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_what_is_no_plain_file_is_refused(kind, refused):
    content = tar_of(entry("first.txt", b"1"), entry("other", kind=kind, link="first.txt"))
    assert "must hold files and folders only, got 'other'" in refused(content)


def test_a_link_in_a_zip_is_refused(refused):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "got 'link', a link" in refused(buffer.getvalue())


def test_a_member_of_a_zip_without_a_name_is_damage(refused):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("q", b"content")
    content = bytearray(buffer.getvalue())
    entry = content.index(b"PK\x01\x02")
    content[entry + 28], content[entry + 30] = 0, 1  # the name's letter counts as an extra field
    assert "is damaged, nothing unpacked" in refused(bytes(content))


def test_a_file_in_the_place_of_another_is_refused(refused):
    assert "each file once" in refused(tar_of(entry("a", b"1"), entry("./a", b"2")))
    assert "each file once" in refused(tar_of(entry("a", b"1"), entry("a/b", b"2")))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_bomb_is_refused_by_its_size_before_it_fills_the_disk(kind, refused):
    zeros = bytes(3_000_000)
    if kind == "tar":
        content = tar_of(entry("zeros", zeros))
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", zeros)
        content = buffer.getvalue()
    assert len(content) < 10_000
    assert "must hold at most" in refused(content)


def test_a_header_that_would_fill_the_memory_is_refused(refused):
    content = tar_of(entry("h", bytes(3_000_000), kind=tarfile.XHDTYPE), entry("a", b"1"))
    assert "must be a .zip or .tar archive" in refused(content)


@pytest.mark.parametrize(
    "content",
    [plain_tar(), plain_tar("w"), plain_tar("w:xz"), plain_zip()],
    ids=["gz", "tar", "xz", "zip"],
)
def test_an_archive_cut_anywhere_is_refused(content, refused):
    for cut in sorted({1, len(content) // 3, len(content) - 5, *range(512, len(content), 2560)}):
        if content[cut:].strip(b"\0"):  # more than a tar's filling is gone
            assert refused(content[:cut])


def test_a_full_disk_is_said_with_both_names_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(plain_tar())
    with pytest.raises(OSError, match=r"No space left to unpack .*a.tar.gz into .*target; it is k"):
        unpack(archive, tmp_path / "target", most_bytes=10**6)
    assert os.listdir(tmp_path) == ["a.tar.gz"]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["gz", "zip"]))
def test_a_flipped_bit_gives_the_same_files_or_none(data, kind, tmp_path_factory):
    content = plain_tar() if kind == "gz" else plain_zip()
    place = data.draw(st.integers(0, len(content) - 1))
    folder = tmp_path_factory.mktemp("flipped")
    archive = folder / "archive"
    flipped = content[place] ^ (1 << data.draw(st.integers(0, 7)))
    archive.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    try:
        unpack(archive, folder / "target", most_bytes=10**6)
    except ValueError:
        assert os.listdir(folder) == ["archive"]
    else:  # in a time, or a name that no checksum covers
        found = {zlib.crc32(file) for file in content_below(folder / "target").values()}
        assert found <= {zlib.crc32(file) for file in FILES.values()}
