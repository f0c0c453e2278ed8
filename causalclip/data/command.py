"""List the known data sets, check those on the disk, and download sets by name.

`causalclip data splits` writes split files with checksums.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path
from typing import Any

from tabulate import tabulate

from causalclip.data.catalogue import CATALOGUE, Facts, facts_of

# Checking and downloading need torch and Dassl, which take seconds to import. They are imported
# where they are used, so that `list` does not wait for them.

DRAWN = "on first use"


def list_sets(root: Path | None) -> int:
    """Print one row for each data set; with a root, also whether its folder exists."""
    rows = []
    for facts in CATALOGUE.values():
        present = "?" if root is None else DRAWN if facts.layout == "drawn" else "no"
        rows.append(
            {
                "name": facts.name,
                "classes": str(facts.classes),
                "images": f"{facts.total:,}" if facts.total else "drawn",
                "domains": str(len(facts.domains) or 1),
                "GB": "?" if facts.gigabytes is None else f"{facts.gigabytes:g}",
                "licence": facts.licence,
                "source": facts.page,
                "present": "yes" if root and facts.find(root) else present,
            }
        )
    print(tabulate(rows, headers="keys", disable_numparse=True))
    if root is None:
        print("\nDATA is not set, nor --root given: what is present is unknown.")
    return 0


def missing_sets(names: list[str], root: Path) -> int:
    """Print which of the names are data sets of the catalogue, not drawn, without a folder."""
    known = {name: facts for facts in CATALOGUE.values() for name in (facts.name, facts.config)}
    for name in dict.fromkeys(names):
        facts = known.get(name)
        if facts and facts.layout != "drawn" and facts.find(root) is None:
            print(name)
    return 0


def check_sets(names: list[str], root: Path, *, decode: bool) -> int:
    """Print what is wrong with each data set; return 1 if a named or present one is not complete.

    A data set that is drawn on first use is allowed to be missing.

    Raises:
        ValueError: for an unknown name.
    """
    from causalclip.data.checking import find_problems

    everything = names == ["all"]
    failed = False
    for facts in CATALOGUE.values() if everything else map(facts_of, names):
        drawn = facts.layout == "drawn"
        if (everything or drawn) and facts.find(root) is None:
            print(f"{facts.name}: not present{f' (drawn {DRAWN})' if drawn else ''}")
            continue
        problems = find_problems(facts, root, decode=decode)
        wrong = f"not as {'drawn' if drawn else 'published'}"
        print(f"{facts.name}: {wrong if problems else 'complete'}")
        for problem in problems:
            print(f"  {problem}")
        if problems:
            failed = True
            print(_remedy(facts, root))
    return int(failed)


def _remedy(facts: Facts, root: Path) -> str:
    if facts.layout == "drawn":
        return f"  Remove {root / facts.folder} to have it drawn again"
    lines = [f"  `causalclip data download {facts.name}` gets what can be fetched"]
    if facts.by_hand:
        lines.append(f"  By hand: {facts.by_hand}")
    return "\n".join(lines)


def download_sets(names: list[str], root: Path, *, keep_archives: bool, trust: bool) -> int:
    """Download each incomplete data set and print what to do by hand; return 1 if one failed.

    Raises:
        ValueError: for an unknown name.
    """
    from causalclip.data.checking import find_problems
    from causalclip.data.download import download

    failed = False
    for facts in map(facts_of, names):
        if facts.layout == "drawn":
            print(f"{facts.name}: nothing to download, it is drawn below the root {DRAWN}")
            continue
        if facts.find(root) and not find_problems(facts, root):
            print(f"{facts.name}: complete, nothing to do")
            continue
        failures = download(facts, root, keep_archives=keep_archives, trust=trust)
        fetched, asked = len(facts.downloads) - len(failures), len(facts.downloads)
        print(f"{facts.name}: {fetched} of {asked} files are in {root / facts.folder}")
        for failure in failures:
            print(f"  {failure}")
        if facts.by_hand:
            print(f"  By hand: {facts.by_hand}\n  Source: {facts.page}")
        failed = failed or bool(failures)
    return int(failed)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line; exit with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    root: dict[str, Any] = {
        "dest": "root",
        "metavar": "FOLDER",
        "help": "folder of all data sets (default: $DATA)",
    }
    parser.add_argument("--data", "--root", default=os.environ.get("DATA"), **root)
    after = argparse.ArgumentParser(add_help=False)  # --data may also follow the command
    after.add_argument("--data", "--root", default=argparse.SUPPRESS, **root)
    commands = parser.add_subparsers(dest="command", required=True)
    add = functools.partial(commands.add_parser, parents=[after])
    add("list", help="every known set: facts, licence, source, whether present")
    names: dict[str, Any] = {
        "nargs": "+",
        "metavar": "NAME",
        "help": "as in DATASET.NAME or configs/datasets/",
    }
    asking = add("missing", help="print which of the named sets are missing")
    asking.add_argument("names", **names)
    checking = add("check", help="layout, split file, every image, and counts")
    checking.add_argument("names", **{**names, "help": f"{names['help']}; or all"})
    checking.add_argument("--decode", action="store_true", help="also read each image to its end")
    fetching = add("download", help="fetch sets by name, or say what to do by hand")
    fetching.add_argument("names", **names)
    fetching.add_argument("--keep-archives", action="store_true", help="after unpacking")
    fetching.add_argument(
        "--trust", action="store_true", help="fetch what has no published checksum as well"
    )
    options = parser.parse_args(arguments)
    if options.command != "list" and not options.root:
        parser.error("set DATA to the folder of all data sets, or give --root")
    if options.root:
        options.root = Path(options.root).expanduser().absolute()
        if options.command != "download" and not options.root.is_dir():
            parser.error(f"{options.root} is not a folder (DATA, or --root)")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parse(arguments)
    root = options.root
    try:
        if options.command == "list":
            return list_sets(root)
        if options.command == "missing":
            return missing_sets(options.names, root)
        if options.command == "check":
            return check_sets(options.names, root, decode=options.decode)
        return download_sets(
            options.names, root, keep_archives=options.keep_archives, trust=options.trust
        )
    except ValueError as error:  # an unknown name
        print(error, file=sys.stderr)
        return 2
