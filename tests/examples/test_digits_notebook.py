"""The example: script and notebook are one, and it runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "examples" / "digits.py").read_text()


@pytest.fixture(scope="module")
def maker():
    """scripts/example_notebook.py as a module."""
    path = ROOT / "scripts" / "example_notebook.py"
    spec = importlib.util.spec_from_file_location("example_notebook", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sources(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_the_notebook_is_the_script_with_its_outputs(maker):
    kept = nbformat.read(ROOT / "examples" / "digits.ipynb", as_version=4)
    assert sources(kept) == sources(maker.notebook_of(SCRIPT))
    outputs = [output for cell in kept.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not any(output.output_type == "error" for output in outputs)
    assert str(Path.home()) not in nbformat.writes(kept)


@pytest.fixture
def shorter() -> str:
    """The script with one epoch for twenty."""
    assert SCRIPT.count("settings=BASE,") == 1
    return SCRIPT.replace("settings=BASE,", 'settings={**BASE, "OPTIM.MAX_EPOCH": 1},')


@pytest.mark.slow
def test_the_notebook_runs_to_its_end(maker, shorter, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(data_root))
    monkeypatch.setenv("OUTPUT", str(tmp_path))
    done = maker.executed(maker.notebook_of(shorter), tmp_path)
    printed = "".join(
        output.text
        for cell in done.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert "CDC   accuracy on base classes" in printed
    assert "abstain above uncertainty" in printed
    assert (tmp_path / "risk_coverage.png").is_file()
