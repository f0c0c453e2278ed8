"""Compare a training step with the time that its arithmetic needs on this machine.

    python benchmarks/limit.py [--shapes tiny vit-b16] [--methods CoOp CoCoOp MaPLe CDC]
        [--classes 10 100 1000] [--repeats 3] [--run-at-most 2e12]
        [--device cuda] [--precision fp32|fp16|bf16|amp] [--compile]

Needed: the multiply-adds of the tokens that are read, forward and, where prompts learn, backward.
Limit: the time for these at the rate of a matrix product of that width, measured in the same run.
Published and ours: steps timed alternately, CPU time of one core (on a GPU, wall time). The batches
are the published ones (32, 1 and 4 images; CDC's as MaPLe's, each image in M views). CDC's step is
not published. Its column assumes the code of related methods: 77 tokens of each text for each
template, all tokens of each view with prompts, and once more without prompts for L_con. A published
step of more than `--run-at-most` multiply-adds is counted, not run. The last columns are our images
per second and the peak memory in MiB. Below the table: CDC's step in units of MaPLe's step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from baselines import batch_of, trainer_of
from plain import Plain
from setting import Setting, add_options
from shapes import NAMES, SHAPES, saved_clip
from timing import seconds
from torch import nn
from torch.nn import functional as F

from causalclip import plugin
from causalclip.clip.interface import backbone_of
from causalclip.clip.layout import TextLayout

BATCHES = {"CoOp": 32, "CoCoOp": 1, "MaPLe": 4, "CDC": 4}
# Rows of the matrix product whose rate is measured: enough to fill the device.
TOKENS = {"cpu": 1024, "cuda": 65536}


class Replaced(NamedTuple):
    """Prompt tokens that give a block only keys and values, summed over such blocks."""

    tokens: int
    pairs: int
    """Number of (query, key) pairs that are saved, as nothing reads these queries."""


NONE = Replaced(0, 0)


@dataclass(frozen=True)
class Tower:
    """Size of a transformer and of its output projection."""

    width: int
    layers: int
    out: int

    def work(
        self,
        tokens: int,
        pairs: int,
        read: int,
        read_pairs: int,
        learn: int | None = None,
        replaced: Replaced = NONE,
    ) -> int:
        """Return the multiply-adds of a pass.

        Args:
            tokens: number computed in all blocks; in the last, only as keys and values.
            pairs: number of (query, visible key) pairs in one block.
            read: number of tokens whose output the last block computes.
            read_pairs: number of pairs of these tokens.
            learn: number of input tokens with a gradient; None for a forward pass alone.
            replaced: the work saved at prompts that the next block replaces.
        """
        square = self.width**2
        seen = (self.layers - 1) * pairs - replaced.pairs + read_pairs
        attention = 2 * self.width * seen
        # All but keys and values: a block's queries, the projection after it, the MLP.
        linear = (self.layers - 1) * 12 * tokens - 10 * replaced.tokens + 2 * tokens + 10 * read
        forward = square * linear + attention + read * self.width * self.out
        if learn is None:
            return forward
        # Weights are frozen: a product costs one more product backward, attention two. The first
        # block's queries, keys and values of words and patches need no gradient.
        return 2 * forward + attention - self.first_products(tokens - learn)

    def first_products(self, tokens: int) -> int:
        """Return the multiply-adds of the first block's queries, keys and values."""
        return 3 * self.width**2 * tokens


class Step(NamedTuple):
    """Multiply-adds of a training step."""

    published: int
    needed: int


def text_step(tower: Tower, layout: TextLayout, groups: int, depth: int = 1) -> Step:
    """Return the text tower's work in a step with `groups` sets of prompts in `depth` blocks."""
    texts, full, start = len(layout.ends), 77, layout.n_shared
    runs = layout.groups
    pairs = start * (start + 1) // 2
    pairs += sum(n * (length * start + length * (length + 1) // 2) for n, length in runs)
    ends = sum(n * (start + length) for n, length in runs)
    learn, times = len(layout.prompted), depth - 1
    seen = int((layout.positions[layout.prompted] + 1).sum())
    replaced = Replaced(times * learn, times * seen)
    own = tower.work(len(layout.ids), pairs, texts, ends, learn, replaced)
    plain = tower.work(full * texts, full**2 * texts, full * texts, full**2 * texts, full * texts)
    return Step(groups * plain, groups * own)


def image_step(tower: Tower, images: int, patches: int, prompts: int, depth: int = 1) -> Step:
    """Return the work of the image tower in a step; without prompts nothing learns in it."""
    length = 1 + patches + prompts
    tokens, learn = images * length, images * prompts if prompts else None
    times = min(depth, tower.layers) - 1
    replaced = Replaced(times * images * prompts, times * images * prompts * length)
    own = tower.work(tokens, tokens * length, images, images * length, learn, replaced)
    all_learn = None if learn is None else tokens
    plain = tower.work(tokens, tokens * length, tokens, tokens * length, all_learn)
    return Step(plain, own)


def frozen_step(tower: Tower, images: int, patches: int) -> Step:
    """Return the work of the frozen image tower, whose features L_con compares images with.

    The first block's queries, keys and values of class token and patches are computed already.
    """
    alone = image_step(tower, images, patches, 0)
    return Step(alone.published, alone.needed - tower.first_products(images * (1 + patches)))


def parts_of(trainer: Any, method: str) -> dict[str, Step]:
    """Return the work of a step of this trainer, by encoded input."""
    clip, settings = trainer.clip, trainer.settings
    visual, out = clip.visual, clip.text_projection.shape[1]
    text = Tower(clip.transformer.width, clip.transformer.layers, out)
    image = Tower(visual.transformer.width, visual.transformer.layers, out)
    patches, sets = len(visual.positional_embedding) - 1, settings.get("N_TEMPLATES", 1)
    depth, images = settings.get("PROMPT_DEPTH", 1), BATCHES[method] * sets
    groups = BATCHES[method] if method == "CoCoOp" else sets
    prompts = settings.N_CTX if method in ("MaPLe", "CDC") else 0
    parts = {
        "texts": text_step(text, trainer.class_tokens.layout, groups, depth),
        "images": image_step(image, images, patches, prompts, depth),
    }
    return {**parts, "frozen": frozen_step(image, images, patches)} if method == "CDC" else parts


def total(parts: dict[str, Step]) -> Step:
    """Return the sum of all parts of a step."""
    return Step(*(sum(work) for work in zip(*parts.values(), strict=True)))


def rate(width: int, setting: Setting, repeats: int = 20) -> float:
    """Return multiply-adds a second of a block's largest product, median of the faster half."""
    tokens, kind = TOKENS[setting.device], {"device": setting.device, "dtype": setting.dtype}
    layer = nn.Linear(width, 4 * width, **kind).requires_grad_(False)
    x = torch.randn(tokens, width, **kind)
    times = sorted(
        seconds(lambda: F.linear(x, layer.weight), setting.clock) for _ in range(repeats)
    )
    return 4 * width**2 * tokens / statistics.median(times[: repeats // 2])


class Found(NamedTuple):
    """The measurements of a method's step."""

    parts: dict[str, Step]
    times: dict[str, float]
    """Median seconds of `ours`, the `limit` and, if it was run, `published`."""
    peaks: dict[str, int]
    """Peak memory in bytes of each way that was run."""

    @property
    def work(self) -> Step:
        """Return the sum of all parts of the step."""
        return total(self.parts)


def measure(trainer: Any, method: str, repeats: int, setting: Setting, run_at_most: float) -> Found:
    """Return the work of a step, the seconds and the memory of each way."""
    size, plain, ours = (
        backbone_of(trainer.clip).image_size,
        Plain(trainer),
        setting.compiled(trainer.loss),
    )
    images, labels = batch_of(trainer, BATCHES[method], size)
    parts, width = parts_of(trainer, method), trainer.clip.transformer.width
    work = total(parts)
    trainer.set_model_mode("train")

    def step(loss: Callable[[], torch.Tensor]) -> None:
        trainer.model.zero_grad()
        with setting.autocast():
            value = loss()
        value.backward()

    runs = {"ours": lambda: step(lambda: ours(images, labels)[0])}
    if work.published <= run_at_most:
        runs["published"] = lambda: step(lambda: plain.loss(images, labels))
    times = {name: [] for name in (*runs, "limit")}
    runs["ours"]()  # warm-up
    peaks = {name: setting.peak_bytes(run) for name, run in runs.items()}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, setting.clock))
        times["limit"].append(work.needed / rate(width, setting))
    return Found(parts, {name: statistics.median(t) for name, t in times.items()}, peaks)


def line_of(method: str, classes: int, found: Found) -> str:
    """Return one row of the table."""
    work, times, batch = found.work, found.times, BATCHES[method]
    memory = [found.peaks.get(name) for name in ("published", "ours")]
    mib = " | ".join("-" if peak is None else f"{peak / 2**20:.0f}" for peak in memory)
    published = times.get("published")
    faster = "-" if published is None else f"{published / times['ours']:.1f}x"
    seconds = "-" if published is None else f"{1e3 * published:.0f}"
    return (
        f"| {method}, batch {batch} | {classes:,} | {work.published / 1e9:.2f} "
        f"| {work.needed / 1e9:.2f} | {work.published / work.needed:.1f}x | {seconds} "
        f"| {1e3 * times['ours']:.0f} | {1e3 * times['limit']:.0f} | {faster} "
        f"| {times['ours'] / times['limit']:.1f} | {batch / times['ours']:.1f} | {mib} |"
    )


def against_maple(classes: int, cdc: Found, maple: Found) -> str:
    """Return the needed work and the time of a CDC step in units of a MaPLe step."""
    one = maple.work.needed
    parts = ", ".join(f"{name} {part.needed / one:.1f}" for name, part in cdc.parts.items())
    return (
        f"A CDC step of {classes:,} classes in MaPLe steps: {cdc.work.needed / one:.1f} needed "
        f"({parts}), {cdc.times['ours'] / maple.times['ours']:.1f} taken"
    )


def main() -> None:
    """Print the work of each step, its times and the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["tiny", "vit-b16"])
    parser.add_argument("--methods", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--classes", nargs="+", type=int, choices=NAMES, default=list(NAMES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run-at-most", type=float, default=2e12, metavar="MULTIPLY_ADDS")
    add_options(parser)
    args = parser.parse_args()
    setting = Setting.of(args)
    plugin.register_all()
    for shape in args.shapes:
        print(f"{shape} on {setting}: 1e9 multiply-adds of a step, milliseconds, ratios, MiB")
        print("| | classes | published | needed | work | published ms | ours ms | limit ms "
              "| published / ours | ours / limit | images/s | published MiB | ours MiB |\n|"
              + "---|" * 13)  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            backbone, size = saved_clip(shape, folder)
            rows = {}
            for method in args.methods:
                for classes in args.classes:
                    trainer = trainer_of(method, NAMES[classes], backbone, size, setting)
                    found = measure(trainer, method, args.repeats, setting, args.run_at_most)
                    print(line_of(method, classes, found), flush=True)
                    rows[method, classes] = found
            for classes in args.classes:
                if {("CDC", classes), ("MaPLe", classes)} <= rows.keys():
                    print(against_maple(classes, rows["CDC", classes], rows["MaPLe", classes]))


if __name__ == "__main__":
    main()
