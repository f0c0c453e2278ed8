"""A plot: the text tower's step over the number of classes, context words and templates.

    python benchmarks/growth.py [--shape tiny] [--repeats 3] docs/growth.svg

Forward and backward, CPU seconds of one core: published (77 tokens a text, template after
template), ours, and the limit, which is the needed multiply-adds at the rate of a matrix product.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import matplotlib
import torch
from limit import Tower, rate, text_step
from setting import Setting
from shapes import IMAGENET, SHAPES
from timing import seconds

from causalclip.clip.backbone import build_clip
from causalclip.clip.injection import prompted
from causalclip.clip.model import CLIPModel
from causalclip.clip.prompt_set import PromptSet, encode_text_sets
from causalclip.clip.texts import class_tokens

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# What grows, and (classes, words, templates) at each point.
SERIES = {
    "classes (16 context words)": [(k, 16, 1) for k in (10, 30, 100, 300, 1000)],
    "context words (100 classes)": [(100, n, 1) for n in (1, 4, 16, 48)],
    "templates (100 classes, 4 words)": [(100, 4, m) for m in (1, 2, 4, 8)],
}


def milliseconds(
    model: CLIPModel, classes: int, words: int, templates: int, repeats: int
) -> dict[str, float]:
    """Median milliseconds of each way, and of the limit."""
    texts = class_tokens(IMAGENET[:classes], n_ctx=words)
    ctx = (0.02 * torch.randn(templates, words, model.transformer.width)).requires_grad_()
    tower = Tower(model.transformer.width, model.transformer.layers, model.text_projection.shape[1])
    needed = text_step(tower, texts.layout, templates).needed

    def published() -> None:
        for own in ctx:
            with prompted(model, text=[own]):
                model.encode_text(texts.tokens).sum().backward()

    def ours() -> None:
        encode_text_sets(model, texts, PromptSet(text=(ctx,))).sum().backward()

    here, times = Setting(), {"published": [], "ours": [], "limit": []}
    ours()
    for _ in range(repeats if classes < 1000 else 1):
        times["published"].append(seconds(published, here.clock))
        times["ours"].append(seconds(ours, here.clock))
        times["limit"].append(needed / rate(tower.width, here))
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Draw the times as classes, words and templates grow."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = build_clip(**SHAPES[args.shape]).requires_grad_(False)
    figure, axes = plt.subplots(1, len(SERIES), figsize=(11, 3.4), sharey=True)
    for axis, (title, points) in zip(axes, SERIES.items(), strict=True):
        found = [milliseconds(model, *point, args.repeats) for point in points]
        grows = max(range(3), key=lambda i: points[-1][i] / points[0][i])
        for name, style in (("published", "o-"), ("ours", "s-"), ("limit", ":")):
            axis.loglog([p[grows] for p in points], [f[name] for f in found], style, label=name)
        axis.set_xlabel(title)
        print(title, [{name: round(ms, 1) for name, ms in f.items()} for f in found], flush=True)
    axes[0].set_ylabel("ms, forward and backward")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(args.file, metadata={"Date": None})


if __name__ == "__main__":
    main()
