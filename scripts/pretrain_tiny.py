"""Train `tiny`, a bundled CLIP, on rendered and captioned digits and shapes.

    python scripts/pretrain_tiny.py --out RUN_DIR             # trains or resumes
    python scripts/pretrain_tiny.py --out RUN_DIR --install   # also replaces the bundled files
    python scripts/pretrain_tiny.py --out RUN_DIR --model tiny-coloured    # the other bundled CLIP

The number of steps is part of the recipe, so the command re-creates the checkpoint. Each step seeds
its random numbers with (seed, step): an interrupted run resumes bit for bit.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import tiny_world as world
import torch
from tiny_card import digit_figures, listing, shape_figures, validation, write_files
from tiny_training import (
    Recipe,
    Training,
    load_pool,
    resume,
    save,
    start,
    train_step,
    whole_vocabulary,
)
from tqdm.auto import tqdm

from causalclip.clip.backbone import BUNDLED_CLIPS
from causalclip.datasets.handwritten_digits import ColouredDigits, HandwrittenDigits


def train(run: Training, folder: Path, *, minutes: float, every: int) -> bool:
    """Train to the end of the recipe, or for `minutes`; return whether the end is reached."""
    recipe, started = run.recipe, time.monotonic()
    pool = load_pool(recipe, folder)
    numbers = torch.tensor([world.encode_factors(factors) for factors in pool.factors])
    progress = tqdm(total=recipe.steps, initial=run.step, desc="pretraining", unit="step")
    while run.step < recipe.steps and time.monotonic() - started < 60.0 * minutes:
        loss = train_step(run, pool, numbers)
        progress.update()
        progress.set_postfix(loss=f"{loss:.3f}", scale=f"{run.model.logit_scale.exp():.1f}")
        if run.step % every == 0:
            save(run, folder / "state.pt")
            valid = validation(whole_vocabulary(run), folder / "data")
            tqdm.write(f"step {run.step}: loss {loss:.3f}, {valid} % of the validation scans")
    progress.close()
    save(run, folder / "state.pt")
    return run.step == recipe.steps


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument(
        "--model", choices=BUNDLED_CLIPS, default=Recipe.model, help="CLIP to train"
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="seed of the recipe")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="steps of the recipe")
    parser.add_argument("--threads", type=int, default=Recipe.threads, help="changes last digits")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop early, resumable")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--install", action="store_true", help="replace the bundled files")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write the weights and the model card."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    folder = options.out
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(
        model=options.model, steps=options.steps, seed=options.seed, threads=options.threads
    )
    run = start(recipe)
    if (folder / "state.pt").is_file():
        resume(run, folder / "state.pt")
    if not train(run, folder, minutes=options.minutes, every=options.every):
        print(f"stopped at step {run.step} of {run.recipe.steps}; run again to continue")
        return
    model = whole_vocabulary(run)
    looks = ColouredDigits if world.DIGITS[options.model].colour_share else HandwrittenDigits
    figures = digit_figures(model, folder / "data", looks) | shape_figures(model, folder / "data")
    bundled = BUNDLED_CLIPS[options.model]
    for path in [folder / bundled.name, *([bundled] if options.install else [])]:
        write_files(run, path, figures)
        print(f"wrote {path} and its model card")
    print(listing(figures))


if __name__ == "__main__":
    main()
