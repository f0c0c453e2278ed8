"""Train from Python: `causalclip.train` returns the Predictor of a run."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from tqdm.auto import tqdm

from causalclip.data.catalogue import BUNDLED_NAMES
from causalclip.engine.draws import generators_kept
from causalclip.errors import UserError
from causalclip.files.text import end_log
from causalclip.predict.predictor import Predictor
from causalclip.runs import train as runs_train
from causalclip.runs.backbones import named_backbone, start_of
from causalclip.runs.configuration import cfg_from, check_names, trainer_class
from causalclip.runs.data_source import resolve_data

BATCH = re.compile(r"epoch \[(\d+)/(\d+)\] batch \[(\d+)/(\d+)\] .*?loss ([\d.]+)")
"""Pattern of a progress line in a training's log."""


def train(
    method: str,
    data: str | os.PathLike,
    *,
    backbone: str = "",
    shots: int | None = 16,
    output: str | os.PathLike = "",
    seed: int = 1,
    recipe: str = "",
    root: str | os.PathLike = "",
    verbose: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Predictor:
    """Train a method, test it, and return its predictor, as `Predictor.load(output)` does.

    A finished run in `output` is only tested again; an interrupted one resumes. The random
    generators of the caller keep their state. Warns if the CLIP does not know the classes.

    Args:
        method: a trainer, for example "CDC"; `causalclip methods` lists them.
        data: a registered data set, a folder of images, a CSV or Parquet table, a YAML, or
            hf:OWNER/NAME; see `causalclip.runs.data_source.resolve_data`.
        backbone: the name of a CLIP ("tiny", "ViT-B/16", "open_clip:MODEL/TAG"), a file of
            weights, or a YAML; empty: the recipe's.
        shots: training images per class; None: all images.
        output: the run's folder; empty: output/DATA/METHOD/RECIPE_SHOTSshots/seedSEED.
        seed: seed of the few-shot split and of the training.
        recipe: "tiny", "published", "tuned", a file of configs/trainers/METHOD/ without .yaml, or
            a YAML; empty: the recipe for the backbone. Image size and depths are fitted to it.
        root: the folder of the registered data sets; empty: $DATA, else data/.
        verbose: print the log, which is also in log.txt; False: show a progress bar.
        settings: further settings by key, for example {"OPTIM.MAX_EPOCH": 5}.

    Raises:
        UserError: an unknown method, data set, recipe or setting, or a wrong value.
        ValueError, OSError, FloatingPointError: wrong data, files or numbers; also an `output`
            that contains a run with other settings.

    Example:
        >>> predictor = causalclip.train("CDC", "photos", backbone="ViT-B/16", shots=16)
        >>> predictor("new.jpg")[0].classname
    """
    trainer_class(method)
    if shots is not None and shots < 1:
        raise UserError(f"shots must be a positive number, or None for all images, got {shots}")
    source = resolve_data(data, root)
    is_bundled = source.name in BUNDLED_NAMES
    if is_bundled:
        Path(source.settings["DATASET.ROOT"]).mkdir(parents=True, exist_ok=True)
    number = "all" if shots is None else str(shots)
    cell = ("fewshot", source.name, number)
    named = named_backbone(backbone) if backbone else None
    start = start_of(method, recipe, named, cell, bundled=is_bundled)
    name = f"{start.recipe.name}_{number}shots"
    folder = Path(output or f"output/{source.name}/{method}/{name}/seed{seed}")
    pairs = {
        **source.settings,
        **({"DATASET.TITLE": source.name} if source.path else {}),
        **start.fitting,
        "TRAINER.NAME": method,
        "DATASET.NUM_SHOTS": -1 if shots is None else shots,
        "OUTPUT_DIR": str(folder),
        "SEED": seed,
        **(settings or {}),
    }
    cfg = cfg_from(start.files, pairs)
    cfg.CONFIG_NAME = start.recipe.name
    cfg.freeze()
    check_names(cfg)
    with generators_kept(), _shown(f"{method} on {source.name}", verbose=verbose):
        trainer = runs_train.train(cfg, arguments=pairs)
    trainer.set_model_mode("eval")
    predictor = Predictor(cast(Any, trainer), folder)
    if predictor.warning:
        warnings.warn(predictor.warning, stacklevel=2)
    return predictor


@contextlib.contextmanager
def _shown(title: str, *, verbose: bool) -> Iterator[None]:
    """Show the log or a progress bar, and close the log at the end."""
    stdout = sys.stdout
    with contextlib.closing(_ProgressBar(title)) as bar:
        sys.stdout = stdout if verbose else bar
        try:
            yield
        finally:
            end_log(sys.exc_info()[1])
            sys.stdout = stdout


class _ProgressBar(io.TextIOBase):
    """A stdout that shows only a progress bar, which follows the batches in a training's log."""

    def __init__(self, title: str) -> None:
        self.title, self.part, self.bar = title, "", None

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self.part = (self.part + text).split("\n")
        for match in filter(None, map(BATCH.match, lines)):
            epoch, epochs, batch, batches = map(int, match.groups()[:4])
            if self.bar is None:
                self.bar = tqdm(desc=self.title, total=epochs * batches, unit="batch")
            self.bar.n = (epoch - 1) * batches + batch
            self.bar.set_postfix(epoch=epoch, loss=match[5])
        return len(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        super().close()
