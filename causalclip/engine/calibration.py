"""Temperature scaling and DAC for softmax methods, used if TEST.CALIBRATION is True.

Temperature scaling (Guo et al., ICML 2017) is fitted at the end of training; distance-aware
calibration, DAC (Wang et al., "Open-Vocabulary Calibration for Fine-tuned CLIP", ICML 2024, arXiv
2402.04655), needs no fit. Neither changes the predicted class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.zeroshot import class_features
from causalclip.data.catalogue import dataset_template
from causalclip.engine.evaluation import split_batches, split_loader
from causalclip.engine.prediction import Prediction, Reading

if TYPE_CHECKING:
    from causalclip.engine.prompt_trainer import PromptTrainer

NEIGHBOURS = 5  # [code of DAC] number of nearest trained classes to compare
BASE_RADIUS = 0.05  # [code of DAC] a class nearer than this to a trained class counts as trained
TEMPERATURES = (0.01, 100.0)
TEMPERATURE = "temperature"  # name of the model's buffer: one number, NaN until it is fitted


@dataclass(frozen=True)
class PostHocCalibration:
    """Post-hoc calibration of one trainer's model."""

    trainer: PromptTrainer

    @property
    def enabled(self) -> bool:
        """Whether TEST.CALIBRATION is True and the method is a softmax method."""
        return self.trainer.softmax and bool(self.trainer.cfg.TEST.get("CALIBRATION", False))

    def register(self, model: nn.Module) -> None:
        """If enabled, register a buffer so that checkpoints contain the temperature.

        Checkpoints with and without the buffer load in either case.
        """
        enabled = self.enabled
        if enabled:
            model.register_buffer(TEMPERATURE, torch.tensor(math.nan))

        def adapt(_: nn.Module, state: dict[str, Any], *__: Any) -> None:
            if enabled:
                state.setdefault(TEMPERATURE, torch.tensor(math.nan))
            else:
                state.pop(TEMPERATURE, None)

        model.register_load_state_dict_pre_hook(adapt)

    def fit(self) -> None:
        """If enabled, fit the temperature on the validation split."""
        if not self.enabled:
            return
        if self.trainer.val_loader is None:
            print("No validation split to fit the temperature on")
            return
        logits, labels = validation_logits(self.trainer)
        temperature = fit_temperature(logits.cpu(), labels)
        print(f"Temperature: {temperature:.4f} (fitted on {len(labels)} images)")
        self.trainer.model.get_buffer(TEMPERATURE).fill_(temperature)

    def predictor(self, text: Tensor | None) -> Callable[[Tensor], Prediction]:
        """Return a function that predicts a batch of `split_batches`, with calibrated readings.

        `text` is the trainer's `evaluation_text` (K, E).
        """
        trainer, temperature, factors = self.trainer, self.temperature(), self.factors(text)

        def predict(inputs: Tensor) -> Prediction:
            logits = trainer.test_logits(inputs, text)
            readings = calibrated_readings(logits, temperature, factors)
            return Prediction(Reading.of_logits(logits), readings)

        return predict

    def temperature(self) -> float | None:
        """Return the temperature of the model; None if none was fitted."""
        value = self.trainer.model.get_buffer(TEMPERATURE).item()
        if math.isnan(value):
            print("Note: no temperature in this model: train it with TEST.CALIBRATION True")
            return None
        return value

    def factors(self, text: Tensor | None) -> Tensor | None:
        """Return DAC's factors of this run's classes (K,), from their text features (K, E).

        None if the texts are not learned or depend on the image, or if the trained classes are not
        known.
        """
        trainer, names = self.trainer, self.trainer.checkpointer.trained_names()
        if text is None or names is None or (tuned := trainer.learned_text(names)) is None:
            return None
        template = [dataset_template(trainer.cfg)]

        def unit(features: Tensor) -> Tensor:
            return F.normalize(trainer.backbone.project(features), dim=-1)

        return class_factors(
            unit(class_features(trainer.clip, names, template)),
            unit(class_features(trainer.clip, trainer.classnames, template)),
            unit(tuned),
            unit(text),
            neighbours=min(NEIGHBOURS, len(names)),
        )


def calibrated_readings(
    logits: Tensor, temperature: float | None, factors: Tensor | None
) -> dict[str, Reading]:
    """Return the readings `temperature`, `dac` and `dac_temperature` of class logits (B, K).

    DAC's `factors` are (K,). A temperature or factors of None give no reading.
    """
    named = {}
    if temperature is not None:
        named["temperature"] = logits / temperature
    if factors is not None:
        named["dac"] = distance_aware(logits, factors)
    if temperature is not None and factors is not None:
        named["dac_temperature"] = named["dac"] / temperature
    return {name: Reading.of_logits(calibrated) for name, calibrated in named.items()}


@torch.no_grad()
def validation_logits(trainer: PromptTrainer) -> tuple[Tensor, Tensor]:
    """Return logits of the validation split, (N, K) or (N, M, K), and labels (N,) on the CPU.

    The state of torch's random generators is restored.

    Raises:
        ValueError: the data set has no validation split.
    """
    logits, labels = [], []
    trainer.set_model_mode("eval")
    text = trainer.evaluation_text()
    with torch.random.fork_rng():
        for inputs, label, _ in split_batches(trainer, split_loader(trainer, "val")):
            with trainer.backbone.autocast():
                logits.append(trainer.test_logits(inputs, text).float())
            labels.append(label.cpu())
    trainer.set_model_mode("train")
    return torch.cat(logits), torch.cat(labels)


# The formulas


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T > 0 of least negative log-likelihood, of softmax(logits / T).

    Args:
        logits: (N, K) of a validation split.
        labels: (N,) class indices.

    Raises:
        ValueError: logits that are not finite.
    """
    from scipy.optimize import OptimizeResult, minimize_scalar  # slow, and few runs need it

    if not logits.isfinite().all():
        raise ValueError("logits must be finite to fit a temperature, got inf or NaN")
    exact, targets = logits.detach().double(), labels.long()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(exact / math.exp(log_temperature), targets).item()

    # The loss is convex in 1 / T, hence has one minimum in log T.
    bounds = tuple(math.log(end) for end in TEMPERATURES)
    result = cast(OptimizeResult, minimize_scalar(loss, bounds=bounds, method="bounded"))
    return math.exp(result.x)


def class_factors(
    base_zeroshot: Tensor, zeroshot: Tensor, base_tuned: Tensor, tuned: Tensor, *, neighbours: int
) -> Tensor:
    """Return DAC's factors gamma_k (K,): 1 for trained classes, else the effect of tuning.

        gamma_k = exp(-d_k) / exp(-d0_k)

    d_k is the mean Euclidean distance of the tuned text feature of class k to its `neighbours`
    nearest among the trained classes, d0_k the same under zero-shot CLIP: if tuning moves a
    class away from the trained classes, its confidence is lowered.

    Args:
        base_zeroshot: (K0, E) unit text features of the trained classes before tuning.
        zeroshot: (K, E) of the classes to predict, before tuning.
        base_tuned: (K0, E) of the trained classes after tuning.
        tuned: (K, E) of the classes to predict, after tuning.
        neighbours: number of nearest trained classes to average over.
    """
    before = _nearest(zeroshot, base_zeroshot, neighbours)
    after = _nearest(tuned, base_tuned, neighbours)
    factors = (before.mean(-1) - after.mean(-1)).exp()
    return torch.where(after[:, 0] < BASE_RADIUS, torch.ones_like(factors), factors)


def distance_aware(logits: Tensor, factors: Tensor) -> Tensor:
    """Return DAC's logits (..., K): a sample's logits times the factor of its predicted class."""
    return logits * factors.to(logits)[logits.argmax(-1, keepdim=True)]


def _nearest(features: Tensor, others: Tensor, count: int) -> Tensor:
    """Return the distances (K, count) to the nearest `others`, ascending."""
    # Without matrix multiplication, which loses half of the digits near 0.
    distances = torch.cdist(
        features.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distances.sort(dim=-1).values[:, :count]
