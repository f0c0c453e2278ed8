"""requirements.lock holds every dependency of the tests once for each Python, with its hashes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
ENTRIES = [entry.replace("\\\n", " ") for entry in re.split(r"\n(?=[a-z])", LOCK)[1:]]
PINS = [Requirement(entry.split("--hash")[0].strip()) for entry in ENTRIES]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def pinned(name: str, python: str) -> list[str]:
    """The versions that a Linux with this Python gets."""
    system = {"python_version": python, "python_full_version": f"{python}.0"}
    system |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    found = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(name)]
    fit = [pin for pin in found if pin.marker is None or pin.marker.evaluate(system)]
    return [str(pin.specifier).removeprefix("==") for pin in fit]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_one_version_that_pyproject_allows(python):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(line) for line in [*project["dependencies"], *extras["test"]]]
    wrong = {}
    for requirement in asked:
        if requirement.name == project["name"]:  # its own extra ray
            asked.extend(Requirement(line) for name in requirement.extras for line in extras[name])
            continue
        versions = pinned(requirement.name, python)
        if len(versions) != 1 or versions[0] not in requirement.specifier:
            wrong[str(requirement)] = versions
    assert not wrong, "run bash scripts/lock.sh"


def test_every_version_has_hashes_and_no_host_is_named():
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in ENTRIES)
    assert all(str(pin.specifier).startswith("==") for pin in PINS)
    assert "://" not in LOCK and "--" not in LOCK.replace("--hash", "")
