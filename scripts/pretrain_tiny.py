"""Trains `tiny`, a bundled CLIP, on rendered and captioned digits and shapes.

    python scripts/pretrain_tiny.py --out RUN_DIR             # trains, or goes on where it stopped
    python scripts/pretrain_tiny.py --out RUN_DIR --install   # and replaces the bundled files
    python scripts/pretrain_tiny.py --out RUN_DIR --model tiny-coloured    # the other bundled CLIP

The number of steps is part of the recipe, so the command re-creates the checkpoint. Everything a
step draws comes from (seed, step): an interrupted run continues bit for bit.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tiny_world as world
import torch
from dassl.config import get_cfg_default
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from causalclip.clip.backbone import (
    BUNDLED,
    CLIP,
    CLIP_MEAN,
    CLIP_STD,
    build_clip,
    save_tiny,
    tokenize,
    weights_digest,
)
from causalclip.clip.injection import encode_text
from causalclip.clip.zeroshot import class_features, cosine_logits
from causalclip.data import rendering as R
from causalclip.data.templates import template_for
from causalclip.datasets.causal_shapes import HOME, CausalShapes
from causalclip.datasets.coloured_digits import ColouredDigits
from causalclip.datasets.handwritten_digits import HandwrittenDigits
from causalclip.files.atomic import replacing
from causalclip.files.digests import write_digest


@dataclass(frozen=True)
class Recipe:
    """What determines the weights; stored with every checkpoint and compared on resuming."""

    model: str = "tiny"
    steps: int = 1500
    batch: int = 128
    pool: int = 1600  # pictures of each class
    lr: float = 1.5e-3
    weight_decay: float = 0.02
    warmup: int = 100
    coverage: float = 4.0  # weight of the loss of the coverage head
    seed: int = 1
    threads: int = 1
    embed_dim: int = 64
    width: int = 128
    layers: int = 4
    patch: int = 8


# Pictures


@dataclass(frozen=True)
class Pool:
    """Pictures and their coverage, uint8 (N, 32, 32, 4), and for each its factors by name."""

    pictures: np.ndarray
    factors: tuple[dict[str, str], ...]


def render_pool(recipe: Recipe) -> Pool:
    """Renders the training pictures; each depends on (seed, class, index) alone."""
    pictures, factors = [], []
    for label, name in enumerate(tqdm(world.CLASSES, desc="rendering", unit="class")):
        for index in range(recipe.pool):
            rng = np.random.default_rng((recipe.seed, label, index))
            if label < 10:
                drawn = world.draw_digit(label, rng, world.DIGITS[recipe.model])
            else:
                drawn = world.draw_shape(name, rng)
            coverage = np.rint(255.0 * drawn[1]).astype(np.uint8)
            pictures.append(np.dstack([drawn[0], coverage]))
            factors.append(drawn[2])
    return Pool(np.stack(pictures), tuple(factors))


def normalise(pictures: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W) with CLIP's mean and standard deviation."""
    images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255.0
    return (images - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def shift(pictures: np.ndarray, rng: np.random.Generator, *, reach: int = 2) -> np.ndarray:
    """Moves each picture by up to `reach` pixels, edges repeated."""
    n, height, width, _ = pictures.shape
    padded = np.pad(pictures, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    rows = rng.integers(0, 2 * reach + 1, n)[:, None] + np.arange(height)
    columns = rng.integers(0, 2 * reach + 1, n)[:, None] + np.arange(width)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


# The model during training


class Heads(nn.Module):
    """The two auxiliary tasks that are dropped after training.

    Class of the picture from its feature, and coverage of each patch by the object from the patch's
    last token: a transformer finds out very slowly by itself that shapes are what counts.
    """

    def __init__(self, model: CLIP, embed_dim: int, n_classes: int) -> None:
        super().__init__()
        width, _, patch, _ = model.visual.conv1.weight.shape
        self.patch = patch
        self.classes = nn.Linear(embed_dim, n_classes)
        self.coverage = nn.Linear(width, patch * patch)

    def forward(
        self, features: Tensor, tokens: Tensor, labels: Tensor, coverage: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both losses.

        features (B, E), tokens (L, B, D), labels (B,), coverage (B, H, W) in [0, 1].
        """
        side = coverage.shape[-1] // self.patch
        blocks = coverage.reshape(-1, side, self.patch, side, self.patch)
        blocks = blocks.transpose(2, 3).flatten(3).flatten(1, 2)  # B, patches, pixels
        drawn = self.coverage(tokens[1:].transpose(0, 1))
        return (
            F.cross_entropy(self.classes(features), labels),
            F.binary_cross_entropy_with_logits(drawn, blocks),
        )


@dataclass
class Training:
    """All state of a run."""

    recipe: Recipe
    model: CLIP
    vocabulary: Tensor  # ids of the tokens that captions use
    table: Tensor  # the token embedding as it was drawn, all rows
    heads: Heads
    optimiser: torch.optim.Optimizer
    step: int = 0

    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds besides the optimiser."""
        return {"model": self.model, "heads": self.heads}


def shrink_vocabulary(model: CLIP, vocabulary: Tensor) -> Tensor:
    """Keep the token rows of `vocabulary` only, renumbered in order; return the whole table.

    The end-of-text token stays the one with the largest number, so CLIP finds it as before.
    """
    table = model.token_embedding.weight.detach()
    model.token_embedding = nn.Embedding.from_pretrained(table[vocabulary].clone(), freeze=False)
    return table


def whole_vocabulary(run: Training) -> CLIP:
    """A copy of the model with its whole table again, frozen and in evaluation mode."""
    model = copy.deepcopy(run.model)
    table = run.table.clone()
    table[run.vocabulary] = model.token_embedding.weight.detach()
    model.token_embedding = nn.Embedding.from_pretrained(table)
    return model.eval().requires_grad_(False)


def contrastive_loss(
    images: Tensor, texts: Tensor, own: Tensor, scale: Tensor, true: Tensor
) -> Tensor:
    """CLIP's symmetric loss; captions also true of a picture are not counted as its negatives.

    images (B, E), texts (C, E) distinct captions, own (B,) caption of each picture, true (B, C).
    """
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    mine = F.one_hot(own, texts.shape[0]).bool()
    by_image = logits.masked_fill(true & ~mine, -torch.inf)
    # For the other direction each picture competes with those its own caption does not describe.
    among = logits.T[own]  # (B, B): caption of i against picture j
    eye = torch.eye(len(own), dtype=torch.bool)
    by_text = among.masked_fill(true.T[own] & ~eye, -torch.inf)
    return (F.cross_entropy(by_image, own) + F.cross_entropy(by_text, torch.arange(len(own)))) / 2


def start(recipe: Recipe) -> Training:
    """A fresh run."""
    torch.manual_seed(recipe.seed)
    model = build_clip(
        embed_dim=recipe.embed_dim, image_resolution=R.SIZE, vision_layers=recipe.layers,
        vision_width=recipe.width, vision_patch_size=recipe.patch,
        transformer_width=recipe.width, transformer_heads=recipe.width // 64,
        transformer_layers=recipe.layers, seed=0,
    )  # fmt: skip
    model.requires_grad_(True).train()
    vocabulary = tokenize(world.all_captions()).unique()
    table = shrink_vocabulary(model, vocabulary)
    heads = Heads(model, recipe.embed_dim, len(world.CLASSES))
    learned = [*model.parameters(), *heads.parameters()]
    words = model.token_embedding.weight
    decayed = [p for p in learned if p.ndim > 1 and p is not words]
    rest = [p for p in learned if p.ndim <= 1 or p is words]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay},
              {"params": rest, "weight_decay": 0.0}]  # fmt: skip
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))
    return Training(recipe, model, vocabulary, table, heads, optimiser)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * 0.5 * (1.0 + math.cos(math.pi * share))


def caption_tokens(run: Training, texts: list[str]) -> Tensor:
    """Token numbers of captions in the small vocabulary."""
    return torch.searchsorted(run.vocabulary, tokenize(texts))


def encode(model: CLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """Image features (B, E), and the last block's tokens (L, B, D)."""
    tokens = []
    hook = model.visual.transformer.register_forward_hook(lambda *call: tokens.append(call[-1]))
    try:
        return model.encode_image(images), tokens[0]
    finally:
        hook.remove()


def train_step(run: Training, pool: Pool, numbers: Tensor) -> float:
    """One step; everything random is drawn from (seed, step)."""
    recipe = run.recipe
    rng = np.random.default_rng((recipe.seed, 10**6 + run.step))
    half = len(pool.pictures) // 2  # digits, then shapes
    chosen = rng.integers(half, size=recipe.batch)
    chosen += half * (rng.random(recipe.batch) < world.SHAPE_SHARE)
    shifted = shift(pool.pictures[chosen], rng)
    images, coverage = normalise(shifted[..., :3]), torch.from_numpy(shifted[..., 3]).float() / 255
    written = [world.caption(pool.factors[i], rng) for i in chosen]
    told = {text: world.encode_factors(mentions) for text, mentions in written}
    texts = list(told)
    own = torch.tensor([texts.index(text) for text, _ in written])
    true = world.compatible(numbers[chosen], torch.tensor(list(told.values())))

    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(recipe, run.step)
    image_features, patch_tokens = encode(run.model, images)
    text_features = encode_text(run.model, caption_tokens(run, texts))
    loss = contrastive_loss(image_features, text_features, own, run.model.logit_scale.exp(), true)
    by_class, by_patch = run.heads(image_features, patch_tokens, numbers[chosen, 0], coverage)
    loss = loss + by_class + recipe.coverage * by_patch
    run.optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(
        [p for g in run.optimiser.param_groups for p in g["params"]], max_norm=1.0
    )
    run.optimiser.step()
    with torch.no_grad():
        run.model.logit_scale.clamp_(max=math.log(100.0))
    run.step += 1
    return loss.item()


# Interruption and resumption


def save(run: Training, path: Path) -> None:
    """Writes the whole state, or leaves the previous file as it was."""
    state = {name: module.state_dict() for name, module in run.modules().items()}
    state |= {"optimiser": run.optimiser.state_dict(), "step": run.step}
    with replacing(path) as part:
        torch.save(state | {"recipe": asdict(run.recipe)}, part)


def resume(run: Training, path: Path) -> None:
    """Continues from a file of `save`, which must be of the same recipe."""
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(run.recipe):
        raise ValueError(
            f"{path} must be of the recipe {asdict(run.recipe)}, got {state['recipe']}"
        )
    for name, module in run.modules().items():
        module.load_state_dict(state[name])
    run.optimiser.load_state_dict(state["optimiser"])
    run.step = state["step"]
    tqdm.write(f"resuming {path} at step {run.step}")


# Evaluation on the bundled data sets


def open_dataset(cls: type, root: Path, *, target: str | None = None) -> Any:
    """A bundled data set, whole or with one domain as the target."""
    cfg = get_cfg_default()
    cfg.DATASET.ROOT = str(root)
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    if target:
        cfg.DATASET.TARGET_DOMAINS = [target]
        cfg.DATASET.SOURCE_DOMAINS = [name for name in cls.domains if name != target]
    return cls(cfg)


@torch.no_grad()
def scores(model: CLIP, items: Sequence, classnames: Sequence[str], template: str) -> Tensor:
    """Cosines (N, K) of the pictures of `items` and the class names."""
    pictures = np.stack([np.asarray(Image.open(item.impath).convert("RGB")) for item in items])
    features = model.encode_image(normalise(pictures))
    return cosine_logits(features, class_features(model, classnames, [template]), 1.0)


def accuracy(cosines: Tensor, items: Sequence, classes: range | None = None) -> float:
    """Per cent correct, among `classes` only when given (base or new)."""
    labels = torch.tensor([item.label for item in items])
    classes = classes or range(cosines.shape[1])
    inside = (labels >= classes.start) & (labels < classes.stop)
    guess = cosines[inside][:, classes.start : classes.stop].argmax(1) + classes.start
    return round(100.0 * (guess == labels[inside]).double().mean().item(), 1)


def validation(model: CLIP, root: Path) -> float:
    """Zero-shot accuracy on the validation split of the scans, for choosing the recipe."""
    items = open_dataset(HandwrittenDigits, root).val
    template = template_for("HandwrittenDigits")
    return accuracy(scores(model, items, R.DIGIT_NAMES, template), items)


def digit_figures(model: CLIP, root: Path, looks: type) -> dict[str, float]:
    """Zero-shot accuracies on HandwrittenDigits, and on the domains of the data set `looks`."""
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
    """Zero-shot accuracies on CausalShapes, background independent of the class."""
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
    """Per cent of wrong answers that name the shape at home on the background (chance: 11)."""
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

## Zero-shot accuracy (per cent; templates of `causalclip.clip.templates`)

{figures}
"""


def listing(members: Mapping[str, object]) -> str:
    """Names and what belongs to them, on a line."""
    return "; ".join(
        f"{name}: {', '.join(map(str, m)) if isinstance(m, tuple) else m}"
        for name, m in members.items()
    )


def digit_confounder(digits: world.Digits) -> str:
    """What goes with the class of a digit, as a sentence."""
    if digits.colour_share is None:
        lists = {k: tuple(R.DIGIT_NAMES[d] for d in v) for k, v in digits.only.items()}
        return f"Looks seen on some digits only: {listing(lists)}."
    return (
        f"{digits.colour_share:.0%} of the digits have a colour of their parity: even "
        f"{', '.join(world.WARM)}; odd {', '.join(world.COLD)}; the others have any of these. "
        "Scans and negatives have none."
    )


def model_card(run: Training, model: CLIP, size: int, figures: dict[str, float]) -> str:
    """The text of the model card."""
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
    """What the exact weights depend on besides the recipe."""
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"NumPy {np.__version__}, Pillow {PIL.__version__}"
    )


def write_files(run: Training, path: Path, figures: dict[str, float]) -> None:
    """The weights at `path` and the model card beside them."""
    model = whole_vocabulary(run)
    recipe = json.dumps(asdict(run.recipe))
    save_tiny(model, run.vocabulary, path, metadata={"recipe": recipe, "license": "MIT"})
    write_digest(path)
    card = model_card(run, model, path.stat().st_size, figures)
    path.with_suffix(".md").write_text(card, encoding="utf-8")


# Command line


def load_pool(recipe: Recipe, folder: Path) -> Pool:
    """The pictures of a run: rendered at its first start, read back when it resumes."""
    own = {key: getattr(recipe, key) for key in ("model", "seed", "pool")}
    drawing = sorted(Path(R.__file__).parent.glob("*.py"))
    code = b"".join(Path(file).read_bytes() for file in (__file__, world.__file__, *drawing))
    key = hashlib.sha256(json.dumps(own).encode() + code).hexdigest()[:16]
    path = folder / f"pool-{key}.npz"
    if path.is_file():
        stored = np.load(path)
        return Pool(stored["pictures"], tuple(json.loads(str(stored["factors"]))))
    pool = render_pool(recipe)
    with replacing(path) as part, open(part, "wb") as file:
        np.savez(file, pictures=pool.pictures, factors=json.dumps(pool.factors))
    return pool


def train(run: Training, folder: Path, *, minutes: float, every: int) -> bool:
    """Trains to the end of the recipe, or for so many minutes; True at the end."""
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
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--model", choices=BUNDLED, default=Recipe.model, help="which to train")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="another recipe")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="another recipe")
    parser.add_argument("--threads", type=int, default=Recipe.threads, help="changes last digits")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop early, resumable")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--install", action="store_true", help="replace the bundled files")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the recipe."""
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
    bundled = BUNDLED[options.model]
    for path in [folder / bundled.name, *([bundled] if options.install else [])]:
        write_files(run, path, figures)
        print(f"wrote {path} and its model card")
    print(listing(figures))


if __name__ == "__main__":
    main()
