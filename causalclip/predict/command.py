"""`causalclip predict`: a trained run on pictures of your own.

    causalclip predict output/first my_pictures
    causalclip predict output/first a.png b.jpg --classes cat dog --format json
    find . -name '*.jpg' | causalclip predict output/first - --risk 5 --data data --format csv

The data set of the run need not be there; --risk alone reads its validation split.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalclip.runs.flags import add_imports

if TYPE_CHECKING:
    from causalclip.predict.pictures import Broken, Source
    from causalclip.predict.predictor import Predictor

NAMED = 20  # broken images whose reasons are said; all are counted


def parser() -> argparse.ArgumentParser:
    """What to predict, by which run, and how it is shown."""
    p = model_parser("predict", __doc__)
    add = p.add_argument
    add("images", nargs="+", metavar="IMAGE", help="files, folders, or - for paths on stdin")
    add("--top", type=int, default=5, metavar="N", help="classes to show (default: 5)")
    silent = p.add_mutually_exclusive_group()
    silent.add_argument(
        "--abstain", type=float, metavar="U", help="claim nothing above this uncertainty"
    )
    silent.add_argument(
        "--risk",
        type=float,
        metavar="R",
        help="abstain so that at most R %% of the answers on the validation split are wrong",
    )
    add("--data", default="", help="folder of the data sets, for --risk")
    add("--format", choices=("table", "json", "csv"), default="table")
    return p


def model_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments by which every command on a trained run finds its model."""
    p = argparse.ArgumentParser(
        prog=f"causalclip {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("model_dir", metavar="MODEL_DIR", help="output folder of a finished run")
    add("--classes", nargs="+", metavar="NAME", help="other class names, or a file, one a line")
    add("--backbone", default="", help="file of the run's CLIP, where it lies elsewhere now")
    add_imports(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Predict and show; 1 where images were broken, 2 for a mistake in the input."""
    return exit_status("predict", perform, parser().parse_args(argv))


def exit_status(name: str, perform: Callable[[Any], int], args: argparse.Namespace) -> int:
    """The exit status of a command; 2, and the error in a line, for a mistake in the input."""
    from causalclip.runs.train import INPUT_ERRORS, sentence

    try:
        return perform(args)
    except BrokenPipeError:
        raise  # the reader went away, which is no mistake: the command line's to answer
    except (*INPUT_ERRORS, ImportError) as error:  # ImportError: of --import
        print(f"causalclip {name}: error: {sentence(error)}", file=sys.stderr)
        return 2


def loaded(args: argparse.Namespace, *, data: str = "") -> Predictor:
    """The predictor that the arguments of `model_parser` ask for."""
    import importlib

    from causalclip import plugin
    from causalclip.predict.predictor import Predictor

    for module in args.imports:
        plugin.register(importlib.import_module(module))
    classes = None if args.classes is None else class_names(args.classes)
    return Predictor.load(args.model_dir, classes=classes, backbone=args.backbone, data=data)


def class_names(words: Sequence[str]) -> list[str]:
    """Class names of the command line; a single one that is a file holds them, one a line."""
    if len(words) == 1 and Path(words[0]).is_file():
        lines = Path(words[0]).read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip()]
    return list(words)


def perform(args: argparse.Namespace) -> int:
    """Predict, show what comes while it comes, and name what was broken at the end.

    Raises:
        ValueError: what cannot be predicted from, and why.
    """
    from tqdm import tqdm

    from causalclip.predict.formats import WRITERS, Shown
    from causalclip.predict.pictures import Broken

    if args.top < 1:
        raise ValueError(f"--top must be a positive number, got {args.top}")
    if args.abstain is not None and not 0 <= args.abstain <= 1:
        raise ValueError(f"--abstain must be an uncertainty in [0, 1], got {args.abstain:g}")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be no text
        sys.stdout.reconfigure(errors="backslashreplace")
    images, count, width = sources(args.images)
    predictor = loaded(args, data=args.data if args.risk is not None else "")
    shown = Shown(args.top, threshold(args, predictor), width)
    broken: list[Broken] = []
    answers = tqdm(predictor.stream(images), total=count, unit="image", disable=None)
    # A bar and a table in one terminal would write over each other.
    with answers, WRITERS[args.format](sys.stdout, shown) as write:
        for answer in answers:
            with answers.external_write_mode(file=sys.stdout) if on_screen() else nullcontext():
                if isinstance(answer, Broken):
                    broken.append(answer)
                else:
                    write(answer)
    sys.stdout.flush()
    name_broken(broken)
    return int(bool(broken))


def on_screen() -> bool:
    """Whether rows and the bar, which is on stderr, share a terminal."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def sources(words: Sequence[str]) -> tuple[Iterable[Source], int | None, int]:
    """The pictures, how many they are where that is known, and the width of their paths.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: a file that is no image, no image at all, or - beside others.
    """
    from causalclip.predict.pictures import found

    if "-" not in words:
        images = found(words)
        return images, len(images), max(len(str(image)) for image in images)
    if len(words) > 1:
        raise ValueError(f"- reads the paths from stdin and stands alone, got {' '.join(words)}")
    return listed(sys.stdin), None, 40


def listed(lines: Iterable[str]) -> Iterator[str]:
    """Paths, one a line, as they come.

    Raises:
        ValueError: not a single one.
    """
    empty = True
    for line in lines:
        if path := line.rstrip("\r\n"):
            empty = False
            yield path
    if empty:
        raise ValueError("there must be one picture or more, got no path on stdin")


def threshold(args: argparse.Namespace, predictor: Predictor) -> float | None:
    """The uncertainty above which nothing is claimed; one that was chosen is said on stderr."""
    if args.risk is None:
        return args.abstain
    chosen = predictor.threshold(args.risk)
    print(chosen, file=sys.stderr)
    return chosen.uncertainty


def name_broken(broken: Sequence[Broken]) -> None:
    """Say on stderr which images could not be read, and why."""
    if not broken:
        return
    print(f"{len(broken)} images could not be read:", file=sys.stderr)
    for image in broken[:NAMED]:
        print(f"  {ascii(image.image)[1:-1]}: {ascii(image.reason)[1:-1]}", file=sys.stderr)
    if len(broken) > NAMED:
        print(f"  and {len(broken) - NAMED} more", file=sys.stderr)
