"""The command `causalclip`: each sub-command imports what it needs, when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import argcomplete

import causalclip
from causalclip.files.atomic import FULL
from causalclip.runs.nearest import unknown

EXAMPLES = """examples:
  causalclip run base2new --methods ZeroshotCLIP CDC --datasets handwritten_digits --seeds 1
  causalclip run lodo --methods CLIP_ICM --datasets causal_shapes --shots 16 OPTIM.MAX_EPOCH 5
  causalclip run fewshot --methods CoOp --datasets dtd --data /data --dry-run
  causalclip summarize output --protocol base2new --format latex
  causalclip report output
  causalclip data list

`causalclip COMMAND --help` explains each. Completion in bash:
  eval "$(register-python-argcomplete causalclip)"
"""


@dataclass(frozen=True)
class Command:
    """A sub-command: the module that has its `main(arguments)`, and what it does."""

    module: str
    help: str
    parser: str = ""
    """MODULE:FUNCTION that makes its parser, for completion; empty for none."""


COMMANDS = {
    "train": Command(
        "causalclip.runs.train",
        "one training or evaluation: the flags of the family's train.py",
        "causalclip.runs.flags:parser",
    ),
    "run": Command(
        "causalclip.runs.command",
        "a protocol for methods, data sets and seeds, and its table",
        "causalclip.runs.command:parser",
    ),
    "summarize": Command(
        "causalclip.report.summarize",
        "tables from the results below a folder",
        "causalclip.report.summarize:parser",
    ),
    "predict": Command(
        "causalclip.predict.command",
        "a trained run on pictures of your own",
        "causalclip.predict.command:parser",
    ),
    "explain": Command(
        "causalclip.predict.explain_command",
        "which patches of a picture speak for its class, as a PNG",
        "causalclip.predict.explain_command:parser",
    ),
    "export": Command(
        "causalclip.predict.export_command",
        "class features and image tower of a trained run, for use elsewhere",
        "causalclip.predict.export_command:parser",
    ),
    "report": Command(
        "causalclip.page.command",
        "one HTML page of all results below a folder, with figures and images",
        "causalclip.page.command:parser",
    ),
    "plot": Command(
        "causalclip.page.plot_command",
        "figures (pdf, png, svg) and LaTeX tables of the results below a folder",
        "causalclip.page.plot_command:parser",
    ),
    "data": Command("causalclip.data.command", "list, check and download data sets"),
    "features": Command(
        "causalclip.runs.features_command",
        "encode images ahead of the runs that read their features",
        "causalclip.runs.features_command:parser",
    ),
    "cache": Command(
        "causalclip.engine.cache_command",
        "show or remove the image features that are kept on disk",
        "causalclip.engine.cache_command:parser",
    ),
    "check": Command(
        "causalclip.checks.command",
        "whether a trainer, your own too, keeps what every run relies on",
        "causalclip.checks.command:parser",
    ),
    "convert": Command("causalclip.runs.convert", "read a checkpoint of a published trainer"),
}
HIDDEN = {"script": Command("causalclip.runs.scripts", "what scripts/*.sh call")}


def parser(complete: Collection[str] = ()) -> argparse.ArgumentParser:
    """The command line; what stands behind a sub-command only for those to `complete`."""
    p = argparse.ArgumentParser(
        prog="causalclip",
        description="Causal adaptation of vision-language models: runs, tables and data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"causalclip {causalclip.__version__}")
    commands = p.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        inner = [_inner(command)] if name in complete and command.parser else []
        commands.add_parser(name, help=command.help, parents=inner, add_help=not inner)
    return p


def _inner(command: Command) -> argparse.ArgumentParser:
    module, function = command.parser.split(":")
    return getattr(importlib.import_module(module), function)()


def _performed(name: str, command: Command, arguments: Sequence[str]) -> int:
    """A sub-command's exit status; 141, as elsewhere, where its reader (`head`) went away.

    2 where the disk is full that it writes to, stdout's too.
    """
    # argparse's name in help and errors, and what results.json calls the command.
    before, sys.argv = sys.argv, [f"causalclip {name}", *arguments]
    try:
        status = importlib.import_module(command.module).main(arguments)
        sys.stdout.flush()  # here, where an error can be said
        return status
    except BrokenPipeError:
        _discard_stdout()
        return 141
    except OSError as error:
        if error.errno not in FULL:
            raise
        _discard_stdout()
        print(f"causalclip {name}: error: {error}", file=sys.stderr)
        return 2
    finally:
        sys.argv = before


def _discard_stdout() -> None:
    """What is left in the buffer goes nowhere, and the interpreter flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the rest of the line to a sub-command; its exit status, 2 for an unknown one."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if "_ARGCOMPLETE" in os.environ:
        typed = os.environ.get("COMP_LINE", "").split()  # the others' parsers are not imported
        argcomplete.autocomplete(parser(complete=typed))
    name = arguments[0] if arguments else ""
    command = {**COMMANDS, **HIDDEN}.get(name)
    if command is not None:
        return _performed(name, command, arguments[1:])
    if name and not name.startswith("-"):
        print(f"causalclip: {unknown('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    parser().parse_args(arguments)
    return 0
