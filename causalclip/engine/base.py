"""What every trainer shares: the frozen CLIP, loading, evaluation, and the prompt-learning step."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dassl.data import DataManager
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from yacs.config import CfgNode

from causalclip.clip.backbone import image_size, is_vit, load_clip, weights_digest
from causalclip.clip.injection import encode_image, prompted
from causalclip.clip.prompts import (
    ClassTokens,
    CoupledPrompts,
    IndependentPrompts,
    PromptSet,
    class_tokens,
    embed_words,
    encode_classes,
)
from causalclip.clip.zeroshot import cosine_logits
from causalclip.engine.checkpoints import CheckpointTrainer, load_state
from causalclip.engine.loading import Epochs, training_loader
from causalclip.engine.step_report import StepReport
from causalclip.icm.subspace import InvariantProjection
from causalclip.metrics import classification_metrics
from causalclip.report.results import (
    peak_memory_mb,
    run_record,
    write_predictions,
    write_results,
)

PRECISIONS = ("fp32", "fp16", "bf16", "amp")


class CLIPTrainer(CheckpointTrainer):
    """A method on a frozen CLIP: subclasses say what they learn and how they predict.

    A subclass sets ``config_node`` (its node below ``cfg.TRAINER``) and ``defaults`` (that node's
    keys and values), builds what it needs in ``build_method`` and answers ``predict``.
    """

    config_node: str
    defaults: dict[str, Any] = {}

    @property
    def settings(self) -> CfgNode:
        """This method's own node of the configuration."""
        return self.cfg.TRAINER[self.config_node]

    def check_cfg(self, cfg: CfgNode) -> None:
        precision = cfg.TRAINER[self.config_node].PREC
        if precision not in PRECISIONS:
            raise ValueError(
                f"TRAINER.{self.config_node}.PREC must be one of {', '.join(PRECISIONS)}, "
                f"got {precision!r}"
            )
        if not cfg.MODEL.BACKBONE.NAME:
            raise ValueError("MODEL.BACKBONE.NAME is empty: name a CLIP, for example tiny")

    # -- building ------------------------------------------------------------------------------

    def train_views(self) -> list | None:
        """The transforms of the training images, one per view; None takes INPUT.TRANSFORMS."""
        return None

    def build_data_loader(self) -> None:
        self.dm = DataManager(self.cfg, custom_tfm_train=self.train_views())
        self.train_loader_x = training_loader(self.dm.train_loader_x, self.cfg)
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def before_epoch(self) -> None:
        super().before_epoch()
        if isinstance(self.train_loader_x, Epochs):
            self.train_loader_x.epoch = self.epoch

    def build_model(self) -> None:
        cfg = self.cfg
        self.classnames = list(self.dm.dataset.classnames)
        print(f"Loading CLIP (backbone: {cfg.MODEL.BACKBONE.NAME})")
        self.clip = load_clip(
            cfg.MODEL.BACKBONE.NAME, device=self.device, precision=self.settings.PREC
        )
        check_input_size(cfg.INPUT.SIZE, image_size(self.clip), cfg.MODEL.BACKBONE.NAME)
        self.digest = weights_digest(self.clip)
        self.projection = self._load_projection()
        self.training_cost: dict[str, Any] | None = None
        self.build_method()

    def _load_projection(self) -> InvariantProjection | None:
        path = self.settings.get("PROJECTION", "")
        if not path:
            return None
        projection = InvariantProjection.load(path).to(self.device)
        width = self.clip.text_projection.shape[1]
        if projection.basis.shape[0] != width:
            raise ValueError(
                f"{path}: projection of {projection.basis.shape[0]}-d features, "
                f"but {self.cfg.MODEL.BACKBONE.NAME} has {width}-d features"
            )
        return projection

    def build_method(self) -> None:
        """Build and register what the method learns; nothing for a method that learns nothing."""

    # -- classifying ---------------------------------------------------------------------------

    @property
    def logit_scale(self) -> Tensor:
        """exp(logit_scale) of CLIP in fp32; 100 in the released models."""
        return self.clip.logit_scale.detach().float().exp()

    def classify(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """scale * cosine (..., K), inside the invariant subspace when PROJECTION names one."""
        image_features, text_features = image_features.float(), text_features.float()
        if self.projection is not None:
            image_features = self.projection(image_features)
            text_features = self.projection(text_features)
        return cosine_logits(image_features, text_features, self.logit_scale)

    def predict(self, images: Tensor) -> dict[str, Any]:
        """Per-sample outputs of a test batch: at least ``probabilities`` (B, K) and
        ``uncertainty`` (B,); ``variants`` may hold the same for other readings of the method."""
        raise NotImplementedError

    def model_inference(self, images: Tensor) -> Tensor:
        """Class log-probabilities (B, K): what Dassl's generic code expects from a trainer."""
        return self.predict(images)["probabilities"].clamp_min(1e-12).log()

    def autocast(self):
        """Mixed precision under PREC amp: fp16 on a GPU, bf16 on a CPU; otherwise nothing."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.settings.PREC == "amp")

    # -- evaluation ----------------------------------------------------------------------------

    @contextmanager
    def evaluating(self):
        """Around one evaluation; subclasses hold here what is computed once per evaluation."""
        self.set_model_mode("eval")
        yield

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on a split, write results.json and predictions.npz, return the accuracy."""
        split = split or self.cfg.TEST.SPLIT
        loader = self._loader(split)
        print(f"Evaluate on the *{split}* set")
        start = time.perf_counter()
        with self.evaluating():
            outputs = self._collect(loader)
        seconds = time.perf_counter() - start
        self.evaluator.reset()
        self.evaluator.process(
            torch.from_numpy(outputs["probabilities"]), torch.from_numpy(outputs["label"])
        )
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        if split == self.cfg.TEST.SPLIT:  # a val pass that only selects a checkpoint leaves no file
            self.report(split, outputs, seconds)
        return next(iter(results.values()))

    def _loader(self, split: str) -> Iterable:
        if split == "val":
            if self.val_loader is None:
                raise ValueError(
                    f"{self.cfg.DATASET.NAME} has no validation split to evaluate on: use "
                    "TEST.SPLIT test, and TEST.FINAL_MODEL last_step"
                )
            return self.val_loader
        return self.test_loader

    def _collect(self, loader: Iterable) -> dict[str, np.ndarray]:
        batches: list[dict[str, np.ndarray]] = []
        for batch in tqdm(loader, desc="evaluate", leave=False):
            images, labels = self.parse_batch_test(batch)
            with self.autocast():
                outputs = flatten(self.predict(images))
            outputs["label"] = labels
            arrays = {name: value.float().cpu().numpy() for name, value in outputs.items()}
            arrays["label"] = labels.cpu().numpy()
            arrays["path"] = np.array([str(path) for path in batch["impath"]])
            batches.append(arrays)
        return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}

    def report(self, split: str, outputs: dict[str, np.ndarray], seconds: float) -> None:
        """Write results.json and predictions.npz of one evaluation into OUTPUT_DIR."""
        labels = outputs["label"]
        record = run_record(self.cfg, classnames=self.classnames, split=split)
        record["metrics"] = metrics_of(outputs, labels)
        record["variants"] = {
            name: metrics_of(outputs, labels, prefix=f"{name}/") for name in variant_names(outputs)
        }
        record["parts"] = self.metrics_of_parts(outputs)
        record["variant_parts"] = {
            name: self.metrics_of_parts(outputs, prefix=f"{name}/")
            for name in variant_names(outputs)
        }
        record["training"] = self.training_cost
        record["trained_on"] = self.trained_on
        record["evaluation"] = {"seconds": seconds, "images": len(labels)}
        record["details"] = self.details()
        outputs["prediction"] = outputs["probabilities"].argmax(1)
        write_predictions(self.output_dir, outputs)
        write_results(self.output_dir, record)
        print(f"Results: {Path(self.output_dir) / 'results.json'}")

    def metrics_of_parts(
        self, outputs: dict[str, np.ndarray], *, prefix: str = ""
    ) -> dict[str, dict[str, float]]:
        """The metrics of one reading on every part of the test set."""
        return {
            name: metrics_of(outputs, outputs["label"], prefix=prefix, rows=rows)
            for name, rows in self.parts(outputs).items()
        }

    def parts(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Named subsets (boolean rows) of the test set that are reported beside the whole:
        ``heldout`` of the target domain; ``base`` and ``open`` for a model that was trained on
        some of this run's classes."""
        named = {}
        heldout = getattr(self.dm.dataset, "heldout_test", None)
        if heldout:
            named["heldout"] = np.array([path in heldout for path in outputs["path"]])
        known = self.known_classes()
        if known:
            named["base"] = np.isin(outputs["label"], known)
            named["open"] = ~named["base"]
        return {name: rows for name, rows in named.items() if rows.any()}

    def known_classes(self) -> list[int]:
        """Labels of the classes the loaded model was trained on, where there are others too."""
        if self.trained_on is None or self.trained_on["dataset"] != self.cfg.DATASET.NAME:
            return []
        trained = self.trained_on["classnames"]
        known = [label for label, name in enumerate(self.classnames) if name in trained]
        return known if len(known) < len(self.classnames) else []

    def details(self) -> dict[str, Any]:
        """Further facts about the fitted method for results.json (JSON values only)."""
        return {}


class PromptTrainer(CLIPTrainer):
    """Prompt learning by gradient descent: ``build_prompts`` and, if need be, ``loss``."""

    model_name = "prompt_learner"

    def build_method(self) -> None:
        self._text: Tensor | None = None
        self._steps = StepReport()
        self.model = self.build_prompts().to(self.device)
        learned = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        print(f"# learnable parameters: {learned:,}")
        if self.cfg.MODEL.INIT_WEIGHTS:
            path = Path(self.cfg.MODEL.INIT_WEIGHTS)
            load_state(self.model, load_checkpoint(str(path))["state_dict"], path)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model(self.model_name, self.model, self.optim, self.sched)
        on_gpu = self.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(enabled=on_gpu and self.settings.PREC == "amp")

    def training_state(self) -> dict[str, Any]:
        return {**super().training_state(), "scaler": self.scaler.state_dict()}

    def load_training_state(self, state: dict[str, Any]) -> None:
        super().load_training_state(state)
        if state["scaler"]:  # empty where the scaler is not used
            self.scaler.load_state_dict(state["scaler"])

    def build_prompts(self) -> nn.Module:
        """The module that owns every learnable number; its forward gives a PromptSet."""
        raise NotImplementedError

    def tokens(self, *, n_ctx: int, prefix: str = "", position: str = "end") -> ClassTokens:
        """Token ids of "<prefix> <class name>." for this run's class names."""
        tokens = class_tokens(
            self.classnames,
            n_ctx=n_ctx,
            prefix=prefix,
            position=position,
            context_length=self.clip.context_length,
        )
        return tokens.to(self.device)

    def context_words(self, *, position: str = "end") -> tuple[int, Tensor | None]:
        """Set ``class_tokens`` from N_CTX and CTX_INIT; the context's length and start.

        As published for CoOp and its kin, the words of CTX_INIT decide how many there are.
        """
        words = self.settings.CTX_INIT.replace("_", " ")
        n_ctx = len(words.split()) or self.settings.N_CTX
        self.class_tokens = self.tokens(n_ctx=n_ctx, prefix=words, position=position)
        return n_ctx, embed_words(self.clip, words, n_ctx) if words else None

    # -- one forward ---------------------------------------------------------------------------

    def logits(self, images: Tensor) -> Tensor:
        """Class logits (B, K) of a batch under the current prompts."""
        prompts = self.model()
        return self.classify(self.image_features(images, prompts), self.text_features(prompts))

    def image_features(self, images: Tensor, prompts: PromptSet) -> Tensor:
        """(B, E); without a graph when the image tower holds no prompts."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(prompts.image)):
            with prompted(self.clip, image=prompts.image):
                return encode_image(self.clip, images)

    def text_features(self, prompts: PromptSet) -> Tensor:
        """(K, E), computed once per evaluation when the prompts do not depend on the image."""
        if self._text is not None:
            return self._text
        return encode_classes(self.clip, self.class_tokens, prompts)

    @contextmanager
    def evaluating(self):
        with super().evaluating():
            self._text = self.evaluation_text()
            try:
                yield
            finally:
                self._text = None

    def evaluation_text(self) -> Tensor | None:
        """The text features that hold for a whole evaluation; None if they depend on the image."""
        return self.text_features(self.model())

    def predict(self, images: Tensor) -> dict[str, Any]:
        probabilities = self.logits(images).softmax(-1)
        return {
            "probabilities": probabilities,
            "uncertainty": 1 - probabilities.amax(-1),  # a softmax knows no other uncertainty
        }

    # -- one step ------------------------------------------------------------------------------

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W), or (B, V, C, H, W) where the data manager delivers V views.

        Pinned batches travel to a GPU while it works on the step before.
        """
        keys = ["img"]
        while f"img{len(keys) + 1}" in batch:
            keys.append(f"img{len(keys) + 1}")
        *views, labels = (batch[key].to(self.device, non_blocking=True) for key in (*keys, "label"))
        return views[0] if len(views) == 1 else torch.stack(views, dim=1), labels

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The training loss and the class scores (B, K) its accuracy is printed of."""
        logits = self.logits(images)
        return F.cross_entropy(logits, labels), logits

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float] | None:
        images, labels = self.parse_batch_train(batch)
        with self.autocast():
            loss, scores = self.loss(images, labels)
        if self.reads_every_step:
            self.detect_anomaly(loss)
        self.model_zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optim)
        self.scaler.update()
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        self._steps.add(loss, compute_accuracy(scores, labels)[0])
        return self._report()

    @property
    def reads_every_step(self) -> bool:
        """On a CPU a number is there at once; on a GPU, reading it waits for all work before it."""
        return self.device.type == "cpu"

    def _report(self) -> dict[str, float] | None:
        """What Dassl's loop is to print: of each step, or, on a GPU, the means of the steps since
        its last line with every line. The end of an epoch is read for a loss that is NaN."""
        done, frequency = self.batch_idx + 1, self.cfg.TRAIN.PRINT_FREQ
        printed = self.num_batches < frequency or done % frequency == 0
        if not (printed or self.reads_every_step or done == self.num_batches):
            return None
        means = self._steps.read(epoch=self.epoch + 1, batch=done)
        return means if printed or self.reads_every_step else None

    def before_train(self) -> None:
        super().before_train()
        self._train_start = time.perf_counter()

    def after_train(self) -> None:
        epochs = self.max_epoch - self.start_epoch
        if epochs > 0:  # a finished run that is only evaluated again was not trained now
            self.training_cost = {
                "seconds": time.perf_counter() - self._train_start,
                "epochs": epochs,
                "resumed_from_epoch": self.start_epoch,
                "steps": epochs * len(self.train_loader_x),
                "images": len(self.dm.dataset.train_x),
                "learnable_parameters": sum(p.numel() for p in self.model.parameters()),
                "peak_memory_mb": peak_memory_mb(self.device),
            }
        super().after_train()


def check_input_size(size: Iterable[int], expected: int, backbone: str) -> None:
    """Raise unless INPUT.SIZE is what the backbone's position embedding was made for."""
    if tuple(size) != (expected, expected):
        raise ValueError(
            f"INPUT.SIZE must be ({expected}, {expected}) for {backbone}, got {tuple(size)}"
        )


def flatten(outputs: dict[str, Any]) -> dict[str, Tensor]:
    """{"variants": {v: {k: x}}} becomes {"v/k": x}; the rest stays."""
    flat = {name: value for name, value in outputs.items() if name != "variants"}
    for variant, values in outputs.get("variants", {}).items():
        flat.update({f"{variant}/{name}": value for name, value in values.items()})
    return flat


def variant_names(outputs: dict[str, np.ndarray]) -> list[str]:
    """The variants that ``flatten`` wrote into the outputs."""
    suffix = "/probabilities"
    return [name.removesuffix(suffix) for name in outputs if name.endswith(suffix)]


def metrics_of(
    outputs: dict[str, np.ndarray],
    labels: np.ndarray,
    *,
    prefix: str = "",
    rows: np.ndarray | slice = slice(None),
) -> dict[str, float]:
    """The metrics of the (variant's) probabilities and uncertainty on the chosen rows."""
    return classification_metrics(
        torch.from_numpy(outputs[f"{prefix}probabilities"][rows]),
        torch.from_numpy(labels[rows]),
        torch.from_numpy(outputs[f"{prefix}uncertainty"][rows]),
    )


def coupled_prompts(clip: nn.Module, settings: CfgNode) -> CoupledPrompts:
    """MaPLe's prompts for a CLIP, started from the first N_CTX words of CTX_INIT."""
    check_depth(clip, text=settings.PROMPT_DEPTH, vision=settings.PROMPT_DEPTH)
    words = settings.CTX_INIT.replace("_", " ")
    return CoupledPrompts(
        settings.N_CTX,
        settings.PROMPT_DEPTH,
        clip.transformer.width,
        clip.visual.transformer.width,
        init=embed_words(clip, words, settings.N_CTX) if words else None,
    )


def independent_prompts(clip: nn.Module, settings: CfgNode) -> IndependentPrompts:
    """Prompts of IVLP's kind for a CLIP; a tower whose N_CTX or depth is 0 or absent has none."""
    n_text, text_depth = settings.get("N_CTX_TEXT", 0), settings.get("PROMPT_DEPTH_TEXT", 0)
    check_depth(clip, text=text_depth, vision=settings.PROMPT_DEPTH_VISION)
    words = settings.CTX_INIT.replace("_", " ")
    return IndependentPrompts(
        n_text,
        settings.N_CTX_VISION,
        text_depth,
        settings.PROMPT_DEPTH_VISION,
        clip.transformer.width,
        clip.visual.transformer.width if is_vit(clip) else 0,  # a ResNet has text prompts alone
        init=embed_words(clip, words, n_text) if words and n_text else None,
    )


def check_depth(clip: nn.Module, *, text: int, vision: int) -> None:
    """Raise before any work where prompts would be deeper than the towers, or on a ResNet."""
    if vision and not is_vit(clip):
        raise ValueError("image prompts need a ViT backbone, got a ResNet: use a text-only method")
    towers = [("text", text, clip.transformer)]
    if vision:
        towers.append(("image", vision, clip.visual.transformer))
    for name, depth, tower in towers:
        if depth > tower.layers:
            raise ValueError(
                f"prompt depth must be at most {tower.layers}, the depth of the {name} tower, "
                f"got {depth}"
            )
