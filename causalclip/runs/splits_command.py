"""`causalclip data splits`: write the split of every seed and number of shots, with checksums."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from causalclip.errors import prints_errors
from causalclip.files.atomic import replacing

SUMS_FILE = "SHA256SUMS"
_EXAMPLES = """examples:
  causalclip data splits handwritten_digits --data data --output splits
  causalclip data splits dtd ./photos --data /data --seeds 1 2 3 --shots 1 16 --output splits
  (cd splits && sha256sum --check SHA256SUMS)
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `causalclip data splits`."""
    p = argparse.ArgumentParser(
        prog="causalclip data splits",
        description="Write the images of each seed and number of shots in CoOp's split format: "
        "DATASET/shot_K-seed_S.json, with SHA256SUMS.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="as --datasets of causalclip run")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="default: 1 2 3")
    add("--shots", nargs="+", type=int, default=[1, 2, 4, 8, 16], metavar="N")
    add("--data", "--root", default="", help="folder of the data sets (default: $DATA, else data)")
    add("--output", type=Path, required=True, help="folder to write")
    return p


@prints_errors("data splits")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; return 2 for a mistake in the input."""
    args = parser().parse_args(arguments)
    sums = {}
    for dataset in args.datasets:
        for seed in args.seeds:
            for shots in args.shots:
                name, content = split_of(dataset, args.data, seed=seed, shots=shots)
                file = f"{name}/shot_{shots}-seed_{seed}.json"
                sums[file] = _write(args.output / file, content)
    lines = "".join(f"{digest}  {file}\n" for file, digest in sums.items())
    _write(args.output / SUMS_FILE, lines)
    print(f"{len(sums)} splits and {SUMS_FILE} in {args.output}")
    return 0


def split_of(dataset: str, data: str, *, seed: int, shots: int) -> tuple[str, str]:
    """Return a data set's name and, as JSON, the rows [path, label, class] of train, val and test.

    Paths are relative to the folder of the data sets.

    Raises:
        UserError: no such data set.
        ValueError: shots that are no number of images, or data that cannot be used.
    """
    from causalclip import plugin  # imports torch: --help should not
    from causalclip.data.splits import rows_of
    from causalclip.engine.data import build_seeded_dataset
    from causalclip.runs.configuration import merge_pairs
    from causalclip.runs.data_source import resolve_data

    plugin.register_all()
    cfg, source = plugin.default_cfg(), resolve_data(dataset, data)
    pairs: dict[str, Any] = {**source.settings, "DATASET.NUM_SHOTS": shots, "SEED": seed}
    merge_pairs(cfg, pairs)
    cfg.freeze()
    built = build_seeded_dataset(cfg)
    parts = {"train": built.train_x, "val": built.val or [], "test": built.test}
    rows = {part: list(rows_of(items, cfg.DATASET.ROOT)) for part, items in parts.items()}
    return source.name, json.dumps(rows)


def _write(path: Path, content: str) -> str:
    """Write a text, completely or not at all; return its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        Path(part).write_text(content, encoding="utf-8")
    return hashlib.sha256(content.encode()).hexdigest()
