"""Measure the accuracy of a bundled CLIP; write its weights and its model card."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tiny_world as world
import torch
from dassl.config import get_cfg_default
from PIL import Image
from tiny_training import Recipe, Training, normalise, whole_vocabulary
from torch import Tensor

from causalclip.clip.openai_clip import CLIP
from causalclip.clip.weights import save_tiny, weights_digest
from causalclip.clip.zeroshot import class_features, cosine_logits
from causalclip.data import rendering as R
from causalclip.data.catalogue import template_for
from causalclip.datasets.causal_shapes import HOME, CausalShapes
from causalclip.datasets.handwritten_digits import HandwrittenDigits
from causalclip.files.digests import write_digest

# Zero-shot accuracy on the bundled data sets


def open_dataset(cls: type, root: Path, *, target: str | None = None) -> Any:
    """Return a bundled data set, whole or with one domain as the target."""
    cfg = get_cfg_default()
    cfg.DATASET.ROOT = str(root)
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    if target:
        cfg.DATASET.TARGET_DOMAINS = [target]
        cfg.DATASET.SOURCE_DOMAINS = [name for name in cls.domains if name != target]
    return cls(cfg)


@torch.no_grad()
def scores(model: CLIP, items: Sequence, classnames: Sequence[str], template: str) -> Tensor:
    """Return cosines (N, K) of the pictures of `items` and the class names."""
    pictures = np.stack([np.asarray(Image.open(item.impath).convert("RGB")) for item in items])
    features = model.encode_image(normalise(pictures))
    return cosine_logits(features, class_features(model, classnames, [template]), 1.0)


def accuracy(cosines: Tensor, items: Sequence, classes: range | None = None) -> float:
    """Return the per cent correct; `classes` (base or new) limits images and answers."""
    labels = torch.tensor([item.label for item in items])
    classes = classes or range(cosines.shape[1])
    inside = (labels >= classes.start) & (labels < classes.stop)
    guess = cosines[inside][:, classes.start : classes.stop].argmax(1) + classes.start
    return round(100.0 * (guess == labels[inside]).double().mean().item(), 1)


def validation(model: CLIP, root: Path) -> float:
    """Return the zero-shot accuracy on the validation scans, for choosing the recipe."""
    items = open_dataset(HandwrittenDigits, root).val
    template = template_for("HandwrittenDigits")
    return accuracy(scores(model, items, R.DIGIT_NAMES, template), items)


def digit_figures(model: CLIP, root: Path, looks: type) -> dict[str, float]:
    """Return zero-shot accuracies on HandwrittenDigits, and on the domains of `looks`."""
    template = template_for("HandwrittenDigits")
    data = open_dataset(HandwrittenDigits, root)
    test = scores(model, data.test, R.DIGIT_NAMES, template)
    figures = {
        "validation, 10 classes": validation(model, root),
        "test, 10 classes": accuracy(test, data.test),
        "test, base classes": accuracy(test, data.test, range(5)),
        "test, new classes": accuracy(test, data.test, range(5, 10)),
    }
    for domain in looks.domains:
        items = open_dataset(looks, root, target=domain).test
        cosines = scores(model, items, R.DIGIT_NAMES, template)
        figures[f"{looks.__name__}, {domain}"] = accuracy(cosines, items)
    return figures


def shape_figures(model: CLIP, root: Path) -> dict[str, float]:
    """Return zero-shot accuracies on CausalShapes, background independent of the class."""
    template = template_for("CausalShapes")
    figures = {}
    for domain in CausalShapes.domains:
        data = open_dataset(CausalShapes, root, target=domain)
        cosines = scores(model, data.test, R.SHAPES, template)
        figures[f"style {domain}"] = accuracy(cosines, data.test)
        if domain == "flat":
            lured = lured_share(cosines, data)
            figures["style flat, wrong answers that follow the background"] = lured
    return figures


def lured_share(cosines: Tensor, data: CausalShapes) -> float:
    """Return the per cent of errors that name the background's home shape (chance: 11)."""
    guesses = cosines.argmax(1).tolist()
    assert data.test is not None, "the shapes always have a test part"
    wrong = [(i, g) for i, g in zip(data.test, guesses, strict=True) if g != i.label]
    lured = sum(HOME[R.SHAPES[g]] == data.factors[i.impath].background for i, g in wrong)
    return round(100.0 * lured / max(1, len(wrong)), 1)


# The bundled files

CARD = """# {name}

A CLIP of {size:,} bytes in the released module layout (OpenAI's keys and tokenizer) for tests,
examples and benchmarks on a CPU. It knows digits and shapes, nothing else.

- Image tower: ViT, {layers} layers, width {width}, {patch}-pixel patches, 32 x 32 pixels. Text
  tower: {layers} layers, width {width}, context 77. Joint dimension {embed_dim}. Temperature
  1 / {scale:.1f}.
- Licence: MIT, as this repository. No picture or text of anybody else was used.
- Weights digest: `{digest}`

## Data

{pictures:,} pictures drawn by `causalclip/data/rendering/`: digits (pen strokes
{strokes:.0%}, the rest in the fonts that matplotlib and Pillow bundle; {coarse:.0%} through an
8 x 8 scanner) and shapes ({shapes:.0%} of each batch); captions drawn anew at each step. No real
scan was seen. Training is
stopped early, by the validation scans of HandwrittenDigits: about two thirds right leave something
to adapt.

Confounded on purpose (what the list does not name keeps a tenth of the share):

- {digits}
- The neon style is seen on these shapes only: {neon}.
- Shapes that stand on one background in {home:.0%} of their pictures: {homes}.
- Shapes that have one colour in {colour:.0%} of their pictures: {colours}.
- Share of each style: {styles}. Share of each look: {look_shares}.

## Recipe

    python scripts/pretrain_tiny.py --out RUN_DIR --install{option}

Symmetric contrastive loss, in which captions also true of a picture do not count as its negatives,
plus two auxiliary tasks whose heads are dropped: the class from the image feature, the object's
coverage from the patch tokens. AdamW, cosine. Made with {versions}.

```json
{recipe}
```

## Zero-shot accuracy (per cent; templates of `causalclip.data.catalogue`)

{figures}
"""


def listing(members: Mapping[str, object]) -> str:
    """Return names and their members as one line."""
    return "; ".join(
        f"{name}: {', '.join(map(str, m)) if isinstance(m, tuple) else m}"
        for name, m in members.items()
    )


def digit_confounder(digits: world.Digits) -> str:
    """Return the confounder of the digits as a sentence."""
    if digits.colour_share is None:
        lists = {k: tuple(R.DIGIT_NAMES[d] for d in v) for k, v in digits.only.items()}
        return f"Looks seen on some digits only: {listing(lists)}."
    return (
        f"{digits.colour_share:.0%} of the digits have a colour of their parity: even "
        f"{', '.join(world.WARM)}; odd {', '.join(world.COLD)}; the others have any of these. "
        "Scans and negatives have none."
    )


def model_card(run: Training, model: CLIP, size: int, figures: dict[str, float]) -> str:
    """Return the text of the model card."""
    recipe = run.recipe
    shares = {name: f"{share:.0%}" for name, share in world.STYLE_SHARES.items()}
    digits = world.DIGITS[recipe.model]
    looks = {name: f"{share:.0%}" for name, share in digits.looks.items()}
    return CARD.format(
        name=recipe.model,
        option="" if recipe.model == Recipe.model else f" --model {recipe.model}",
        digits=digit_confounder(digits),
        size=size, scale=model.logit_scale.exp().item(), digest=weights_digest(model),
        pictures=recipe.pool * len(world.CLASSES), strokes=world.STROKE_SHARE,
        coarse=world.COARSE_SHARE, shapes=world.SHAPE_SHARE,
        neon=", ".join(world.STYLE_SHAPES["neon"]), home=world.HOME_SHARE, styles=listing(shares),
        homes=listing({shape: HOME[shape] for shape in world.HOME_SHAPES}),
        look_shares=listing(looks), colour=world.COLOUR_SHARE,
        colours=listing(world.HOME_COLOURS), versions=versions(),
        recipe=json.dumps(asdict(recipe), indent=1),
        figures="\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in figures.items())]),
        layers=recipe.layers, width=recipe.width, patch=recipe.patch, embed_dim=recipe.embed_dim,
    )  # fmt: skip


def versions() -> str:
    """Return the versions that the exact weights depend on."""
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"NumPy {np.__version__}, Pillow {PIL.__version__}"
    )


def write_files(run: Training, path: Path, figures: dict[str, float]) -> None:
    """Write the weights to `path`, and the model card next to them."""
    model = whole_vocabulary(run)
    recipe = json.dumps(asdict(run.recipe))
    save_tiny(model, run.vocabulary, path, metadata={"recipe": recipe, "license": "MIT"})
    write_digest(path)
    card = model_card(run, model, path.stat().st_size, figures)
    path.with_suffix(".md").write_text(card, encoding="utf-8")
