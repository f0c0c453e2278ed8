"""CoOp with 77 tokens and text features per batch, as published, against this package's way.

    python benchmarks/text_truncation.py [--shape tiny|vit-b32] [--device cuda]

prints the ratio of a training step and of an evaluation, and how far apart the logits are.
"""

from __future__ import annotations

import argparse

import torch
from timing import ratio
from torch import Tensor
from torch.nn import functional as F

from causalclip.clip.backbone import CLIP, build_clip, image_size
from causalclip.clip.injection import encode_image
from causalclip.clip.prompts import TextPrompts, encode_classes
from causalclip.clip.texts import class_tokens
from causalclip.clip.zeroshot import cosine_logits

SHAPES = {
    "tiny": {
        "embed_dim": 64,
        "vision_layers": 4,
        "vision_width": 128,
        "transformer_width": 128,
        "transformer_heads": 2,
        "transformer_layers": 4,
    },
    "vit-b32": {
        "embed_dim": 512,
        "image_resolution": 224,
        "vision_layers": 12,
        "vision_width": 768,
        "vision_patch_size": 32,
        "transformer_width": 512,
        "transformer_heads": 8,
        "transformer_layers": 12,
    },
}
# Caltech101, the family's data set of just 100 classes.
CLASSNAMES = """
accordion airplane anchor ant barrel bass beaver binocular bonsai brain brontosaurus buddha
butterfly camera cannon car_side ceiling_fan cellphone chair chandelier cougar_body cougar_face
crab crayfish crocodile crocodile_head cup dalmatian dollar_bill dolphin dragonfly electric_guitar
elephant emu euphonium ewer face ferry flamingo flamingo_head garfield gerenuk gramophone
grand_piano hawksbill headphone hedgehog helicopter ibis inline_skate joshua_tree kangaroo ketch
lamp laptop leopard llama lobster lotus mandolin mayfly menorah metronome minaret motorbike
nautilus octopus okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster saxophone
schooner scissors scorpion sea_horse snoopy soccer_ball stapler starfish stegosaurus stop_sign
strawberry sunflower tick trilobite umbrella watch water_lilly wheelchair wild_cat windsor_chair
wrench yin_yang
""".split()
BATCH, N_CTX = 8, 4


class PlainCoOp:
    """The published arithmetic: every text 77 tokens long, encoded again for each batch."""

    def __init__(self, model: CLIP, tokens: Tensor, ctx: Tensor):
        self.model, self.tokens, self.ctx = model, tokens, ctx
        words = model.token_embedding(tokens).detach()
        self.start, self.rest = words[:, :1], words[:, 1 + len(ctx) :]

    def text_features(self) -> Tensor:
        context = self.ctx.expand(len(self.tokens), -1, -1)
        x = torch.cat([self.start, context, self.rest], dim=1) + self.model.positional_embedding
        x = self.model.transformer(x.transpose(0, 1)).transpose(0, 1)
        ends = self.model.ln_final(x)[torch.arange(len(x)), self.tokens.argmax(-1)]
        return ends @ self.model.text_projection

    def logits(self, images: Tensor) -> Tensor:
        image = F.normalize(self.model.encode_image(images), dim=-1)
        return self.model.logit_scale.exp() * image @ F.normalize(self.text_features(), dim=-1).T


class OurCoOp:
    """The same through prompts in the unmodified model, as long as the longest text."""

    def __init__(self, model: CLIP, texts, prompts: TextPrompts):
        self.model, self.texts, self.prompts = model, texts, prompts

    def text_features(self) -> Tensor:
        return encode_classes(self.model, self.texts, self.prompts())

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        text = self.text_features() if text is None else text
        return cosine_logits(encode_image(self.model, images), text, self.model.logit_scale.exp())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batches", type=int, default=20, help="of 8 images, in the evaluation")
    args = parser.parse_args()

    torch.manual_seed(0)
    frozen = build_clip(**SHAPES[args.shape]).to(args.device).requires_grad_(False)
    texts = class_tokens(CLASSNAMES, n_ctx=N_CTX).to(args.device)
    prompts = TextPrompts(N_CTX, frozen.transformer.width).to(args.device)
    plain = PlainCoOp(frozen, texts.tokens, prompts.ctx)
    ours = OurCoOp(frozen, texts, prompts)
    size = image_size(frozen)
    batches = torch.randn(args.batches, BATCH, 3, size, size, device=args.device)
    labels = torch.randint(len(texts), (BATCH,), device=args.device)

    def step(way) -> Tensor:
        prompts.zero_grad()
        F.cross_entropy(way.logits(batches[0]), labels).backward()
        return prompts.ctx.grad.clone()

    def step_with_image_graph() -> None:
        frozen.visual.requires_grad_(True)
        step(plain)
        frozen.visual.requires_grad_(False)

    @torch.no_grad()
    def evaluate_plain() -> Tensor:
        return torch.cat([plain.logits(images) for images in batches])

    @torch.no_grad()
    def evaluate_once() -> Tensor:
        text = ours.text_features()
        return torch.cat([ours.logits(images, text) for images in batches])

    longest = int(texts.tokens.argmax(-1).max()) + 1
    print(f"{args.shape}: {len(texts)} classes of up to {longest} tokens, {BATCH} images a batch")
    for label, slow, fast in (
        ("training step", lambda: step(plain), lambda: step(ours)),
        # The published code freezes the image tower, so this is more than it pays.
        ("training step, image tower with graph", step_with_image_graph, lambda: step(ours)),
        (f"evaluation of {args.batches} batches", evaluate_plain, evaluate_once),
    ):
        print(f"{label:38}", ratio(slow, fast, args.repeats))
    gradient = (step(plain) - step(ours)).abs().max() / step(plain).abs().max()
    difference = (evaluate_plain() - evaluate_once()).abs().max()
    print(f"largest difference of logits {difference:.1e}, of gradients (relative) {gradient:.1e}")


if __name__ == "__main__":
    main()
