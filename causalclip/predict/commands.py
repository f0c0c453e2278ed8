"""`causalclip predict`, `explain` and `export`: the commands on a trained run."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from causalclip.errors import prints_errors
from causalclip.files.text import print_any_text
from causalclip.records.results import EXPLAINED_FOLDER
from causalclip.runs.flags import add_imports

if TYPE_CHECKING:
    from causalclip.predict.answers import Answer
    from causalclip.predict.pictures import BrokenImage, ImageSource
    from causalclip.predict.predictor import Predictor

LISTED = 20  # broken images to list; the count includes all of them

PREDICT = """Classify your images with a trained run. Its data set is not needed.

    causalclip predict output/first my_pictures
    causalclip predict output/first a.png b.jpg --classes cat dog --format json
    find . -name '*.jpg' | causalclip predict output/first - --risk 5 --data data --format csv
"""
EXPLAIN = """Draw which patches of an image speak for its class (orange) or against it (purple).

    causalclip explain output/first my.png
    causalclip explain output/first my.png --class three --output why.png
    causalclip explain output/first my.png --kind attention

Each map has its own scale. `causalclip report` shows the PNGs in MODEL_DIR/explained/.
"""
EXPORT = """Write the class features of a trained run, and its image tower if it has prompts.

    causalclip export output/first
    causalclip export output/first --classes cat dog --output cats
    causalclip export output/first --format onnx

The files are classes.safetensors and image.pt2 (torch.export) or image.onnx. The command reads them
again and fails unless they give the run's answers. docs/export.md shows how to use them.
"""
DETECT = """Measure how well a run's scores separate another data set's test images from its own.

    causalclip detect output/first --foreign causal_shapes --data data

AUROC and FPR95 in per cent of the method's uncertainty, of MSP (1 - max p), of MCM (the softmax of
the cosines without their scale) and of the energy (-log sum exp of the logits), from the run's
predictions.npz. --gl-mcm adds GL-MCM, for a run on a ViT in OpenAI's implementation. FPR95 is the
share of known images that count as foreign at the threshold at which 95 % of the foreign images do.
The two data sets must not share a class.
"""


def predict_parser() -> argparse.ArgumentParser:
    """Return the parser of `causalclip predict`."""
    p = _model_parser("predict", PREDICT)
    add = p.add_argument
    add("images", nargs="+", metavar="IMAGE", help="files, folders, or - for paths on stdin")
    add("--top", type=int, default=5, metavar="N", help="classes to show (default: 5)")
    silent = p.add_mutually_exclusive_group()
    silent.add_argument(
        "--abstain", type=float, metavar="U", help="give no prediction above this uncertainty"
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


def explain_parser() -> argparse.ArgumentParser:
    """Return the parser of `causalclip explain`."""
    p = _model_parser("explain", EXPLAIN)
    p.add_argument("image", metavar="IMAGE", help="the image's file")
    p.add_argument("--class", dest="classname", default="", help="default: the predicted class")
    p.add_argument(
        "--kind",
        choices=("gradient", "attention"),
        default="gradient",
        help="relevance for the class (default), or attention of the class token",
    )
    p.add_argument("--output", help=f"the PNG to write; default: in MODEL_DIR/{EXPLAINED_FOLDER}/")
    return p


def export_parser() -> argparse.ArgumentParser:
    """Return the parser of `causalclip export`."""
    p = _model_parser("export", EXPORT)
    p.add_argument(
        "--format", choices=("torch", "onnx"), default="torch", help="format of the image tower"
    )
    p.add_argument("--output", help="folder to write; default: MODEL_DIR/export")
    return p


def detect_parser() -> argparse.ArgumentParser:
    """Return the parser of `causalclip detect`."""
    p = _model_parser("detect", DETECT)
    p.add_argument("--foreign", required=True, metavar="DATASET", help="its name, folder or table")
    p.add_argument("--data", default="", help="folder of the data sets (default: $DATA, else data)")
    p.add_argument("--gl-mcm", action="store_true", help="add GL-MCM, which reads all images again")
    return p


def _model_parser(command: str, description: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=f"causalclip {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("model_dir", metavar="MODEL_DIR", help="output folder of a finished run, or owner/name")
    add("--classes", nargs="+", metavar="NAME", help="other classes, or a file with one per line")
    add("--backbone", default="", help="file of the run's CLIP, if it was moved")
    add(
        "--trust-torchscript",
        action="store_true",
        help="load a TorchScript backbone that OpenAI did not release: it runs as a program",
    )
    add_imports(p)
    return p


def _load(args: argparse.Namespace, *, data: str = "") -> Predictor:
    from causalclip import plugin  # here, because it imports torch, which --help does not need
    from causalclip.predict.predictor import Predictor

    plugin.register_imports(args.imports)
    return Predictor.load(
        args.model_dir,
        classes=None if args.classes is None else _class_names(args.classes),
        backbone=args.backbone,
        data=data,
        trust_torchscript=args.trust_torchscript,
    )


@prints_errors("detect")
def detect_main(argv: Sequence[str] | None = None) -> int:
    """Print a table of scores; return 2 for a mistake in the input."""
    args = detect_parser().parse_args(argv)
    from tabulate import tabulate

    found = _load(args).detect(args.foreign, root=args.data, gl_mcm=args.gl_mcm)
    rows = [{"score": score, **values} for score, values in found.items()]
    print(tabulate(rows, headers="keys", floatfmt=".1f"))
    return 0


def _class_names(words: Sequence[str]) -> list[str]:
    """Return the class names of --classes, or the lines of the file that it names.

    Raises:
        ValueError: a single word that is not a file, or a file that is not UTF-8.
    """
    from causalclip.data.annotations import read_lines

    if len(words) > 1:
        return list(words)
    if not Path(words[0]).is_file():
        raise ValueError(
            f"--classes must be two names or more, or a file of them; there is no file {words[0]}"
        )
    return read_lines(words[0])


@prints_errors("predict")
def predict_main(argv: Sequence[str] | None = None) -> int:
    """Predict; return 1 if an image could not be read, 2 for a mistake in the input."""
    args = predict_parser().parse_args(argv)
    from tqdm.auto import tqdm

    from causalclip.predict.formats import WRITERS, Display
    from causalclip.predict.pictures import BrokenImage

    if args.top < 1:
        raise ValueError(f"--top must be a positive number, got {args.top}")
    if args.abstain is not None and not 0 <= args.abstain <= 1:
        raise ValueError(f"--abstain must be an uncertainty in [0, 1], got {args.abstain:g}")
    print_any_text()  # a file name need not be valid text
    images, count, width = _sources(args.images)
    predictor = _load(args, data=args.data if args.risk is not None else "")
    if predictor.warning:
        print(f"Note: {predictor.warning}", file=sys.stderr)
    threshold = args.abstain
    if args.risk is not None:
        chosen = predictor.threshold(args.risk)
        print(chosen, file=sys.stderr)
        threshold = chosen.uncertainty
    broken: list[BrokenImage] = []

    def answers() -> Iterator[Answer]:
        for answer in bar:
            if isinstance(answer, BrokenImage):
                broken.append(answer)
            else:
                yield answer

    with tqdm(predictor.stream(images), total=count, unit="image", disable=None) as bar:
        for text in WRITERS[args.format](answers(), Display(args.top, threshold, width)):
            tqdm.write(text, file=sys.stdout, end="")  # does not overwrite the bar
    sys.stdout.flush()
    _list_broken(broken)
    return int(bool(broken))


def _sources(words: Sequence[str]) -> tuple[Iterable[ImageSource], int | None, int]:
    """Return the images, their number if it is known, and the width of the column of paths."""
    from causalclip.predict.pictures import find_images

    if "-" not in words:
        images = find_images(words)
        return images, len(images), max(len(str(image)) for image in images)
    if len(words) > 1:
        raise ValueError(f"- reads the paths from stdin and stands alone, got {' '.join(words)}")
    return _paths_on_stdin(), None, 40


def _paths_on_stdin() -> Iterator[str]:
    empty = True
    for line in sys.stdin:
        if path := line.rstrip("\r\n"):
            empty = False
            yield path
    if empty:
        raise ValueError("there must be one picture or more, got no path on stdin")


def _list_broken(broken: Sequence[BrokenImage]) -> None:
    if broken:
        print(f"{len(broken)} images could not be read:", file=sys.stderr)
    for image in broken[:LISTED]:
        print(f"  {ascii(image.image)[1:-1]}: {ascii(image.reason)[1:-1]}", file=sys.stderr)
    if len(broken) > LISTED:
        print(f"  and {len(broken) - LISTED} more", file=sys.stderr)


def _own_folder(model_dir: str) -> Path:
    """Return the run's folder; for a model `owner/name` on the hub, `./name`."""
    return Path(model_dir) if Path(model_dir).is_dir() else Path(Path(model_dir).name)


@prints_errors("explain")
def explain_main(argv: Sequence[str] | None = None) -> int:
    """Write an explanation as a PNG and print its path; return 2 for a mistake in the input."""
    args = explain_parser().parse_args(argv)
    from causalclip.predict.explain import explain
    from causalclip.predict.pictures import find_images

    image, *others = find_images([args.image])
    if others:
        raise ValueError(f"explain takes one picture, got a folder of {1 + len(others)}")
    explanation = explain(_load(args), image, classname=args.classname, kind=args.kind)
    name = [Path(args.image).stem, args.kind, re.sub(r"[^\w-]+", "_", args.classname)]
    folder = _own_folder(args.model_dir) / EXPLAINED_FOLDER
    path = args.output or folder / f"{'.'.join(filter(None, name))}.png"
    explanation.save(path)
    print(f"{explanation}: {path}")
    return 0


@prints_errors("export")
def export_main(argv: Sequence[str] | None = None) -> int:
    """Write the files and print their paths; return 2 for a mistake in the input."""
    args = export_parser().parse_args(argv)
    from causalclip.predict.export import export

    folder = args.output or _own_folder(args.model_dir) / "export"
    for path in export(_load(args), folder, form=args.format):
        print(f"{path}: checked, answers as the run does")
    return 0
