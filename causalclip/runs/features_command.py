"""`causalclip features`: encode images ahead of the runs that read their features.

It encodes what the runs of a protocol would encode: the same images and interventions with the same
weights and precision, stored under the same keys.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from causalclip.engine.cache_size import entries, feature_home, features_folder, limit_bytes, trim
from causalclip.errors import UserError, prints_errors
from causalclip.files.caches import cache_home
from causalclip.runs import flags
from causalclip.runs.executor import Executor, Task, executor_of, in_parallel
from causalclip.runs.perform import domains_for, request_of, with_data
from causalclip.runs.plan import Run, plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.request import Request, check

if TYPE_CHECKING:
    from causalclip.engine.feature_cache import Change, Chunks, Encoder

READERS = ("ZeroshotCLIP", "LinearProbe", "TipAdapter", "CLIP_ICM")
_EXAMPLES = """examples:
  causalclip features --datasets handwritten_digits --shots 16 --seeds 1
  causalclip features --datasets dtd --backbone vit_l14 --data /data --jobs 8
  causalclip features --datasets domainbed_pacs --protocol lodo --methods CLIP_ICM --data /data
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options and of KEY VALUE pairs."""
    p = argparse.ArgumentParser(
        prog="causalclip features",
        description="Encode images ahead of the runs that read their features. Stopped or killed, "
        "repeat the command to continue.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[flags.methods_flags(), flags.request_flags(), flags.executor_flags()],
    )
    p.add_argument("--protocol", choices=PROTOCOLS, default="fewshot", help="default: fewshot")
    p.set_defaults(methods=list(READERS))
    flags.add_settings(p)
    return p


@prints_errors("features")
def main(argv: Sequence[str] | None = None) -> int:
    """Encode the images; return 2 for invalid input, with a message of one line."""
    start = time.perf_counter()
    args = flags.parse(sys.argv[1:] if argv is None else argv, parser())
    asked = with_data(request(args), args.data)
    asked = replace(asked, data=asked.data.absolute())  # other machines' current folder differs
    executor = executor_of(args)
    executor.check()
    encode(plan(asked, domains_for(asked, asked.data)), executor)
    folder = features_folder(cache_home())
    seconds = time.perf_counter() - start
    print(f"{len(entries(folder))} sets of features in {folder}, {seconds:.1f} s")
    return 0


def request(args: argparse.Namespace) -> Request:
    """Return the request of the parsed options, checked.

    Raises:
        UserError: an unknown name, or a cache that is switched off.
    """
    if feature_home() is None:
        raise UserError("CAUSALCLIP_NO_CACHE is set: no feature would be kept")
    if not args.datasets:
        raise UserError("--datasets must name one or more data sets")
    asked = request_of(args, PROTOCOLS[args.protocol])
    check(asked)
    return asked


def encode(runs: Sequence[Run], executor: Executor) -> None:
    """Write the features that these runs will read to the cache; each task encodes one chunk."""
    begun: set[Path] = set()
    try:
        with tqdm(unit="image", disable=None) as bar:
            for chunks, rows in in_parallel(executor, _tasks(runs, begun)):
                bar.update(len(rows))
                _join_if_whole(chunks)
    finally:
        executor.close()


def _tasks(runs: Sequence[Run], begun: set[Path]) -> Iterator[Task]:
    for number, run in enumerate(runs, 1):
        tqdm.write(f"[{number}/{len(runs)}] {run.folder}")
        trainer = built(run.arguments)
        for images in trainer.image_sets():
            chunks = trainer.encoder.chunks(images)
            if chunks is None or chunks.file in begun:
                continue
            begun.add(chunks.file)
            _join_if_whole(chunks)  # if an earlier command was killed before it could
            for rows in chunks.missing():
                # Pass no class of the engine: unpickling one would import Dassl unpatched.
                images_of_chunk = (images.paths[rows.start : rows.stop], images.change)
                key = _key(trainer.encoder)
                arguments = (key, run.arguments, *images_of_chunk, chunks.path(rows))
                yield (chunks, rows), encode_chunk, arguments


def _join_if_whole(chunks: Chunks) -> None:
    if not chunks.missing():
        chunks.join()
        trim(chunks.file.parent, limit_bytes(), keep=chunks.file)


def _key(encoder: Encoder) -> str:
    """Return a key that is equal for encoders with equal features and batches."""
    return f"{encoder.identity} {encoder.transform!r} {encoder.root} {encoder.batch_size}"


_encoders: dict[str, Encoder] = {}
"""The encoder that this process used last, by its key."""


def encode_chunk(
    key: str, arguments: Sequence[str], paths: Sequence[str], change: Change | None, file: Path
) -> None:
    """Encode some images with the encoder of a run and write them to a file."""
    if key not in _encoders:
        _encoders.clear()
        _encoders[key] = built(arguments).encoder
    from causalclip.engine.feature_cache import ImageSet

    _encoders[key].write_chunk(ImageSet(paths, change), file)


def built(arguments: Sequence[str]) -> Any:
    """Build the trainer of a run from its arguments.

    Raises:
        UserError: settings that it cannot be built with, or a package that is missing.
        ValueError: data or files that cannot be used.
    """
    from causalclip.runs.configuration import configure  # imports torch
    from causalclip.runs.train import trainer_for

    with redirect_stdout(io.StringIO()):  # hide what the trainer prints
        return trainer_for(configure(flags.parser().parse_args(arguments)))
