"""`import causalclip` is fast, has its public names, and reports missing links."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import causalclip

SOURCE = Path(causalclip.__file__)


def child(code: str, **options) -> subprocess.CompletedProcess:
    """Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


def test_importing_the_package_imports_hardly_anything():
    code = "import sys; before = {*sys.modules}; import causalclip; print({*sys.modules} - before)"
    imported = ast.literal_eval(child(code, check=True).stdout)
    assert "causalclip" in imported
    assert len(imported) < 20  # 6, and what else Python itself may need for them


@pytest.mark.parametrize("name", causalclip.__all__)
def test_every_public_name_is_there_and_listed(name):
    assert getattr(causalclip, name) is not None
    assert name in dir(causalclip)


def test_a_name_is_the_one_of_its_module():
    from causalclip.cdc.evidence import fuse

    assert causalclip.fuse is fuse


def test_type_checkers_see_the_names_that_are_there():
    tree = ast.parse(SOURCE.read_text())
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: f"causalclip.{home}" for name, home in causalclip._HOME_OF.items()}
    assert imported == homes
    assert sorted(causalclip.__all__) == sorted([*imported, "__version__"])


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'causalclip' has no attribute 'fuze'"):
        _ = causalclip.fuze


def test_the_version_is_the_installed_one_or_says_that_there_is_none(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2 of {name}")
    assert causalclip._version() == "1.2 of causalclip"
    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert causalclip._version() == "0+unknown"


@pytest.mark.parametrize("link", ["trainers", "datasets", "configs", "minidassl"])
def test_a_checkout_without_links_says_what_to_do(link, tmp_path):
    package = tmp_path / "causalclip"
    package.mkdir()
    (package / "__init__.py").write_text(SOURCE.read_text())
    (package / link).write_text(f"../{link}")  # what git writes where there are no links
    done = child("import causalclip", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert f"{package / link} must be a link to the folder {link}/" in done.stderr
    assert "git config core.symlinks true; git checkout -- causalclip" in done.stderr
    assert "pip install ." in done.stderr
