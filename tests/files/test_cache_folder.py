"""causalclip/files/caches.py: where the cache is, for users with a home folder and without."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from causalclip.files.caches import at_home, cache_home


def test_a_user_without_a_home_folder_learns_what_to_set(monkeypatch, tmp_path):
    def unknown(_number):
        raise KeyError("uid not found")

    monkeypatch.delenv("CAUSALCLIP_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_home() == Path("/home/me/.cache/causalclip")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ValueError, match="no home folder; set CAUSALCLIP_CACHE to a folder"):
        cache_home()
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(tmp_path))
    assert cache_home() == tmp_path == at_home(tmp_path, "HOME")
