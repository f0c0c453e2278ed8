"""Pictures on the page: a gallery of test images, and the pictures of `causalclip explain`."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from causalclip.page.study import Answers, StudyRun
from causalclip.records.results import EXPLAINED_FOLDER

TILE = 96
"""Longer side of a test image in pixels; smaller images are not enlarged."""
TOP = 0.8
"""Quantile of a run's uncertainty (conflict); images above are its uncertain (conflicting) ones."""
MOST_EXPLAINED = 40
"""Maximum number of explained pictures of all runs together, about 100 kB each."""
EXPLAINED = 1320
"""Longer side of an explained picture in pixels; the page shows it at half of its width."""


def thumbnail(path: str | Path, *, side: int = TILE) -> tuple[str, str]:
    """Return a JPEG data URI and an empty reason, or an empty URI and the reason.

    Args:
        path: image file, which is read in the same way as by the data loaders.
        side: maximum of the longer side in pixels.
    """
    from causalclip.data.pictures import image_or_reason  # imports torch

    small = image_or_reason(str(path))
    if isinstance(small, str):
        return "", f"not readable ({small})"
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(), ""


@dataclass(frozen=True)
class PictureRoots:
    """The folders whose pictures a page may embed, because a predictions.npz can name any file."""

    study: Path
    data: Sequence[Path] = ()

    def refusal(self, path: str | Path) -> str:
        """Return why a picture is not embedded; empty if it may be.

        Symbolic links out of a folder are followed in the user's data folders, but not in the
        study's folder, which may have been downloaded.
        """
        place = os.path.abspath(path)
        if any(Path(place).is_relative_to(os.path.abspath(root)) for root in self.data):
            return ""
        if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(self.study)):
            return ""
        return "outside the study and --data"


def gallery_rows(answers: Answers) -> pd.DataFrame:
    """Return the columns that the gallery needs, a row per test image, without (N, K) arrays."""
    arrays = answers.arrays
    columns = {name: arrays[name] for name in ("path", "label", "uncertainty")}
    rows = pd.DataFrame(columns).assign(
        prediction=answers.predicted,
        probability=arrays["probabilities"].max(-1),
        conflict=arrays.get("conflict", np.nan),
    )
    if "template_probabilities" in arrays:
        for member, p in enumerate(arrays["template_probabilities"].swapaxes(0, 1)):
            rows[f"vote {member}"], rows[f"certainty {member}"] = p.argmax(-1), p.max(-1)
    return rows


def gallery(
    runs: Sequence[tuple[StudyRun, pd.DataFrame]], roots: PictureRoots, *, cap: int
) -> dict[str, Any]:
    """Return the data of the page's script, as JSON values.

    Args:
        runs: the runs that have predictions, with their `gallery_rows`.
        roots: the folders whose pictures may be embedded.
        cap: maximum number of images, taken from the `_orders` of all runs in turn.
    """
    orders = [order for _, rows in runs for order in _orders(rows)]
    in_turn = dict.fromkeys(chain.from_iterable(zip_longest(*orders)))
    in_turn.pop(None, None)
    chosen = {path: place for place, path in enumerate(list(in_turn)[:cap])}
    images = []
    for path in chosen:
        reason = roots.refusal(path)
        src, reason = ("", reason) if reason else thumbnail(path)
        images.append({"src": src, "reason": reason, "path": path})
    shown = [_gallery_run(run, rows, chosen) for run, rows in runs]
    return {"total": len(in_turn), "images": images, "runs": shown}


def _orders(rows: pd.DataFrame) -> list[list[str]]:
    """Return the paths in several orders: surest mistakes, most uncertain or conflicting, all."""
    surest = rows.sort_values("uncertainty", kind="stable")
    orders = [surest[surest.prediction != surest.label], surest[::-1]]
    if rows.conflict.notna().any():
        orders.append(rows.sort_values("conflict", ascending=False, kind="stable"))
    # Golden-ratio steps through the data: the first images of this order come from all classes.
    steps = (np.arange(len(rows)) * 0.6180339887498949) % 1
    return [list(order["path"]) for order in (*orders, rows.iloc[np.argsort(steps, kind="stable")])]


def _gallery_run(run: StudyRun, rows: pd.DataFrame, chosen: Mapping[str, int]) -> dict[str, Any]:
    shown = rows[rows["path"].isin(chosen)]
    return {
        "anchor": run.anchor,
        "name": run.name,
        "domain": " ".join(run.result.target_domains),
        "classes": run.result.classnames,
        "count": len(rows),
        **_correctness(rows),
        "uncertain": _digits(float(rows.uncertainty.quantile(TOP))),
        "conflicting": _digits(float(rows.conflict.quantile(TOP))),
        "items": [_item(row, chosen[row["path"]]) for row in shown.to_dict("records")],
    }


def _correctness(rows: pd.DataFrame) -> dict[str, str]:
    """Return a digest of the tested images, and a string of 1 (right) or 0 (wrong) for each image.

    The images are in the order of their paths, so that runs on the same images can be compared.
    """
    ordered = rows.sort_values("path", kind="stable")
    digest = hashlib.sha256("\n".join(ordered["path"].astype(str)).encode()).hexdigest()[:16]
    right = (ordered.prediction == ordered.label).astype(int)
    return {"tested": digest, "right": "".join(map(str, right))}


def _item(row: Mapping[Any, Any], image: int) -> list[Any]:
    """Return [image, label, prediction, probability, uncertainty, conflict, votes] for the script.

    Votes are [class, probability] of each template, or null.
    """
    numbers = [_digits(row[name]) for name in ("probability", "uncertainty", "conflict")]
    members = [name.removeprefix("vote ") for name in row if name.startswith("vote ")]
    votes = [[row[f"vote {m}"], _digits(row[f"certainty {m}"])] for m in members]
    return [image, row["label"], row["prediction"], *numbers, votes or None]


def _digits(value: float) -> float | None:
    """Return a value with four significant digits; None (null in JSON) if it is not finite."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def explanations(
    runs: Sequence[StudyRun], roots: PictureRoots, *, most: int = MOST_EXPLAINED
) -> dict[Path, dict[str, Any]]:
    """Return the pictures of `causalclip explain` by results.json of each run that has any.

    At most `most` pictures are taken, from each run in turn; `left_out` counts the others.
    """
    files = {run.file: sorted((run.folder / EXPLAINED_FOLDER).glob("*.png")) for run in runs}
    in_turn = [file for turn in zip_longest(*files.values()) for file in turn if file]
    chosen = set(in_turn[:most])
    return {
        key: {
            "folder": key.parent / EXPLAINED_FOLDER,
            "shown": [_explained_picture(file, roots) for file in pictures if file in chosen],
            "left_out": len(set(pictures) - chosen),
        }
        for key, pictures in files.items()
        if pictures
    }


def _explained_picture(file: Path, roots: PictureRoots) -> dict[str, Any]:
    reason = roots.refusal(file)
    src, reason = ("", reason) if reason else thumbnail(file, side=EXPLAINED)
    if not src:
        return {"src": "", "text": f"{file}: {reason}"}
    with Image.open(file) as image:
        text = str(image.info.get("Description", file.name))
        return {"src": src, "text": text, "width": image.width // 2}
