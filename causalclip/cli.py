"""The command `causalclip`: each sub-command imports what it needs, when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import causalclip
from causalclip.errors import unknown
from causalclip.files.atomic import FULL
from causalclip.files.text import print_any_text

_EXAMPLES = """examples:
  causalclip run base2new --methods ZeroshotCLIP CDC --datasets handwritten_digits --seeds 1
  causalclip run lodo --methods CLIP_ICM --datasets causal_shapes --shots 16 OPTIM.MAX_EPOCH 5
  causalclip run fewshot --methods CoOp --datasets dtd --data /data --dry-run
  causalclip summarize output --protocol base2new --format latex
  causalclip report output
  causalclip data list

`causalclip COMMAND --help` prints the options of a command. Completion in bash:
  eval "$(register-python-argcomplete causalclip)"
"""


@dataclass(frozen=True)
class Command:
    """A sub-command: the function that performs it, its help and its parser."""

    function: str
    """MODULE:FUNCTION below `causalclip`, or MODULE for its function `main`."""
    help: str
    parser: str | None = None
    """The function that returns its parser; None: the one next to `function`, "": no parser."""

    def main(self, arguments: Sequence[str]) -> int:
        """Perform the command; return its exit status."""
        return _loaded(self.function, "main")(arguments)

    def make_parser(self) -> argparse.ArgumentParser | None:
        """Return the parser for --help and completion, if there is one."""
        if self.parser == "":
            return None
        return _loaded(self.parser or self.function.replace("_main", "_parser"), "parser")()


def _loaded(place: str, default: str) -> Any:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(f"causalclip.{module}"), function or default)


COMMANDS = {
    "train": Command(
        "runs.train",
        "run one training or evaluation, with the flags of CoOp's and MaPLe's train.py",
        parser="runs.flags:parser",
    ),
    "run": Command(
        "runs.command", "run a protocol for lists of methods, data sets and seeds; print its table"
    ),
    "methods": Command("runs.methods_command", "list methods or settings"),
    "cost": Command(
        "runs.cost_command", "predict memory and arithmetic of a step and of a test image"
    ),
    "summarize": Command("report.summarize", "print tables of the results below a folder"),
    "fuse": Command(
        "report.fuse",
        "one result of several trained runs: opinions, conflict, and how much the runs differ",
    ),
    "predict": Command("predict.commands:predict_main", "classify images with a trained run"),
    "explain": Command(
        "predict.commands:explain_main", "draw which patches of an image speak for a class"
    ),
    "export": Command(
        "predict.commands:export_main", "write class features and image tower of a trained run"
    ),
    "detect": Command(
        "predict.commands:detect_main",
        "how well a run tells images of another data set from its own",
    ),
    "report": Command(
        "page.command",
        "write an HTML page of the results below a folder",
        parser="page.options:report_parser",
    ),
    "plot": Command(
        "page.plot_command",
        "write figures and LaTeX tables of the results below a folder",
        parser="page.options:plot_parser",
    ),
    "data": Command("data.command", "list, check, download and export data sets", parser=""),
    "tune": Command("runs.tune", "choose a method's settings on training and validation images"),
    "features": Command("runs.features_command", "precompute image features"),
    "cache": Command("engine.cache_size", "list or clear the feature cache"),
    "check": Command("checks.command", "check that a trainer follows the contract of the runs"),
    "digest": Command("files.digests", "print the sha256 of files", parser=""),
    "convert": Command("runs.convert", "convert a checkpoint of a published trainer"),
}
HIDDEN = {
    "run ablation": Command(
        "ablation.command", "change the parts of a method one at a time", parser=""
    ),
    "data splits": Command("runs.splits_command", "write split files with checksums"),
    "script": Command("runs.scripts", "what scripts/*.sh call", parser=""),
}


def parser(complete: Collection[str] = ()) -> argparse.ArgumentParser:
    """Return the parser; only the sub-commands in `complete` have their options."""
    p = argparse.ArgumentParser(
        prog="causalclip",
        description="Causal adaptation of vision-language models: runs, tables and data.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--version", action="version", version=f"causalclip {causalclip.__version__}")
    commands = p.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = command.make_parser() if name in complete else None
        commands.add_parser(name, help=command.help, parents=[own] if own else [], add_help=not own)
    return p


def _performed(name: str, command: Command, arguments: Sequence[str]) -> int:
    """Perform a sub-command; return its exit status.

    The status is 130 after Ctrl-C, 141 if the reader of stdout (`head`) has ended, and 2 if a disk
    is full.
    """
    print_any_text()
    # argparse prints sys.argv[0] in help and errors; results.json records sys.argv as the command.
    before, sys.argv = sys.argv, [f"causalclip {name}", *arguments]
    try:
        asks_for_help = arguments[:1] in (["-h"], ["--help"])
        if asks_for_help and (own := command.make_parser()):  # before main imports what it needs
            own.parse_args(arguments)
        status = command.main(arguments)
        sys.stdout.flush()  # here, where an error can be printed
        return status
    except KeyboardInterrupt:
        return 130
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
    """Redirect stdout to nowhere: the interpreter would raise when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Call the sub-command with its arguments; return its exit status, 2 if it is unknown."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if "_ARGCOMPLETE" in os.environ:
        from causalclip import completion

        typed = os.environ.get("COMP_LINE", "").split()  # to import this command's parser only
        completion.autocomplete(parser(complete=typed))
    known = {**COMMANDS, **HIDDEN}
    words = 2 if " ".join(arguments[:2]) in known else 1
    name = " ".join(arguments[:words])
    if name in known:
        return _performed(name, known[name], arguments[words:])
    if name and not name.startswith("-"):
        print(f"causalclip: {unknown('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    parser().parse_args(arguments)
    return 0
