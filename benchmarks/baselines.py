"""Compare our training steps and evaluations with the published way, at 100 and 1,000 classes.

    python benchmarks/baselines.py [--shape tiny|vit-b32|vit-b16] [--repeats 5]
        [--only step|evaluation] [--methods CoOp ...] [--classes 100 1000]
        [--device cuda] [--precision fp32|fp16|bf16|amp] [--compile]

The plain path does what the published code does (plain.py): each text has 77 tokens, an evaluation
encodes the texts again for each batch, and CoCoOp's images and CDC's templates are processed one by
one. Both paths run alternately in one process on the same random CLIP and must give the same
gradients and logits. Printed: times, images per second and the peak of the memory.
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
from plain import Plain
from setting import Setting, add_options
from shapes import NAMES, SHAPES, saved_clip
from timing import Ratio, ratio
from torch import Tensor

from causalclip import plugin
from causalclip.engine.prompt_trainer import PromptTrainer

# isort: split
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY


class Case(NamedTuple):
    """A training step: method, number of classes, context words, batch size, target speed-up."""

    method: str
    classes: int
    words: str
    batch: int
    target: int


FOUR, SIXTEEN = "a photo of a", " ".join(["X"] * 16)
# Four images a step as published for the deep prompts, more for the others.
AT_100 = (
    Case("CoOp", 100, FOUR, 8, 16),
    Case("KgCoOp", 100, FOUR, 8, 15),
    Case("ProGrad", 100, SIXTEEN, 8, 15),
    Case("TCP", 100, FOUR, 8, 15),
    Case("CIPT", 100, FOUR, 8, 15),
    Case("CoCoOp", 100, FOUR, 8, 14),
    Case("MaPLe", 100, FOUR, 4, 11),
    Case("IVLP", 100, FOUR, 4, 11),
    Case("PromptSRC", 100, FOUR, 4, 11),
    Case("CDC", 100, FOUR, 4, 11),
    Case("MMRL", 100, FOUR, 4, 11),
    Case("MMRLpp", 100, FOUR, 4, 11),
    Case("MMA", 100, FOUR, 4, 11),
)
AT_1000 = {"CoOp": Case("CoOp", 1000, SIXTEEN, 32, 25), "CoCoOp": Case("CoCoOp", 1000, FOUR, 1, 15)}
CASES = (
    *AT_100,
    *(AT_1000.get(case.method, case._replace(classes=1000, target=15)) for case in AT_100),
)
METHODS = tuple(case.method for case in AT_100)
EVALUATED = (
    "CoOp",
    "KgCoOp",
    "ProGrad",
    "TCP",
    "MaPLe",
    "IVLP",
    "PromptSRC",
    "MMRL",
    "MMRLpp",
    "MMA",
)  # their text features do not depend on the image
TEST_BATCH, TEST_BATCHES = 100, 3  # with more batches the ratio is larger


class WithoutData:
    """A trainer that knows class names only."""

    names: Sequence[str]

    def build_data_loader(self) -> None:
        """Provide class names without images."""
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
    """Return our trainer with its defaults, and prompts in at most four blocks."""
    cfg = plugin.extend_cfg(get_cfg_default())
    node = TRAINER_REGISTRY.get(name).config_node
    cfg.TRAINER.NAME, cfg.USE_CUDA = name, setting.device == "cuda"
    cfg.MODEL.BACKBONE.NAME, cfg.INPUT.SIZE = backbone, (size, size)
    cfg.OPTIM.NAME, cfg.TRAINER[node].PREC = "sgd", setting.precision
    # ProGrad's CTX_INIT is a flag, so `words` becomes True.
    given = {"CTX_INIT": words, "REP_LAYERS": [2, 3, 4], "ADAPTER_START": 2, "ADAPTER_END": 4}
    for key in cfg.TRAINER[node]:
        if key in given:
            cfg.TRAINER[node][key] = type(cfg.TRAINER[node][key])(given[key])
        if key.startswith("PROMPT_DEPTH"):
            cfg.TRAINER[node][key] = min(cfg.TRAINER[node][key], 4)
    kind = type(name, (WithoutData, TRAINER_REGISTRY.get(name)), {"names": classnames})
    with redirect_stdout(StringIO()):
        return cast("type[PromptTrainer]", kind)(cfg)


def batch_of(trainer: Any, n: int, size: int) -> tuple[Tensor, Tensor]:
    """Return random images (n, 3, R, R), for CDC views (n, M, 3, R, R), and labels (n,)."""
    views = (trainer.settings.N_TEMPLATES,) if trainer.cfg.TRAINER.NAME == "CDC" else ()
    images = torch.randn(n, *views, 3, size, size, device=trainer.device)
    return images, torch.randint(len(trainer.classnames), (n,), device=trainer.device)


class Peak(NamedTuple):
    """Peak memory of the published way and of ours, in bytes."""

    plain: int
    fast: int

    def __str__(self) -> str:
        return f"{self.plain / 2**20:.0f} and {self.fast / 2**20:.0f} MiB"


def per_second(images: int, found: Ratio) -> str:
    """Return the images per second of both ways."""
    return f"{images / found.plain:.0f} and {images / found.fast:.0f} images/s"


def step_ratio(
    trainer: PromptTrainer, case: Case, size: int, repeats: int, setting: Setting
) -> str:
    """Time forward and backward of the training loss in both ways, and compare gradients."""
    plain, own = Plain(trainer), setting.compiled(trainer.loss)
    images, labels = batch_of(trainer, case.batch, size)
    trainer.set_model_mode("train")

    def step(loss: Callable[[], Tensor]) -> Tensor:
        torch.manual_seed(0)  # CIPT draws its templates
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
    """Time the logits of a few test batches in both ways, and compare them."""
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
    """Run the measurements that the options select."""
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
    print(f"{args.shape} on {setting}: evaluation of {images} images, 1000 classes")
    for name in [name for name in EVALUATED if name in args.methods]:
        trainer = trainer_of(name, NAMES[1000], backbone, size, setting)
        repeats = max(1, args.repeats // 3)
        print(f"  {name:9} {evaluation_ratio(trainer, size, repeats, setting)}", flush=True)


if __name__ == "__main__":
    main()
