"""Temperature scaling and DAC of a softmax method, where TEST.CALIBRATION asks for them.

Temperature scaling (Guo et al., ICML 2017) is fitted at the end of training; distance-aware
calibration (Wang et al., ICML 2024) needs no fit. Neither changes the predicted class. The
mathematics is in causalclip/calibration.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.calibration import class_factors, distance_aware, fit_temperature
from causalclip.clip.zeroshot import class_features
from causalclip.data.catalogue import dataset_template
from causalclip.engine.evaluation import split_loader, test_batches
from causalclip.engine.prediction import Prediction, Reading

if TYPE_CHECKING:
    from causalclip.engine.prompt_trainer import PromptTrainer

NEIGHBOURS = 5  # [code of DAC] trained classes that are compared
TEMPERATURE = "temperature"  # buffer of the model: one number, NaN while it is not fitted


@dataclass(frozen=True)
class PostHocCalibration:
    """The calibration of one trainer."""

    trainer: PromptTrainer

    @property
    def enabled(self) -> bool:
        """Whether TEST.CALIBRATION asks for it, of a softmax method."""
        return self.trainer.softmax and bool(self.trainer.cfg.TEST.get("CALIBRATION", False))

    def register(self, model: nn.Module) -> None:
        """Register a model's buffer that carries the temperature in checkpoints, where enabled.

        Checkpoints with the buffer and without it load in either case.
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
        """Fit the temperature on the validation split, where enabled."""
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
        """Return a function that predicts a batch of `test_batches`, with calibrated readings.

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

        None where texts do not learn or depend on the image, and where the trained classes are not
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

    The training's random stream stays as it was.

    Raises:
        ValueError: the data set has no validation split.
    """
    logits, labels = [], []
    trainer.set_model_mode("eval")
    text = trainer.evaluation_text()
    with torch.random.fork_rng():
        for inputs, label, _ in test_batches(trainer, split_loader(trainer, "val")):
            with trainer.backbone.autocast():
                logits.append(trainer.test_logits(inputs, text).float())
            labels.append(label.cpu())
    trainer.set_model_mode("train")
    return torch.cat(logits), torch.cat(labels)
