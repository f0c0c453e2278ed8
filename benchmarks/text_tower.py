"""Time the text tower, forward and backward: published, cut after the longest text, and ours.

    python benchmarks/text_tower.py [--shape tiny|vit-b32|vit-b16] [--classes 100 1000]
        [--words 4 16] [--repeats 3] [--device cuda] [--precision fp32|fp16|bf16|amp] [--compile]

Published: 77 tokens a text. Cut: the model's own forward up to the longest text. Ours: the common
start is computed once, without padding, and the last block only for end tokens. Prints milliseconds
(of one core, or of the GPU), ratios to the published way, the peak memory, and the relative
distances of values and gradients.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable

import torch
from setting import Setting, add_options
from shapes import NAMES, SHAPES, saved_clip
from timing import seconds
from torch import Tensor
from torch.nn import functional as F

from causalclip.clip.backbone import load_clip
from causalclip.clip.encode import encode_classes, encode_text
from causalclip.clip.injection import prompted
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.prompts import TextPrompts
from causalclip.clip.texts import ClassTokens, class_tokens

Way = Callable[[], Tensor]


def ways(model: CLIPModel, texts: ClassTokens, ctx: Tensor, setting: Setting) -> dict[str, Way]:
    """Return three functions that compute the same features (K, E)."""

    def published() -> Tensor:
        with prompted(model, text=[ctx]):
            return model.encode_text(texts.tokens)

    def cut() -> Tensor:
        with prompted(model, text=[ctx]):  # hooks: the model's own forward
            return encode_text(model, texts.tokens)

    return {
        "published": published,
        "cut": cut,
        "ours": setting.compiled(lambda: encode_classes(model, texts, PromptSet(text=(ctx,)))),
    }


def step(way: Way, ctx: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
    """Return the features and the gradient of a scalar that depends on all texts."""
    with setting.autocast():
        features = way().float()
    half = features.shape[-1] // 2
    (gradient,) = torch.autograd.grad(F.normalize(features, dim=-1)[:, :half].sum(), ctx)
    return features.detach(), gradient


def apart(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> str:
    """Return relative distances of two pairs of values and gradients."""
    value, gradient = (((a - b).norm() / b.norm()).item() for a, b in zip(one, other, strict=True))
    return f"values {value:.0e}, gradients {gradient:.0e}"


def measure(model: CLIPModel, classes: int, words: int, repeats: int, setting: Setting) -> None:
    """Print one line for each way."""
    texts = class_tokens(NAMES[classes], n_ctx=words).to(setting.device)
    ctx = TextPrompts(words, model.transformer.width).to(setting.device).ctx
    found = ways(model, texts, ctx, setting)
    runs = {name: (lambda way=way: step(way, ctx, setting)) for name, way in found.items()}
    answers = {name: run() for name, run in runs.items()}
    times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, setting.clock))
    median = {name: statistics.median(values) for name, values in times.items()}
    peak = {name: setting.peak_bytes(run) for name, run in runs.items()}
    print(f"{setting}: {classes} classes, {words} context words: {len(texts.layout.ids)} tokens")
    for name, answer in answers.items():
        print(
            f"  {name:9} {1e3 * median[name]:8.1f} ms, {median['published'] / median[name]:5.1f}x; "
            f"{peak[name] / 2**20:7.1f} MiB, {peak[name] / peak['published']:.3f}; "
            f"apart: {apart(answer, answers['published'])}"
        )


def main() -> None:
    """Compare time, memory and results of the three ways."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--classes", nargs="+", type=int, choices=NAMES, default=[100, 1000])
    parser.add_argument("--words", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--repeats", type=int, default=3)
    add_options(parser)
    args = parser.parse_args()
    setting = Setting.of(args)
    with tempfile.TemporaryDirectory() as folder:
        file, _ = saved_clip(args.shape, folder)
        model = load_clip(file, device=setting.device, precision=setting.precision)
    for classes in args.classes:
        for words in args.words:
            measure(model, classes, words, args.repeats, setting)


if __name__ == "__main__":
    main()
