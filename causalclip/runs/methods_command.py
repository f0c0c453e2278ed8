"""The command `causalclip methods`: tables of methods and settings, and their pages in docs/."""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from causalclip.errors import UserError, prints_errors, unknown
from causalclip.report.published_figures import load_figures
from causalclip.runs.flags import add_imports
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import CONFIGS, names, recipes_of
from causalclip.settings.table import SETTINGS, TOOLKIT, Setting

_EXAMPLES = """examples:
  causalclip methods
  causalclip methods --settings CDC
  causalclip methods --import my_method
  causalclip methods --format markdown > docs/methods.md
  causalclip methods --format markdown --settings > docs/settings.md
"""
PAPERS = (r"arXiv \d{4}\.\d{5}", r"[A-Z]\w+ 20\d\d")  # arXiv, or a conference and its year
PAGE = """# Methods

`causalclip methods` prints this table. A method's idea and paper are in the docstring of its
module in `trainers/`, its recipes in `configs/trainers/METHOD/`. HM is the published harmonic mean
of base and new classes over eleven data sets (`causalclip/report/published_figures.yaml` has the
sources). [backbones.md](backbones.md) has the tests of each backbone, [method.md](method.md) what
is the papers' and what is ours.
"""

SETTINGS_PAGE = """# Settings

`causalclip methods --settings` prints this reference, with a METHOD its own settings only. Set a
value in a configuration file, or as `KEY VALUE` at the end of a command. A default of `-` is
Dassl's. A setting with a reason under "same result" may differ between runs of one result.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    p = argparse.ArgumentParser(
        description="List methods (idea, paper, backbones, protocols, recipes) or settings.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--settings",
        nargs="?",
        const="",
        metavar="METHOD",
        help="print the settings of a method; without METHOD, all settings",
    )
    p.add_argument("--format", choices=("table", "markdown"), default="table")
    add_imports(p)
    return p


def method_classes() -> list[type]:
    """Return the registered methods of causalclip and of imported modules, sorted by name."""
    from causalclip import plugin  # imports torch: --help should not

    # isort: split
    from dassl.engine import TRAINER_REGISTRY

    plugin.register_all()
    kinds = [
        kind for kind in plugin.registered(TRAINER_REGISTRY) if hasattr(kind, "settings_table")
    ]
    return sorted(kinds, key=lambda kind: kind.__name__.lower())


def rows() -> list[dict[str, str]]:
    """Return a row for each method."""
    return [_row(kind) for kind in method_classes()]


def _row(kind: Any) -> dict[str, str]:
    from causalclip.runs.configuration import cfg_from

    method = kind.__name__
    text = " ".join((sys.modules[kind.__module__].__doc__ or "").split())
    papers = [name for pattern in PAPERS for name in re.findall(pattern, text)]
    idea = re.split(r" \(|\. |\.$", text.partition(": ")[2])[0]
    recipes = names(f"trainers/{method}")
    files = [CONFIGS / "trainers" / method / f"{recipes_of(method).tiny}.yaml"] if recipes else []
    named_by_text = kind.knows_other_classes(cfg_from(files, ()).TRAINER[kind.config_node])
    protocols = [
        protocol.name
        for protocol in PROTOCOLS.values()
        if named_by_text or not any(part.other_classes for part in protocol.parts)
    ]
    _, figures = load_figures("base2new").get(method, ("", {}))
    mean = figures.get(("average", "HM"))
    return {
        "method": method,
        "idea": idea,
        "paper": papers[0] if papers else "",
        "backbones": getattr(kind, "backbones", ""),
        "protocols": "all" if len(protocols) == len(PROTOCOLS) else " ".join(protocols),
        "HM": "" if mean is None else f"{mean:.2f}",
        "recipes": "\n".join(recipes),
    }


def table(form: str) -> str:
    """Return the table as text for a terminal, or the page in Markdown."""
    content = rows()
    if form == "markdown":
        for row in content:
            row["recipes"] = ", ".join(f"`{name}`" for name in row["recipes"].splitlines())
        return f"{PAGE}\n{_markdown(content)}\n"
    widths = [34 if name == "idea" else None for name in content[0]]
    return tabulate(content, headers="keys", maxcolwidths=widths, disable_numparse=True) + "\n"


def settings_tables(method: str, form: str) -> str:
    """Return the settings of a method, or all settings if it is "", as text or as the page.

    Raises:
        UserError: an unknown method.
    """
    nodes = {kind.__name__: kind for kind in method_classes() if method in ("", kind.__name__)}
    if not nodes:
        raise UserError(unknown("method", method, [kind.__name__ for kind in method_classes()]))
    tables = {} if method else {"All methods": _setting_rows("", SETTINGS)}
    for name, kind in nodes.items():
        own = _setting_rows(f"TRAINER.{kind.config_node}.", kind.settings_table)
        tables |= {name: own} if own else {}
    if form == "markdown":
        return "\n".join(
            [SETTINGS_PAGE, *(f"## {n}\n\n{_markdown(t)}\n" for n, t in tables.items())]
        )
    widths = [None, 20, 30, 50, 20]
    parts = [
        f"{name}\n\n{tabulate(rows, headers='keys', maxcolwidths=widths, disable_numparse=True)}\n"
        for name, rows in tables.items()
    ]
    return "\n".join(parts)


def _setting_rows(prefix: str, table: Mapping[str, Setting]) -> list[dict[str, str]]:
    return [
        {
            "key": f"{prefix}{key}",
            "default": "-" if row.default is TOOLKIT else repr(row.default),
            "allowed": row.allowed.words,
            "meaning": row.help,
            "same result": row.neutral,
        }
        for key, row in table.items()
    ]


def _markdown(content: Sequence[dict[str, str]]) -> str:
    lines = [list(content[0]), ["---"] * len(content[0]), *(list(row.values()) for row in content)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


@prints_errors("methods")
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 2 for invalid input, with a message of one line."""
    args = parser().parse_args(arguments)
    from causalclip import plugin

    plugin.register_imports(args.imports)
    text = table if args.settings is None else functools.partial(settings_tables, args.settings)
    print(text(args.format), end="")
    return 0
