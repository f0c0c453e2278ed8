"""Readings of a softmax method after temperature scaling and DAC, fitted once it is trained.

Temperature scaling (Guo et al., ICML 2017) and distance-aware calibration (Wang et al., ICML 2024);
their mathematics is in causalclip/calibration.py. Neither changes the predicted class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.calibration import class_factors, distance_aware, fit_temperature
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.distributed import in_order
from causalclip.engine.prediction import Prediction, Reading

NEIGHBOURS = 5  # [code of DAC] trained classes that are looked at
TEMPERATURE = "temperature"  # buffer of the model: one number, NaN while it is not fitted


@dataclass(frozen=True, eq=False)
class PostHoc:
    """What is known of a model to calibrate it with; nothing known gives no reading."""

    temperature: float | None = None
    factors: Tensor | None = None
    """DAC's, one a class (K,)."""

    def readings(self, logits: Tensor) -> dict[str, Reading]:
        """`temperature`, `dac` and one after the other, of class logits (B, K)."""
        named = {}
        if self.temperature is not None:
            named["temperature"] = logits / self.temperature
        if self.factors is not None:
            named["dac"] = distance_aware(logits, self.factors)
        if self.temperature is not None and self.factors is not None:
            named["dac_temperature"] = named["dac"] / self.temperature
        return {name: Reading.of_logits(calibrated) for name, calibrated in named.items()}

    def prediction(self, logits: Tensor) -> Prediction:
        """The softmax of class logits (B, K), and the readings after calibration beside it."""
        return Prediction(Reading.of_logits(logits), self.readings(logits))


class Calibrated(CLIPTrainer):
    """A trainer that classifies by logits; with TEST.CALIBRATION they are also read calibrated."""

    softmax = True  # whether the method's probabilities are a softmax of `logits` (B, K)
    loaded = False  # whether the model comes from another run

    # What a method answers

    def test_logits(self, inputs: Tensor, text: Tensor | None = None) -> Tensor:
        """Class logits (B, K), or (B, M, K) of M templates, of what `test_batches` gives.

        Args:
            inputs: the batch.
            text: `evaluation_text`, or None: the text features are computed now.
        """
        raise NotImplementedError

    def evaluation_text(self) -> Tensor | None:
        """The text features that hold for a whole evaluation; None if they depend on the image."""
        raise NotImplementedError

    def learned_text(self, names: Sequence[str]) -> Tensor | None:
        """Text features (K, E) of any class names, as learned; None where texts do not learn."""
        raise NotImplementedError

    # Fitting, at the end of training

    @property
    def calibrates(self) -> bool:
        """Whether TEST.CALIBRATION asks a softmax method for its calibrated readings."""
        return self.softmax and bool(self.cfg.TEST.get("CALIBRATION", False))

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Calibrate before a checkpoint is written, so that what was fitted is part of it."""
        self.calibrate()
        super().save_model(*args, **kwargs)

    def calibrate(self) -> None:
        """Fit the temperature on the validation split, where TEST.CALIBRATION asks for it."""
        if not self.calibrates:
            return
        if self.val_loader is None:
            print("No validation split to fit the temperature on")
            return
        logits, labels = self.validation_logits()
        temperature = fit_temperature(logits.cpu(), labels)
        print(f"Temperature: {temperature:.4f} (fitted on {len(labels)} images)")
        self.model.get_buffer(TEMPERATURE).fill_(temperature)

    @torch.no_grad()
    def validation_logits(self) -> tuple[Tensor, Tensor]:
        """Logits of the validation split, (N, K) or (N, M, K), and its labels (N,) on the CPU.

        The training's random stream is untouched.

        Raises:
            ValueError: the data set has no validation split.
        """
        logits, labels = [], []
        self.set_model_mode("eval")
        text = self.evaluation_text()
        with torch.random.fork_rng():
            for inputs, label, _ in self.test_batches(self._loader("val")):
                with self.autocast():
                    logits.append(self.test_logits(inputs, text).float())
                labels.append(label.cpu())
        self.set_model_mode("train")
        batches = in_order(
            [(part.cpu(), label) for part, label in zip(logits, labels, strict=True)]
        )
        logits, labels = map(torch.cat, zip(*batches, strict=True))
        return logits.to(self.device), labels

    # Reading

    def calibrated_predictor(self, text: Tensor | None) -> Callable[[Tensor], Prediction]:
        """What answers about the batches of `test_batches`, with the calibrated readings.

        Args:
            text: (K, E), the `evaluation_text`.
        """
        post_hoc = PostHoc(self.temperature(), self.factors(text))
        return lambda inputs: post_hoc.prediction(self.test_logits(inputs, text))

    def temperature(self) -> float | None:
        """The temperature of the model; None if none was fitted."""
        value = self.model.get_buffer(TEMPERATURE).item()
        if math.isnan(value):
            print("Note: no temperature in this model: train it with TEST.CALIBRATION True")
            return None
        return value

    def factors(self, text: Tensor | None) -> Tensor | None:
        """DAC's factors of this run's classes (K,), from their learned text features (K, E).

        None where texts do not learn or depend on the image, and where it is not known which
        classes were trained.
        """
        names = self.trained_names
        if text is None or names is None or (tuned := self.learned_text(names)) is None:
            return None
        template = [dataset_template(self.cfg)]
        return class_factors(
            self.unit(class_features(self.clip, names, template)),
            self.unit(class_features(self.clip, self.classnames, template)),
            self.unit(tuned),
            self.unit(text),
            neighbours=min(NEIGHBOURS, len(names)),
        )

    def unit(self, features: Tensor) -> Tensor:
        """Features (K, E) as they are compared: in the subspace, if there is one, and unit long."""
        features = features.float()
        if self.projection is not None:
            features = self.projection(features)
        return F.normalize(features, dim=-1)

    @property
    def trained_names(self) -> list[str] | None:
        """The classes the model was trained on; None for a loaded one that does not say."""
        if self.trained_on is not None:
            return self.trained_on["classnames"]
        return None if self.loaded else self.classnames

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """As in CheckpointTrainer."""
        super().load_model(directory, epoch)
        self.loaded = True


def keep_temperature(model: nn.Module, *, fitted: bool) -> None:
    """Give a model the buffer that carries its temperature through checkpoints, if one is `fitted`.

    Checkpoints with the buffer and without it load in either case.
    """
    if fitted:
        model.register_buffer(TEMPERATURE, torch.tensor(math.nan))

    def adapt(_: nn.Module, state: dict[str, Any], *__: Any) -> None:
        if fitted:
            state.setdefault(TEMPERATURE, torch.tensor(math.nan))
        else:
            state.pop(TEMPERATURE, None)

    model.register_load_state_dict_pre_hook(adapt)
