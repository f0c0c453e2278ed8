"""The rooms of causalclip have an order: a module imports from its own room and lower ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import causalclip

HERE = Path(causalclip.__path__[0])
ORDER = """
configs seeding metrics conformal files errors settings records plots
cdc icm clip data datasets engine trainers dassl_compat plugin
report runs predict page ablation checks completion __init__ cli __main__
""".split()
"""From the lowest to the highest: folders, and modules that stand alone."""


def room(module: str) -> str:
    """The first name after causalclip; `__init__` for the package itself."""
    return [*module.split("."), "__init__"][1]


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all that a tree imports, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "an import path is a file path"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def graph(*, types: bool) -> dict[str, set[str]]:
    """The modules of causalclip that each imports; without those of TYPE_CHECKING, on request."""
    files = [*HERE.glob("*.py"), *(file for name in ORDER for file in HERE.glob(f"{name}/**/*.py"))]
    names = {
        ".".join(("causalclip", *file.relative_to(HERE).with_suffix("").parts)): file
        for file in files
    }
    modules = {name.removesuffix(".__init__"): file for name, file in names.items()}
    edges = {}
    for module, file in modules.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types:
                node.body = []
        found = {name if name in modules else name.rpartition(".")[0] for name in imported(tree)}
        edges[module] = found & modules.keys() - {module}
    return edges


def test_every_room_has_a_place_in_the_order():
    assert {room(module) for module in graph(types=True)} == set(ORDER)


def test_no_module_imports_from_a_higher_room():
    upward = [
        f"{module} imports {other}"
        for module, others in graph(types=True).items()
        for other in sorted(others)
        if ORDER.index(room(other)) > ORDER.index(room(module))
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle():
    list(TopologicalSorter(graph(types=False)).static_order())  # raises CycleError
