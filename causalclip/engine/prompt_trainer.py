"""PromptTrainer: what the methods share that learn prompts by gradient descent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from causalclip.clip.encode import encode_image
from causalclip.clip.kinds import backbone_of
from causalclip.clip.model import CLIPModel
from causalclip.clip.prompt_set import PromptSet, encode_classes
from causalclip.clip.prompts import CoupledPrompts, IndependentPrompts, embed_words
from causalclip.clip.templates import spoken
from causalclip.clip.texts import ClassTokens, Position, class_tokens
from causalclip.engine.calibrated import Calibrated, keep_temperature
from causalclip.engine.checkpoints import load_state
from causalclip.engine.distributed import average, divided
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.settings import Whole
from causalclip.engine.step_report import StepReport
from causalclip.report.results import peak_memory_mb

# Far above anything published (VPT learns up to 200 tokens; no released tower has more than 24
# blocks), so that a slip is named before it fills the memory. What the backbone at hand cannot hold
# is refused when it is there.
TOKENS = Whole(1, 1000)
DEPTH = Whole(1, 100)
MAYBE_TOKENS = Whole(0, 1000)  # for a tower that may have no prompts
MAYBE_DEPTH = Whole(0, 100)


@dataclass(frozen=True)
class Context:
    """What stands in front of the class names before anything is learned."""

    n_ctx: int
    """Tokens that are learned, the first ones of the words."""
    words: str = ""
    """Where they start; without words they start at random."""
    position: Position = "end"
    template: str = "{}."
    """What stands behind the words: the class name, perhaps with more words around it."""

    @classmethod
    def of_words(cls, settings: CfgNode, *, position: Position = "end") -> Context:
        """As published for CoOp and its kin: the words of CTX_INIT decide how many, else N_CTX."""
        words = spoken(settings.CTX_INIT)
        return cls(len(words.split()) or settings.N_CTX, words, position)

    def start(self, clip: CLIPModel) -> Tensor | None:
        """Embeddings (n_ctx, D) of the words; None for a random start.

        Raises:
            ValueError: words that have fewer tokens than `n_ctx`.
        """
        return embed_words(clip, self.words, self.n_ctx) if self.words and self.n_ctx else None


class PromptTrainer(Calibrated):
    """Prompt learning by gradient descent: `context`, `build_prompts` and perhaps `loss`."""

    model_name = "prompt_learner"
    scaler: torch.amp.GradScaler

    def build_method(self) -> None:
        """Build the prompts, what trains them, and the class tokens behind the context."""
        if (texts := self.texts(self.classnames)) is not None:
            self.class_tokens = texts
        self._steps = StepReport()
        self.model = self.build_prompts()
        keep_temperature(self.model, fitted=self.calibrates)
        self.model.to(self.device)
        print(f"# learnable parameters: {self.learned:,}")
        if self.cfg.MODEL.INIT_WEIGHTS:
            path = Path(self.cfg.MODEL.INIT_WEIGHTS)
            load_state(self.model, load_checkpoint(str(path))["state_dict"], path)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model(self.model_name, self.model, self.optim, self.sched)
        on_gpu = self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(enabled=on_gpu and self.settings.PREC == "amp")

    @property
    def learned(self) -> int:
        """How many numbers learn."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def context(self) -> Context | None:
        """What stands in front of the class names; None where their texts are hand-crafted."""
        return None

    def build_prompts(self) -> nn.Module:
        """The module that owns every learnable number; its forward gives a PromptSet.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError

    def texts(self, names: Sequence[str]) -> ClassTokens | None:
        """The texts of K class names that prompts change, (K, L); None where they change none.

        Raises:
            ValueError: a context that does not fit its words, or a class name that is too long.
        """
        if (context := self.context()) is None:
            return None
        backbone = backbone_of(self.clip)
        tokens = class_tokens(
            names,
            n_ctx=context.n_ctx,
            prefix=context.words,
            position=context.position,
            template=context.template,
            context_length=backbone.context_length,
            tokenizer=backbone.tokenizer,
        )
        return tokens.to(self.device)

    @property
    def text_width(self) -> int:
        """D of the text tower, for the prompts that go there.

        Raises:
            ValueError: a text tower that takes none; says why.
        """
        return backbone_of(self.clip).text_tower().width

    # One forward

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Class logits (B, K) of a batch (B, 3, H, W) under the current prompts.

        Args:
            images: the batch.
            text: `evaluation_text`, or None: the text features are computed now.
        """
        prompts = self.model()
        text = self.text_features(prompts) if text is None else text
        return self.classify(self.image_features(images, prompts), text)

    def image_features(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """(B, E) of images (B, 3, H, W); without a graph when the image tower holds no prompts."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and prompts.touches_image_tower):
            return encode_image(self.clip, images, prompts.image, prompts.image_additions)

    def text_features(self, prompts: PromptSet) -> Tensor:
        """(K, E), the classes under the prompts."""
        return encode_classes(self.clip, self.class_tokens, prompts)

    def evaluation_text(self) -> Tensor | None:
        """The text features that hold for a whole evaluation; None if they depend on the image."""
        return self.text_features(self.model())

    def learned_text(self, names: Sequence[str]) -> Tensor | None:
        """Text features (K, E) of any class names, as learned; None where texts do not learn."""
        if (texts := self.texts(names)) is None:
            return None
        return encode_classes(self.clip, texts, self.model())

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """`logits` from the features (B, E) of an image tower that the method leaves alone."""
        text = self.text_features(self.model()) if text is None else text
        return self.classify(features, text)

    def test_logits(self, inputs: Tensor, text: Tensor | None = None) -> Tensor:
        """`logits` (B, K) of what `test_batches` gives, images (B, 3, H, W) or features (B, E)."""
        logits = self.feature_logits if self.image_tower_untouched else self.logits
        return logits(inputs, text)

    def prediction_of(self, logits: Tensor) -> Prediction:
        """The readings of class logits (B, K)."""
        return Prediction(Reading.of_logits(logits))

    def predict(self, images: Tensor) -> Prediction:
        """As in CLIPTrainer, of images (B, 3, H, W)."""
        return self.prediction_of(self.logits(images))

    def predictor(self) -> Callable[[Tensor], Prediction]:
        """As in CLIPTrainer; holds the text features, and what calibrates."""
        text = self.evaluation_text()
        if self.calibrates:
            return self.calibrated_predictor(text)
        return lambda inputs: self.prediction_of(self.test_logits(inputs, text))

    # One step

    def build_data_loader(self) -> None:
        """As in CLIPTrainer; of several processes, each loads its part of every batch.

        Raises:
            ValueError: as in CLIPTrainer, or a setting that several processes cannot share.
        """
        super().build_data_loader()
        self.train_loader_x = divided(self.train_loader_x)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), or (B, V, 3, H, W) where the data manager delivers V views.

        Pinned batches travel to a GPU while it works on the step before.
        """
        keys = ["img"]
        while f"img{len(keys) + 1}" in batch:
            keys.append(f"img{len(keys) + 1}")
        *views, labels = (batch[key].to(self.device, non_blocking=True) for key in (*keys, "label"))
        return views[0] if len(views) == 1 else torch.stack(views, dim=1), labels

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The training loss and the class scores (B, K) its accuracy is printed of.

        Args:
            images: what `parse_batch_train` delivers; (B, 3, H, W) but for CDC's views.
            labels: (B,) int64.
        """
        logits = self.logits(images)
        return F.cross_entropy(logits, labels), logits

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float] | None:
        """One step on a batch of the data manager's; the loss and the accuracy in per cent.

        On a CPU they are the step's. On a GPU, reading them would wait for all work before: there
        they come with Dassl's next line alone, as means over the steps since the last one.

        Raises:
            FloatingPointError: a loss that is NaN or infinite; names epoch and batches.
        """
        images, labels = self.parse_batch_train(batch)
        with self.autocast():
            loss, scores = self.loss(images, labels)
        if self.reads_every_step:
            self.detect_anomaly(loss)
        self.model_zero_grad()
        self.scaler.scale(loss).backward()
        accuracy = compute_accuracy(scores, labels)[0]
        loss, accuracy = average(self.model, len(labels), loss, accuracy)
        self.scaler.step(self.optim)
        self.scaler.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        self._steps.add(loss, accuracy)
        return self._report()

    @property
    def reads_every_step(self) -> bool:
        """Whether a step's numbers are at hand without waiting for a device."""
        return self.device.type == "cpu"

    def _report(self) -> dict[str, float] | None:
        """What Dassl's loop prints; the end of an epoch is read for a loss that is NaN as well."""
        done, frequency = self.batch_idx + 1, self.cfg.TRAIN.PRINT_FREQ
        shown = self.reads_every_step or self.num_batches < frequency or done % frequency == 0
        if not shown and done < self.num_batches:
            return None
        means = self._steps.read(epoch=self.epoch + 1, batch=done)
        return means if shown else None

    def before_train(self) -> None:
        """Start the clock."""
        super().before_train()
        self._train_start = time.perf_counter()

    def after_train(self) -> None:
        """Note what the training has cost; then as in Dassl."""
        epochs = self.max_epoch - self.start_epoch
        if epochs > 0:  # a finished run that is only evaluated again was not trained now
            self.training_cost = {
                "seconds": time.perf_counter() - self._train_start,
                "epochs": epochs,
                "resumed_from_epoch": self.start_epoch,
                "steps": epochs * len(self.train_loader_x),
                "images": len(self.dm.dataset.train_x),
                "learnable_parameters": self.learned,
                "peak_memory_mb": peak_memory_mb(self.device),
                "curve": self._steps.curve.record(),
            }
        super().after_train()


def coupled_prompts(clip: CLIPModel, context: Context, *, depth: int) -> CoupledPrompts:
    """MaPLe's prompts for a CLIP.

    Raises:
        ValueError: prompts deeper than a tower, no ViT, or fewer words than the context has.
    """
    text, vision = tower_widths(clip, text=depth, vision=depth)
    return CoupledPrompts(context.n_ctx, depth, text, vision, init=context.start(clip))


def independent_prompts(
    clip: CLIPModel, context: Context, *, text_depth: int, n_vision: int, vision_depth: int
) -> IndependentPrompts:
    """Prompts of IVLP's kind for a CLIP; a tower of 0 tokens and depth 0 has none.

    Raises:
        ValueError: prompts deeper than a tower or on one that takes none, tokens without depth or
            depth without tokens, or fewer words than the context has.
    """
    widths = tower_widths(clip, text=text_depth, vision=vision_depth)
    sizes = (context.n_ctx, n_vision, text_depth, vision_depth)
    return IndependentPrompts(*sizes, *widths, init=context.start(clip))


def tower_widths(clip: CLIPModel, *, text: int, vision: int) -> tuple[int, int]:
    """D of the text and the image tower; 0 of one that gets no prompts.

    Refuses prompts deeper than a tower, and those that a tower cannot take, before any work.

    Args:
        clip: the CLIP.
        text: depth of the text prompts, 0 for none.
        vision: depth of the image prompts, 0 for none.

    Raises:
        ValueError: names the tower, its depth and what came.
    """
    backbone = backbone_of(clip)
    asked = (("text", text, backbone.text_tower), ("image", vision, backbone.image_tower))
    towers = [(name, depth, tower() if depth else None) for name, depth, tower in asked]
    for name, depth, tower in towers:
        if tower and depth > tower.layers:
            raise ValueError(
                f"prompt depth must be at most {tower.layers}, the depth of the {name} tower, "
                f"got {depth}"
            )
    text_width, image_width = (tower.width if tower else 0 for _, _, tower in towers)
    return text_width, image_width
