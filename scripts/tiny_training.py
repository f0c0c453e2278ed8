"""The training of the bundled CLIPs: pictures, the model during training, a step, and resuming.

Each step seeds its random numbers with (seed, step): an interrupted run resumes bit for bit.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tiny_world as world
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from causalclip.clip.backbone import CLIP_MEAN, CLIP_STD, build_clip
from causalclip.clip.encode import encode_text
from causalclip.clip.interface import tokenize
from causalclip.clip.openai_clip import CLIP
from causalclip.data import rendering as R
from causalclip.files.atomic import replacing


@dataclass(frozen=True)
class Recipe:
    """The settings that determine the weights; compared on resuming."""

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
    """Pictures and their coverage, uint8 (N, 32, 32, 4), and the factors of each by name."""

    pictures: np.ndarray
    factors: tuple[dict[str, str], ...]


def render_pool(recipe: Recipe) -> Pool:
    """Render the training pictures; each depends on (seed, class, index) alone."""
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


def load_pool(recipe: Recipe, folder: Path) -> Pool:
    """Return the pictures of a run, rendered at its first start."""
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


def normalise(pictures: np.ndarray) -> Tensor:
    """Convert uint8 (N, H, W, 3) to float (N, 3, H, W) by CLIP's mean and deviation."""
    images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255.0
    return (images - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def shift(pictures: np.ndarray, rng: np.random.Generator, *, reach: int = 2) -> np.ndarray:
    """Move each picture by up to `reach` pixels, edges repeated."""
    n, height, width, _ = pictures.shape
    padded = np.pad(pictures, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    rows = rng.integers(0, 2 * reach + 1, n)[:, None] + np.arange(height)
    columns = rng.integers(0, 2 * reach + 1, n)[:, None] + np.arange(width)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


# The model during training


class Heads(nn.Module):
    """The two auxiliary tasks that are dropped after training.

    One predicts the class of the picture from its feature, the other the object's coverage of each
    patch from the patch's last token. Without them, a transformer is very slow to learn shapes.
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
        """Return both losses.

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
    table: Tensor  # the initial token embedding, all rows
    heads: Heads
    optimiser: torch.optim.Optimizer
    step: int = 0

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules that a checkpoint contains."""
        return {"model": self.model, "heads": self.heads}


def shrink_vocabulary(model: CLIP, vocabulary: Tensor) -> Tensor:
    """Keep the token rows of `vocabulary` only, renumbered in order; return the whole table.

    The end-of-text token stays the one with the largest number, so CLIP finds it as before.
    """
    table = model.token_embedding.weight.detach()
    model.token_embedding = nn.Embedding.from_pretrained(table[vocabulary].clone(), freeze=False)
    return table


def whole_vocabulary(run: Training) -> CLIP:
    """Return a copy of the model with its whole table, frozen and in evaluation mode."""
    model = copy.deepcopy(run.model)
    table = run.table.clone()
    table[run.vocabulary] = model.token_embedding.weight.detach()
    model.token_embedding = nn.Embedding.from_pretrained(table)
    return model.eval().requires_grad_(False)


def contrastive_loss(
    images: Tensor, texts: Tensor, own: Tensor, scale: Tensor, true: Tensor
) -> Tensor:
    """Return CLIP's symmetric loss; other captions that are true of a picture are not negatives.

    images (B, E), texts (C, E) distinct captions, own (B,) caption of each picture, true (B, C).
    """
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    mine = F.one_hot(own, texts.shape[0]).bool()
    by_image = logits.masked_fill(true & ~mine, -torch.inf)
    # In the other direction, a caption's negatives are the pictures that it does not describe.
    among = logits.T[own]  # (B, B): caption of i against picture j
    eye = torch.eye(len(own), dtype=torch.bool)
    by_text = among.masked_fill(true.T[own] & ~eye, -torch.inf)
    return (F.cross_entropy(by_image, own) + F.cross_entropy(by_text, torch.arange(len(own)))) / 2


def start(recipe: Recipe) -> Training:
    """Return a fresh run."""
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
    """Return the rate: linear warm-up, then half a cosine to zero."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * 0.5 * (1.0 + math.cos(math.pi * share))


def caption_tokens(run: Training, texts: list[str]) -> Tensor:
    """Return token numbers of captions in the small vocabulary."""
    return torch.searchsorted(run.vocabulary, tokenize(texts))


def encode(model: CLIP, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return image features (B, E), and the last block's tokens (L, B, D)."""
    tokens = []
    hook = model.visual.transformer.register_forward_hook(lambda *call: tokens.append(call[-1]))
    try:
        return model.encode_image(images), tokens[0]
    finally:
        hook.remove()


def train_step(run: Training, pool: Pool, numbers: Tensor) -> float:
    """Train one step, with random numbers seeded by (seed, step); return the loss."""
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
    """Write the whole state atomically."""
    state = {name: module.state_dict() for name, module in run.modules().items()}
    state |= {"optimiser": run.optimiser.state_dict(), "step": run.step}
    with replacing(path) as part:
        torch.save(state | {"recipe": asdict(run.recipe)}, part)


def resume(run: Training, path: Path) -> None:
    """Continue from a file of `save`; raise ValueError if it has another recipe."""
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
