"""Predict the FLOPs and the memory of a method with PyTorch's fake tensors, without weights."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import ResNet18_Weights

from causalclip.clip.backbone import load_clip
from causalclip.clip.interface import backbone_of
from causalclip.clip.openai_clip import CLIP, CLIPModel
from causalclip.engine.frozen_clip import FrozenCLIP
from causalclip.runs.backbones import NAME, named_backbone, start_of, words_of
from causalclip.runs.configuration import cfg_from, trainer_class

# isort: split
from causalclip.engine.prompt_trainer import PromptTrainer  # imports Dassl: after the plug-in

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer

_IMAGENET = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]  # needs no download
CLASSNAMES = [
    f"another {name}" if name.lower() in map(str.lower, _IMAGENET[:place]) else name
    for place, name in enumerate(_IMAGENET)  # crane, for example, names two classes
]
"""Names of ImageNet's 1,000 classes, all different."""
# Radford et al., arXiv 2103.00020, tables 19 and 20: embedding width, image size, image blocks and
# width, patch size (None for a ResNet), text width.
RELEASED_SIZES: Mapping[str, tuple] = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 512),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 640),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 768),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 1024),
    "ViT-B/32": (512, 224, 12, 768, 32, 512),
    "ViT-B/16": (512, 224, 12, 768, 16, 512),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768),
}
TEXT = {"context_length": 77, "vocab_size": 49408, "transformer_layers": 12}
FAKE = FakeTensorMode(allow_non_fake_inputs=True)


@dataclass(frozen=True)
class Work:
    """The FLOPs and the memory of a training step or a test batch."""

    flops: int
    """FLOPs: two for each multiply-add of a matrix product or convolution."""
    peak: int
    """Most bytes that the new tensors take at one time."""


@dataclass(frozen=True)
class Cost:
    """The cost of a method."""

    learnable: int
    weights: int
    """Bytes of the backbone's weights."""
    step: Work | None
    """A training step; None for a method that has no steps, or learns nothing."""
    test: Work
    """A test batch; its memory, but not its FLOPs, includes computing the text features."""


class PeakMemory(TorchDispatchMode):
    """Count the bytes of the tensors that operations return, as long as they exist.

    torch.distributed's MemTracker does the same by module, and fails on frozen weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operation and count its outputs; its inputs existed before."""
        self._add((args, kwargs), new=False)
        result = func(*args, **(kwargs or {}))
        self._add(result, new=True)
        return result

    def _add(self, values: Any, *, new: bool) -> None:
        for value in tree_leaves(values):
            if not isinstance(value, Tensor):
                continue
            storage = value.untyped_storage()
            if (key := storage._cdata) not in self._known:
                size = storage.nbytes() if new else 0
                self._known.add(key)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def counted(run: Callable[[], object]) -> Work:
    """Call `run` and return its work."""
    memory = PeakMemory()
    with FlopCounterMode(display=False) as counter, memory:
        run()
    return Work(counter.get_total_flops(), memory.peak)


def clip_without_weights(name: str) -> CLIPModel:
    """Return a CLIP with fake weights, except for weights that methods copy as initial values.

    These are the token embedding, all zeros, and the LayerNorms, all ones.

    Raises:
        ValueError: a name that `load_clip` does not take, or a file that holds no CLIP.
    """
    if name in RELEASED_SIZES:
        *image, width = RELEASED_SIZES[name]
        length, vocabulary, layers = TEXT.values()
        with FAKE:
            model = CLIP(*image, length, vocabulary, width, width // 64, layers)
    else:
        model = load_clip(name)._apply(FAKE.from_tensor)
    entry = backbone_of(model).text_tower().entry
    entry.weight = nn.Parameter(torch.zeros(entry.weight.shape))
    for norm in (module for module in model.modules() if isinstance(module, nn.LayerNorm)):
        norm.weight, norm.bias = (nn.Parameter(torch.ones(norm.normalized_shape)) for _ in "wb")
    return model.eval().requires_grad_(False)


class WithoutWeights:
    """Mixin for a trainer that loads no weights."""

    def load_backbone(self: Any) -> FrozenCLIP:
        """Return a CLIP without weights.

        Raises:
            ValueError: a precision whose weights are not fp32.
        """
        if (precision := self.settings.PREC) not in ("fp32", "amp"):
            raise ValueError(f"PREC must be fp32 or amp to predict a cost, got {precision}")
        model = clip_without_weights(self.cfg.MODEL.BACKBONE.NAME)
        return FrozenCLIP(model, self.device, precision, digest="")


def trainer_without_weights(
    method: str, backbone: str, classes: int, *, recipe: str = "", pairs: Sequence[str] = ()
) -> CLIPTrainer:
    """Return a trainer with its recipe for a backbone, and the first `classes` of ImageNet.

    Raises:
        UserError: an unknown method, backbone, recipe or setting.
        ValueError: a number of classes, a backbone or settings that cannot be used.
    """
    if not 2 <= classes <= len(CLASSNAMES):
        raise ValueError(f"classes must be 2 to {len(CLASSNAMES):,}, ImageNet's, got {classes:,}")
    kind, named = trainer_class(method), named_backbone(backbone)
    start = start_of(method, recipe, named, ("fewshot", "imagenet", "16"))
    given = {"TRAINER.NAME": method, "USE_CUDA": False, f"TRAINER.{kind.config_node}.PREC": "fp32"}
    given |= {NAME: named.model, **start.fitting}
    cfg = cfg_from(start.files, [*words_of(given), *pairs])
    fake: Any = type(method, (WithoutWeights, kind), {})
    return fake(cfg, classnames=CLASSNAMES[:classes])


def cost_of(trainer: Any, batch: int) -> Cost:
    """Return the cost of a trainer with `batch` images in a batch.

    Raises:
        ValueError: the method reads values of tensors, which fake tensors do not have.
    """
    step, learnable = None, 0
    try:
        if isinstance(trainer, PromptTrainer):
            learnable, step = trainer.learned, counted(step_of(trainer, batch))
            trainer.model.requires_grad_(False)
        weights = sum(parameter.nbytes for parameter in trainer.clip.parameters())
        return Cost(learnable, weights, step, test_of(trainer, batch))
    except DataDependentOutputException as error:
        name = type(trainer).__name__
        raise ValueError(
            f"the cost of {name} cannot be predicted: it reads values of tensors ({error}); "
            "train it and read `causalclip summarize --cost`"
        ) from error


def images_of(trainer: CLIPTrainer, *shape: int) -> Tensor:
    """Return fake images (..., 3, R, R)."""
    with FAKE:
        return torch.empty(*shape, 3, *trainer.cfg.INPUT.SIZE)


def step_of(trainer: PromptTrainer, batch: int) -> Callable[[], None]:
    """Return a function that takes a training step."""
    views = trainer.train_views()
    images = images_of(trainer, batch, *([len(views)] if views else []))
    labels = torch.arange(batch) % len(trainer.classnames)
    trainer.set_model_mode("train")
    trainer.epoch = 0
    trainer.loss(images, labels)  # a first call, since some methods encode once: no part of a step

    def take() -> None:
        loss, _ = trainer.loss(images, labels)
        trainer.optim.zero_grad()
        loss.backward()
        trainer.optim.step()

    return take


@torch.no_grad()
def test_of(trainer: Any, batch: int) -> Work:
    """Return the FLOPs of a test batch, and the peak memory of evaluating it.

    For a method that is fitted on features, count the image tower only; its classifier is cheap.
    """
    views = getattr(trainer, "test_views", None)
    images = images_of(trainer, batch, *([views] if views else []))
    trainer.set_model_mode("eval")
    features = trainer.image_tower_untouched
    ready = isinstance(trainer, PromptTrainer) or trainer.fit_class is None  # fit needs images

    with PeakMemory() as memory:
        predict = trainer.predictor() if ready else lambda inputs: inputs
        with FlopCounterMode(display=False) as counter:
            predict(trainer.encoder.encode(images) if features else images)
    return Work(counter.get_total_flops(), memory.peak)
