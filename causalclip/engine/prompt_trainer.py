"""PromptTrainer: a method that learns prompts by gradient descent on a frozen CLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from yacs.config import CfgNode

from causalclip.clip.encode import encode_classes, encode_lower_texts, encode_prompted_image
from causalclip.clip.interface import backbone_of
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.text_tower import LowerTexts
from causalclip.clip.texts import ClassTokens, check_distinct_classes
from causalclip.data.catalogue import dataset_template
from causalclip.engine.calibration import PostHocCalibration
from causalclip.engine.checkpoint_file import load_initial
from causalclip.engine.checkpoints import Checkpointer
from causalclip.engine.contexts import Context, tokens_of
from causalclip.engine.data import attach_classes, attach_data, check_views_kept
from causalclip.engine.distributed import divided, from_main, is_main
from causalclip.engine.draws import training_seed
from causalclip.engine.evaluation import evaluate
from causalclip.engine.feature_cache import Encoder, ImageSet, encoder_of
from causalclip.engine.frozen_clip import FrozenCLIP
from causalclip.engine.loading import end_workers
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.session import TrainingSession
from causalclip.settings.check import check_cfg, flatten
from causalclip.settings.search import GRADIENT_SPACE, SearchSpace
from causalclip.settings.table import Setting


class PromptTrainer(TrainerX):
    """Base class of prompt learning; define `context`, `build_prompts` and, if needed, `loss`.

    A method sets `config_node`, its node of `cfg.TRAINER`, and `settings_table`, with a row for
    each key of that node.
    """

    config_node: str
    settings_table: Mapping[str, Setting] = {}
    model_name = "prompt_learner"
    model: nn.Module

    backbones = "all"
    """The backbones that the method runs on: all, ViT or OpenAI ViT (docs/backbones.md)."""
    softmax = True
    """Whether the probabilities are a softmax of `logits`."""
    plain_cosine = True
    """Whether `logits` compare the image features with `evaluation_text` and nothing else."""
    templated = False
    """Whether the texts are `template` with the class names, instead of learned words."""
    code_templates: Mapping[str, str] = {}
    """Hand-crafted prompts of the published code that differ from CoOp's, by data set."""
    test_order: Callable[[int], Tensor] = staticmethod(lambda n: torch.arange(n))
    """Maps the number n of test images to the order (n,) in which their features are classified."""
    image_tower_untouched = False
    """Whether the method classifies CLIP's own image features, which can be cached on disk."""
    has_members = False
    """Whether the method contains models of other methods (CDC's BASE)."""
    several_processes = True
    """Whether torchrun may divide a batch among processes."""
    search_space: SearchSpace = GRADIENT_SPACE
    """Values that `causalclip tune` tries."""
    lower_texts: LowerTexts | None = None
    """The class texts encoded up to the first block with prompts, shared by all training steps."""
    on_epoch: Callable[[PromptTrainer], None] | None = None
    """Called after each epoch; it may raise to end the training."""

    def __init__(self, cfg: CfgNode, *, classnames: Sequence[str] | None = None) -> None:
        """Build the method; with K class names in place of a data set it can only predict."""
        self.given_classnames = classnames
        super().__init__(cfg)

    # Dassl's hooks

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raise for settings that this method cannot run with, as `settings.check.check_cfg`."""
        check_cfg(cfg, self.config_node, self.settings_table)

    def build_data_loader(self) -> None:
        """Set the loaders and the classes; raise as `attach_data` and `check_views_kept`."""
        if self.given_classnames is not None:
            attach_classes(self, self.given_classnames)
            return
        views = self.train_views()
        check_views_kept(self.cfg, encodable=views is None and self.image_tower_untouched)
        attach_data(self, views)
        self.train_loader_x = divided(self.train_loader_x)

    def build_model(self) -> None:
        """Load the CLIP and build the prompts and their optimizer; raise as `load_backbone`."""
        self.backbone = self.load_backbone()
        self.clip = self.backbone.model
        check_distinct_classes(self.classnames, backbone_of(self.clip).tokenizer)
        self.checkpointer = Checkpointer(self)
        self.calibration = PostHocCalibration(self)
        self.session = TrainingSession(self)
        self.build_method()

    def load_backbone(self) -> FrozenCLIP:
        """Return the CLIP that MODEL.BACKBONE names; raise as `FrozenCLIP.from_cfg`."""
        return FrozenCLIP.from_cfg(self.cfg, self.settings, self.device)

    def build_method(self) -> None:
        """Build the prompts, their optimizer, and the class tokens after the context."""
        if (texts := self.texts(self.classnames)) is not None:
            self.class_tokens = texts
        if (seed := training_seed(self.cfg)) != self.cfg.SEED:
            torch.manual_seed(seed)
        self.model = self.build_prompts()
        self.calibration.register(self.model)
        self.model.to(self.device)
        print(f"# learnable parameters: {self.learned:,}")
        load_initial(self.model, self.cfg.MODEL.INIT_WEIGHTS)
        self.optim = self.optimizer(self.model)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model(self.model_name, self.model, self.optim, self.sched)
        self.scaler = self.checkpointer.scaler = self.backbone.scaler()

    def init_writer(self, log_dir: str) -> None:
        """Open the writers of TRAIN.LOGGERS in the first process; raise as `open_loggers`."""
        if not is_main():
            return
        names = list(self.cfg.TRAIN.get("LOGGERS", ["tensorboard"]))  # may be missing
        if "tensorboard" in names:
            names.remove("tensorboard")
            super().init_writer(log_dir)
        if names:
            from causalclip.engine.loggers import Several, open_loggers

            others = open_loggers(names, self.output_dir, dict(flatten(self.cfg)))
            self._writer = Several([*filter(None, [self._writer]), *others])

    def train(self) -> None:
        """Train and test as Dassl does; end the loading processes, also after an error."""
        try:
            super().train()
        finally:
            end_workers(self.train_loader_x)

    def before_train(self) -> None:
        """Resume if there is a checkpoint, and start the clock."""
        super().before_train()
        self.session.start()

    def before_epoch(self) -> None:
        """Set the loader to this epoch and, in a resumed run, to the batch where it stopped."""
        super().before_epoch()
        self.session.begin_epoch()

    def after_epoch(self) -> None:
        """Do as Dassl, then as `TrainingSession.end_epoch`; raise as the latter."""
        super().after_epoch()
        self.session.end_epoch()

    def after_train(self) -> None:
        """Record the cost of the training; then do as Dassl."""
        self.session.end()
        super().after_train()

    def test(self, split: str | None = None) -> float:
        """Evaluate on a split; return the accuracy in per cent, and raise as `evaluate`."""
        return from_main(evaluate(self, split) if is_main() else 0.0)

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Calibrate, then write a checkpoint, which contains the result; arguments as in Dassl."""
        if is_main():
            self.calibrate()
            self.checkpointer.save(*args, **kwargs)
        from_main(None)  # no process reads the checkpoint before it is written

    def resume_model_if_exist(self, directory: str) -> int:
        """Load the last checkpoint; return the epochs done, and raise as `Checkpointer.resume`."""
        return self.checkpointer.resume(directory)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a model for an evaluation; raise as `Checkpointer.load`."""
        class_bound = not self.knows_other_classes(self.settings)
        self.checkpointer.load(directory, epoch, class_bound=class_bound)

    # Facts

    @property
    def settings(self) -> CfgNode:
        """The method's own node of the configuration."""
        return self.cfg.TRAINER[self.config_node]

    @cached_property
    def classnames(self) -> list[str]:
        """The class names of this run, in the order of their labels."""
        return list(self.dm.dataset.classnames)

    @property
    def learned(self) -> int:
        """The number of learnable parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @cached_property
    def encoder(self) -> Encoder:
        """CLIP's own image tower with the test transform and a cache on disk."""
        return encoder_of(self)

    def template(self) -> str:
        """Return the hand-crafted prompt: the method's TEMPLATE, else the data set's."""
        return self.settings.get("TEMPLATE") or dataset_template(self.cfg, self.code_templates)

    # A method defines

    @classmethod
    def knows_other_classes(cls, settings: CfgNode) -> bool:
        """Return whether the method, with these settings, predicts classes not seen in training."""
        return True

    def train_views(self) -> list | None:
        """Return the transforms of the training images, one per view; None: INPUT.TRANSFORMS."""
        return None

    def context(self) -> Context | None:
        """Return the words before the class names; None if the texts are hand-crafted."""
        return None

    def build_prompts(self) -> nn.Module:
        """Return the module with all learnable parameters; its forward returns a PromptSet."""
        raise NotImplementedError

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Return the optimizer of the learnable parameters, from OPTIM."""
        return build_optimizer(model, self.cfg.OPTIM)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the training loss, and class scores (B, K) for the printed accuracy.

        `parse_batch_train` gives the images, (B, 3, H, W) or (B, V, 3, H, W), and labels (B,).
        """
        logits = self.logits(images)
        return F.cross_entropy(logits, labels), logits

    def calibrate(self) -> None:
        """Fit the calibration on the validation split, before a checkpoint is written."""
        self.calibration.fit()

    def after_step(self) -> None:
        """Hook: called after each step, and after each step that a resumed run skips."""

    def details(self) -> dict[str, Any]:
        """Return further facts for results.json (JSON values only)."""
        return {}

    def image_sets(self) -> Iterator[ImageSet]:
        """Yield the images whose features this method reads from the feature cache."""
        if self.image_tower_untouched:
            yield ImageSet.of(self.dm.dataset.test)

    # Forward

    def texts(self, names: Sequence[str]) -> ClassTokens | None:
        """Return the tokens (K, L) of K class names after the context; None without a context.

        Raises:
            ValueError: a context that does not fit its words, or a class name that is too long.
        """
        if self.templated:
            return tokens_of(self, names, self.template()).to(self.device)
        context = self.context()
        return None if context is None else context.tokens(names, self.clip).to(self.device)

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, K) of images (B, 3, H, W) under the current prompts.

        `text` is `evaluation_text`; with None the text features are computed now.
        """
        prompts = self.model()
        text = self.text_features(prompts) if text is None else text
        return self.backbone.classify(self.image_features(images, prompts), text)

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Return `logits` from the features (B, E) of an image tower without prompts."""
        text = self.text_features(self.model()) if text is None else text
        return self.backbone.classify(features, text)

    def test_logits(self, inputs: Tensor, text: Tensor | None = None) -> Tensor:
        """Return `logits` (B, K) of a test batch: images (B, 3, H, W), or features (B, E)."""
        return (self.feature_logits if self.image_tower_untouched else self.logits)(inputs, text)

    def image_features(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """Return features (B, E) of images (B, 3, H, W); no graph if the tower has no prompts.

        Under DATALOADER.VIEWS_KEPT `images` are their features (B, E) already.
        """
        if images.dim() == 2:
            return images
        with torch.set_grad_enabled(torch.is_grad_enabled() and prompts.touches_image_tower):
            return encode_prompted_image(self.clip, images, prompts)

    def text_features(self, prompts: PromptSet) -> Tensor:
        """Return the text features (K, E) of the classes under the prompts.

        In training, the part that no step changes is computed once. It is not used outside of
        training, where the precision may differ.
        """
        if self.lower_texts is None and torch.is_grad_enabled():
            self.lower_texts = encode_lower_texts(self.clip, self.class_tokens, prompts)
        lower = self.lower_texts if torch.is_grad_enabled() else None
        return encode_classes(self.clip, self.class_tokens, prompts, lower)

    def evaluation_text(self) -> Tensor | None:
        """Return the text features of a whole evaluation; None if they depend on the image."""
        return self.text_features(self.model())

    def learned_text(self, names: Sequence[str]) -> Tensor | None:
        """Return text features (K, E) of any class names; None if texts are not learned."""
        texts = self.texts(names)
        return None if texts is None else encode_classes(self.clip, texts, self.model())

    def prediction_of(self, logits: Tensor) -> Prediction:
        """Return the readings of class logits (B, K)."""
        return Prediction(Reading.of_logits(logits))

    def predict(self, images: Tensor) -> Prediction:
        """Return the readings of images (B, 3, H, W)."""
        return self.prediction_of(self.logits(images))

    def predictor(self) -> Callable[[Tensor], Prediction]:
        """Return the function that predicts the batches of an evaluation with its text features."""
        text = self.evaluation_text()
        if self.calibration.enabled:
            return self.calibration.predictor(text)
        return lambda inputs: self.prediction_of(self.test_logits(inputs, text))

    # One step

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W), or (B, V, 3, H, W) of V views, and labels (B,).

        Pinned batches are copied to a GPU while it still computes the previous step.
        """
        keys = ["img", *(key for n in range(2, len(batch)) if (key := f"img{n}") in batch)]
        *views, labels = (batch[key].to(self.device, non_blocking=True) for key in (*keys, "label"))
        return views[0] if len(views) == 1 else torch.stack(views, dim=1), labels

    def forward_backward(self, batch: dict[str, Any] | None) -> dict[str, float] | None:
        """Take one step; return the loss and the accuracy in per cent.

        On a CPU they are those of the step. On a GPU, reading them would wait for all earlier work:
        they are returned only for Dassl's log lines, as means over the steps since the last one.

        Raises:
            FloatingPointError: a loss that is NaN or infinite; names epoch and batches.
        """
        # None: a batch that was trained before the run was stopped
        summary = None
        if batch is not None:
            with self.session.counting():
                summary = self.step(batch)
        self.after_step()
        return summary

    def step(self, batch: dict[str, Any]) -> dict[str, float] | None:
        """Take one step; return and raise as `forward_backward`."""
        return self.session.step(batch)
