"""causalclip/files/digests.py: digests next to files and at their end."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from causalclip.files.digests import (
    digest_file,
    is_vouched_for,
    is_whole,
    main,
    require_vouched_for,
    seal,
    write_digest,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    return path


def test_a_file_with_its_digest_next_to_it_is_vouched_for(file, capsys):
    assert not is_vouched_for(file)
    with pytest.raises(
        ValueError, match=r"causalclip digest .*weights\.pt > .*weights\.pt\.sha256"
    ):
        require_vouched_for(file)
    assert main([str(file)]) == 0
    digest_file(file).write_text(capsys.readouterr().out)
    require_vouched_for(file)
    assert is_vouched_for(file)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", digest_file(file).name], cwd=file.parent, check=True)
    assert main([str(file.with_name("none"))]) == 2 and "none" in capsys.readouterr().err


@pytest.mark.parametrize("digest", [b"0" * 64, b"", b"\xff\xfe", None])
def test_a_file_that_does_not_match_its_digest_is_refused(digest, file):
    write_digest(file)
    if digest is None:
        file.write_bytes(b"Weights")
    else:
        digest_file(file).write_bytes(digest)
    with pytest.raises(ValueError, match="weights.pt does not match weights.pt.sha256"):
        is_vouched_for(file)


@pytest.mark.parametrize("damage", [lambda x: x[:-1], lambda x: b"W" + x[1:], lambda x: b""])
def test_a_sealed_file_shows_damage(file, damage):
    seal(file)
    assert is_whole(file)
    assert file.read_bytes().startswith(b"weights")
    file.write_bytes(damage(file.read_bytes()))
    assert not is_whole(file)
