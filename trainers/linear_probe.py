"""LinearProbe: logistic regression on CLIP's image features (CLIP, arXiv 2103.00020).

C by a sweep on the validation split, as in CoOp's lpclip.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from causalclip.engine.features import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.icm.probe import LPCLIP_GRID, LPCLIP_STEPS, Probe, fit_probe, sweep_c


class LinearProbe(FeatureTrainer):
    """A linear classifier on the features before CLIP's own; it knows no other classes."""

    config_node = "LINEARPROBE"
    defaults = {
        "C": None,  # inverse strength of the L2 penalty; None: by the sweep
        "GRID": list(LPCLIP_GRID),
        "STEPS": LPCLIP_STEPS,  # of the binary search after the grid
        "MAX_ITER": 1000,
        "PREC": "fp32",
    }

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.LINEARPROBE.C
        if c is not None and not (isinstance(c, (int, float)) and c > 0):
            raise ValueError(f"TRAINER.LINEARPROBE.C must be None or a positive number, got {c!r}")

    def fit(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        dataset, settings = self.dm.dataset, self.settings
        train = self.labelled(dataset.train_x, desc="train")
        n_classes = len(self.classnames)
        if settings.C is not None:
            c, tried = settings.C, []
            probe = fit_probe(*train, n_classes, c=c, max_iter=settings.MAX_ITER)
        else:
            c, probe, tried = self._sweep(train, n_classes)
        print(f"Linear probe: C = {c:g}, {len(train[0])} images")
        return {"weight": probe.weight, "bias": probe.bias}, {"c": c, "sweep": tried}

    def _sweep(
        self, train: tuple[Tensor, Tensor], n_classes: int
    ) -> tuple[float, Probe, list[dict[str, float]]]:
        if not self.dm.dataset.val:
            raise ValueError(
                f"{self.cfg.DATASET.NAME} has no validation split to choose C on: "
                "set TRAINER.LINEARPROBE.C, for example 0.316"
            )
        return sweep_c(
            train,
            self.labelled(self.dm.dataset.val, desc="val"),
            n_classes,
            grid=self.settings.GRID,
            steps=self.settings.STEPS,
            max_iter=self.settings.MAX_ITER,
        )

    def use_fit(self) -> None:
        self.require_same_classes()
        self.probe = Probe(self.model.weight, self.model.bias)

    def predict_features(self, features: Tensor) -> Prediction:
        return Prediction(Reading.of_logits(self.probe.logits(features)))
