"""Make examples/digits.ipynb from examples/digits.py, with the outputs of its cells.

python scripts/example_notebook.py     (needs the extra `notebook`)
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"
EXAMPLES = Path(__file__).parents[1] / "examples"


def cells_of(script: str) -> list[nbformat.NotebookNode]:
    """Return the cells between `# %%` lines; those of `# %% [markdown]` are comments."""
    cells = []
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, body = part.partition("\n")
        if "[markdown]" in kind:
            text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            cells.append(nbformat.v4.new_markdown_cell(text))
        else:
            cells.append(nbformat.v4.new_code_cell(body.strip()))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # the default is random: each call would change the file
    return cells


def notebook_of(script: str) -> nbformat.NotebookNode:
    """Return the notebook of a script, not executed."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells_of(script), metadata=kernel)


def executed(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run the notebook in `folder`; return it with its outputs, without execution times.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell that fails.
    """
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, resources=resources, record_timing=False).execute()
    return without_bars(notebook)


def without_bars(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove stderr and widgets, which show progress bars; return the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("name") != "stderr" and WIDGET not in output.get("data", ())
            ]
    return notebook


if __name__ == "__main__":
    made = executed(notebook_of((EXAMPLES / "digits.py").read_text()), EXAMPLES.parent)
    nbformat.write(made, EXAMPLES / "digits.ipynb")
