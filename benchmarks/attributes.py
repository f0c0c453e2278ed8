"""Show which attribute of CausalShapes the answers of each template of CDC depend on.

    python benchmarks/attributes.py RUN [RUN ...] [--data data]

A RUN is the folder of an evaluation of CDC on CausalShapes. The table has the adjusted mutual
information (per cent; 0 by chance, 100 where one determines the other) between each template's
answers and the shape, colour, texture and background of the test images, the mean over the runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.metrics import adjusted_mutual_info_score

from causalclip.datasets.causal_shapes import FACTS
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions

ATTRIBUTES = ("shape", "colour", "texture", "background")


def factors_of(data: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Return the factors of every picture below a data root, by (shape, number, version)."""
    rows = json.loads((data / FACTS.folder / FACTS.split_file).read_text(encoding="utf-8"))
    versions = ("home", "free", "twin")
    return {(row[v]["shape"], row["number"], v): row[v] for row in rows for v in versions}


def rows_of(run: Path, data: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each template of a run, and one for their fusion."""
    arrays = Predictions.read(run / PREDICTIONS_FILE).arrays
    factors, pictures = factors_of(data), []
    for path in map(Path, arrays["path"]):
        number, version = path.stem.split("_")
        pictures.append(factors[path.parent.name, int(number), version])
    templates = arrays["template_probabilities"].argmax(-1).T
    answers = {f"S{i}": each for i, each in enumerate(templates, start=1)}
    answers["fused"] = arrays["probabilities"].argmax(-1)
    for name, answer in answers.items():
        right = 100 * (answer == arrays["label"]).mean()
        values = {a: [picture[a] for picture in pictures] for a in ATTRIBUTES}
        follows = {a: 100 * adjusted_mutual_info_score(values[a], answer) for a in ATTRIBUTES}
        yield {"template": name, "accuracy": right, **follows}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args()
    rows = pd.DataFrame([row for run in args.runs for row in rows_of(run, args.data)])
    print(rows.groupby("template").mean().round(1).to_markdown())


if __name__ == "__main__":
    main()
