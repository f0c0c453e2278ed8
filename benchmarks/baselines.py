"""Training steps at 100 and 1,000 classes, evaluations at 1,000: ours against the published way.

    python benchmarks/baselines.py [--shape tiny|vit-b32|vit-b16] [--repeats 5]
        [--only step|evaluation] [--methods CoOp ...] [--classes 100 1000]
        [--device cuda] [--precision fp32|fp16|bf16|amp] [--compile]

The plain path does what the published code does: every text 77 tokens long, the text features anew
for each batch of an evaluation, CoCoOp's images one by one. Both run alternately in one process on
the same random CLIP, and must give the same loss, gradients and logits. Beside their times stand
images per second and the peak of the memory taken.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import torch
from setting import Setting, add_options
from shapes import IMAGENET, NAMES, SHAPES, saved_clip
from timing import Ratio, ratio
from torch import Tensor
from torch.nn import functional as F

from causalclip import plugin
from causalclip.clip.additions import hooked
from causalclip.clip.injection import prompted
from causalclip.clip.kinds import backbone_of
from causalclip.clip.prompts import PromptSet
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.trainers.prograd import projected
from causalclip.trainers.promptsrc import mean_kl

# isort: split
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY


class Case(NamedTuple):
    """A training step: how many classes, context words and images, and the ratio aimed at."""

    method: str
    classes: int
    words: str
    batch: int
    target: int


FOUR, SIXTEEN = "a photo of a", " ".join(["X"] * 16)
# Four images a step as published for the deep prompts, more for the others.
CASES = (
    Case("CoOp", 100, FOUR, 8, 16),
    Case("KgCoOp", 100, FOUR, 8, 15),
    Case("ProGrad", 100, SIXTEEN, 8, 15),
    Case("TCP", 100, FOUR, 8, 15),
    Case("CoCoOp", 100, FOUR, 8, 14),
    Case("MaPLe", 100, FOUR, 4, 11),
    Case("IVLP", 100, FOUR, 4, 11),
    Case("PromptSRC", 100, FOUR, 4, 11),
    Case("MMRL", 100, FOUR, 4, 11),
    Case("MMA", 100, FOUR, 4, 11),
    Case("CoOp", 1000, SIXTEEN, 32, 25),
    Case("MaPLe", 1000, FOUR, 4, 15),
)
METHODS = tuple(dict.fromkeys(case.method for case in CASES))
EVALUATED = (
    "CoOp",
    "KgCoOp",
    "ProGrad",
    "TCP",
    "MaPLe",
    "IVLP",
    "PromptSRC",
    "MMRL",
    "MMA",
)  # text independent of the image
TEST_BATCH, TEST_BATCHES = 100, 3  # an evaluation of more batches gains more


class Plain:
    """The published arithmetic around one of our trainers' prompts."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.clip = trainer, trainer.clip
        self.scale = self.clip.logit_scale.exp()

    def text(self, prompts: PromptSet) -> Tensor:
        """Unit text features (K, E) from texts of full length."""
        with prompted(self.clip, text=prompts.text, text_additions=prompts.text_additions):
            return F.normalize(self.clip.encode_text(self.trainer.class_tokens.tokens), dim=-1)

    def image(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """Unit image features (B, E)."""
        with prompted(self.clip, image=prompts.image, image_additions=prompts.image_additions):
            return F.normalize(self.clip.encode_image(images), dim=-1)

    def logits(self, images: Tensor) -> Tensor:
        """(B, K)."""
        if self.trainer.cfg.TRAINER.NAME == "CoCoOp":
            return self.one_by_one(images)
        prompts = self.trainer.model()
        if self.trainer.cfg.TRAINER.NAME == "MMRL":
            return self.trainer.blended(*self.by_both(images, prompts, self.text(prompts))[1:])
        return self.scale * self.image(images, prompts) @ self.text(prompts).T

    def one_by_one(self, images: Tensor) -> Tensor:
        """CoCoOp's logits (B, K), every image with texts of its own."""
        features = self.image(images, PromptSet())
        (context,) = self.trainer.model(features).text
        texts = [self.text(PromptSet(text=(own,))) for own in context]
        pairs = zip(features, texts, strict=True)
        return torch.stack([self.scale * image @ text.T for image, text in pairs])

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The method's training loss on a batch (B, 3, H, W) with labels (B,)."""
        trainer = self.trainer
        whole = {"MMRL": self.four_terms, "ProGrad": self.aligned}
        if trainer.cfg.TRAINER.NAME in whole:
            return whole[trainer.cfg.TRAINER.NAME](images, labels)
        near = {"KgCoOp": self.near_text, "TCP": self.near_text}
        extra = {**near, "PromptSRC": self.near_teacher}
        if trainer.cfg.TRAINER.NAME not in extra:
            return F.cross_entropy(self.logits(images), labels)
        prompts = trainer.model()
        image, text = self.image(images, prompts), self.text(prompts)
        logits = self.scale * image @ text.T
        regular = extra[trainer.cfg.TRAINER.NAME](images, image, text, logits)
        return F.cross_entropy(logits, labels) + regular

    def aligned(self, images: Tensor, labels: Tensor) -> Tensor:
        """ProGrad's cross-entropy, its gradient projected; zero-shot CLIP reads the images anew."""
        trainer, ctx = self.trainer, self.trainer.model().text[0].clone()
        logits = self.scale * self.image(images, PromptSet()) @ self.text(PromptSet((ctx,))).T
        zero_shot = self.scale * self.image(images, PromptSet()) @ trainer.handcrafted.T
        distance = trainer.distance(logits, zero_shot)
        (general,) = torch.autograd.grad(distance, ctx, retain_graph=True)
        ctx.register_hook(lambda own: projected(own, general, trainer.settings.LAMBDA))
        return F.cross_entropy(logits, labels)

    def by_both(self, images: Tensor, prompts: PromptSet, text: Tensor) -> tuple[Tensor, ...]:
        """MMRL's image features (B, E), and the logits (B, K) of class and token features."""
        visual = self.clip.visual
        tower = backbone_of(self.clip).image_tower()
        with hooked(tower, prompts.image_additions) as left:
            image = F.normalize(self.clip.encode_image(images), dim=-1)
        tokens = self.trainer.model.features(visual.ln_post(left[0].transpose(0, 1)))
        both = (image, F.normalize(tokens, dim=-1))
        return image, *(self.scale * features @ text.T for features in both)

    def four_terms(self, images: Tensor, labels: Tensor) -> Tensor:
        """MMRL's loss on a batch (B, 3, H, W) with labels (B,)."""
        prompts, trainer = self.trainer.model(), self.trainer
        text, frozen = self.text(prompts), self.image(images, PromptSet())
        image, *logits = self.by_both(images, prompts, text)
        near = 1 - F.cosine_similarity(image, frozen, dim=-1).mean()
        near = near + 1 - F.cosine_similarity(text, trainer.handcrafted, dim=-1).mean()
        entropies = (F.cross_entropy(of, labels) for of in logits)
        return trainer.blended(*entropies) + trainer.settings.REG_WEIGHT * near

    def near_text(self, images: Tensor, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        """KgCoOp's and TCP's distance of the text features (K, E) from the hand-crafted ones."""
        distance = 1 - F.cosine_similarity(text, self.trainer.handcrafted, dim=-1).mean()
        return self.trainer.settings.W * distance

    def near_teacher(self, images: Tensor, image: Tensor, text: Tensor, logits: Tensor) -> Tensor:
        """PromptSRC's distances of features (B, E), (K, E) and logits (B, K) from frozen CLIP's."""
        trainer, settings = self.trainer, self.trainer.settings
        teacher = self.image(images, PromptSet())
        teacher_text = trainer.teacher_text.to(teacher.dtype)
        return (
            settings.TEXT_LOSS_WEIGHT * F.l1_loss(text, teacher_text)
            + settings.IMAGE_LOSS_WEIGHT * F.l1_loss(image, teacher)
            + mean_kl(logits, self.scale * teacher @ teacher_text.T)
        )


class WithoutData:
    """A trainer that knows class names only."""

    names: Sequence[str]

    def build_data_loader(self) -> None:
        """Names in place of data."""
        self.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=self.names))
        self.lab2cname = dict(enumerate(self.names))
        self.train_loader_x = self.val_loader = self.test_loader = None


def trainer_of(
    name: str,
    classnames: Sequence[str],
    backbone: str,
    size: int,
    setting: Setting,
    words: str = FOUR,
) -> PromptTrainer:
    """Our trainer with its own defaults, prompts in at most as many blocks as there are."""
    cfg = plugin.extend_cfg(get_cfg_default())
    node = TRAINER_REGISTRY.get(name).config_node
    cfg.TRAINER.NAME, cfg.USE_CUDA = name, setting.device == "cuda"
    cfg.MODEL.BACKBONE.NAME, cfg.INPUT.SIZE = backbone, (size, size)
    cfg.OPTIM.NAME, cfg.TRAINER[node].PREC = "sgd", setting.precision
    # ProGrad's CTX_INIT is a flag: with words, those of its template behind zeros.
    given = {"CTX_INIT": words, "REP_LAYERS": [2, 3, 4], "ADAPTER_START": 2, "ADAPTER_END": 4}
    for key in cfg.TRAINER[node]:
        if key in given:
            cfg.TRAINER[node][key] = type(cfg.TRAINER[node][key])(given[key])
        if key.startswith("PROMPT_DEPTH"):
            cfg.TRAINER[node][key] = min(cfg.TRAINER[node][key], 4)
    kind = type(name, (WithoutData, TRAINER_REGISTRY.get(name)), {"names": classnames})
    with redirect_stdout(StringIO()):
        return cast("type[PromptTrainer]", kind)(cfg)


class Peak(NamedTuple):
    """Memory taken by the published way and by ours, in bytes."""

    plain: int
    fast: int

    def __str__(self) -> str:
        return f"{self.plain / 2**20:.0f} and {self.fast / 2**20:.0f} MiB"


def per_second(images: int, found: Ratio) -> str:
    """Images per second of both ways."""
    return f"{images / found.plain:.0f} and {images / found.fast:.0f} images/s"


def step_ratio(
    trainer: PromptTrainer, case: Case, size: int, repeats: int, setting: Setting
) -> str:
    """Forward and backward of the training loss, plain against ours, and how far apart."""
    plain, own = Plain(trainer), setting.compiled(trainer.loss)
    images = torch.randn(case.batch, 3, size, size, device=trainer.device)
    labels = torch.randint(len(trainer.classnames), (len(images),), device=trainer.device)
    trainer.set_model_mode("train")

    def step(loss: Callable[[], Tensor]) -> Tensor:
        trainer.model.zero_grad()
        with setting.autocast():
            value = loss()
        value.backward()
        return torch.cat(
            [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        )

    def ours() -> Tensor:
        return step(lambda: own(images, labels)[0])

    def published() -> Tensor:
        return step(lambda: plain.loss(images, labels))

    truth = published()
    apart = (ours() - truth).abs().max() / truth.abs().max()
    peak = Peak(setting.peak_bytes(published), setting.peak_bytes(ours))
    found = ratio(published, ours, repeats, clock=setting.clock)
    return (
        f"{found} (target {case.target}x), {per_second(case.batch, found)}, {peak}, "
        f"gradients {apart:.0e} apart"
    )


@torch.no_grad()
def evaluation_ratio(trainer: PromptTrainer, size: int, repeats: int, setting: Setting) -> str:
    """Logits of a few test batches, plain against ours."""
    plain, logits, answers = Plain(trainer), {}, setting.compiled(trainer.logits)
    batches = torch.randn(TEST_BATCHES, TEST_BATCH, 3, size, size, device=trainer.device)

    def ours() -> None:
        trainer.set_model_mode("eval")
        with setting.autocast():
            text = trainer.evaluation_text()
            logits["ours"] = torch.cat([answers(images, text) for images in batches])

    def published() -> None:
        with setting.autocast():
            logits["published"] = torch.cat([plain.logits(images) for images in batches])

    found = ratio(published, ours, repeats, clock=setting.clock)
    peak = Peak(setting.peak_bytes(published), setting.peak_bytes(ours))
    apart = (logits["ours"] - logits["published"]).abs().max()
    return (
        f"{found} (target 10x), {per_second(TEST_BATCH * TEST_BATCHES, found)}, {peak}, "
        f"logits {apart:.0e} apart"
    )


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("step", "evaluation"), help="one of the two parts")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--classes", nargs="+", type=int, default=[100, 1000], help="of the steps")
    add_options(parser)
    args = parser.parse_args()
    plugin.register_all()
    with tempfile.TemporaryDirectory() as folder:
        backbone, size = saved_clip(args.shape, folder)
        if args.only != "evaluation":
            measure_steps(args, backbone, size)
        if args.only != "step":
            measure_evaluations(args, backbone, size)


def measure_steps(args: argparse.Namespace, backbone: str, size: int) -> None:
    """Print a line for each method's training step."""
    setting = Setting.of(args)
    print(f"{args.shape} on {setting}: training step")
    for case in CASES:
        if case.method not in args.methods or case.classes not in args.classes:
            continue
        names = NAMES[case.classes]
        trainer = trainer_of(case.method, names, backbone, size, setting, case.words)
        repeats = args.repeats if case.classes < 1000 else max(1, args.repeats // 2)
        line = f"  {case.method:9} {case.classes} classes, batch {case.batch}: "
        print(line + step_ratio(trainer, case, size, repeats, setting), flush=True)


def measure_evaluations(args: argparse.Namespace, backbone: str, size: int) -> None:
    """Print a line for each method's evaluation."""
    images, setting = TEST_BATCH * TEST_BATCHES, Setting.of(args)
    print(f"{args.shape} on {setting}: evaluation of {images} images, {len(IMAGENET)} classes")
    for name in [name for name in EVALUATED if name in args.methods]:
        trainer = trainer_of(name, IMAGENET, backbone, size, setting)
        repeats = max(1, args.repeats // 3)
        print(f"  {name:9} {evaluation_ratio(trainer, size, repeats, setting)}", flush=True)


if __name__ == "__main__":
    main()
