"""Makes examples/digits.ipynb of examples/digits.py, with what its cells print and show.

python scripts/example_notebook.py     (needs the extra `test`: nbclient and ipykernel)
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"


def cells_of(script: str) -> list[nbformat.NotebookNode]:
    """The cells that `# %%` lines divide a script into; `# %% [markdown]` ones are comments."""
    cells = []
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, body = part.partition("\n")
        if "[markdown]" in kind:
            text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            cells.append(nbformat.v4.new_markdown_cell(text))
        else:
            cells.append(nbformat.v4.new_code_cell(body.strip()))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # else a random one each time
    return cells


def notebook_of(script: str) -> nbformat.NotebookNode:
    """The notebook of a script, not executed."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells_of(script), metadata=kernel)


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in `folder`; without times.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell that fails.
    """
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, resources=resources, record_timing=False).execute()
    return without_bars(notebook)


def without_bars(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without stderr, where progress bars are."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    made = executed(notebook_of((EXAMPLES / "digits.py").read_text()), EXAMPLES.parent)
    nbformat.write(made, EXAMPLES / "digits.ipynb")
