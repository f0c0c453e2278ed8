"""Digests beside files."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from causalclip.files.digests import beside, is_vouched_for, require_vouched_for, write_digest


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    return path


def test_a_file_with_its_digest_beside_it_is_vouched_for(file):
    assert not is_vouched_for(file)
    write_digest(file)
    assert is_vouched_for(file)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", beside(file).name], cwd=file.parent, check=True)


@pytest.mark.parametrize("said", [b"0" * 64, b"", b"\xff\xfe", None])
def test_a_file_that_is_not_what_its_digest_says_is_refused(said, file):
    write_digest(file)
    if said is None:
        file.write_bytes(b"Weights")
    else:
        beside(file).write_bytes(said)
    with pytest.raises(ValueError, match="weights.pt is not what weights.pt.sha256 beside it says"):
        is_vouched_for(file)


def test_without_a_digest_it_is_said_how_to_vouch(file):
    with pytest.raises(ValueError, match="sha256sum weights.pt > weights.pt.sha256"):
        require_vouched_for(file)
    write_digest(file)
    require_vouched_for(file)
