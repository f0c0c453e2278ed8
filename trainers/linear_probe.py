"""LinearProbe: logistic regression on CLIP's image features (CLIP, arXiv 2103.00020).

C by a sweep on the validation split, as in CoOp's lpclip.
"""

from __future__ import annotations

from torch import Tensor

from causalclip.engine.features import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.settings import ListOf, Maybe, Number, Whole
from causalclip.icm.probe import LPCLIP_GRID, LPCLIP_STEPS, FittedProbe, fit_probe, sweep_c

C = Number(0, open_low=True)


class LinearProbe(FeatureTrainer[FittedProbe]):
    """A linear classifier on the features before CLIP's own; it knows no other classes."""

    config_node = "LINEARPROBE"
    knows_other_classes = False
    fit_class = FittedProbe
    defaults = {
        "C": None,  # inverse strength of the L2 penalty; None: by the sweep
        "GRID": list(LPCLIP_GRID),
        "STEPS": LPCLIP_STEPS,  # of the binary search after the grid
        "MAX_ITER": 1000,
        "PREC": "fp32",
    }
    constraints = {
        "C": Maybe(C),
        "GRID": ListOf(C),
        "STEPS": Whole(0, 100),
        "MAX_ITER": Whole(1, 1_000_000),
    }

    def encode_ahead(self) -> None:
        """As in CLIPTrainer; training images too, and the validation split where C is chosen."""
        super().encode_ahead()
        self.features(self.dm.dataset.train_x, desc="train")
        if self.settings.C is None and self.dm.dataset.val:
            self.features(self.dm.dataset.val, desc="val")

    def fit(self) -> FittedProbe:
        """The probe of the given C, or of the best on the validation split.

        Raises:
            ValueError: no validation split to choose C on, or images of one class only.
        """
        train = self.labelled(self.dm.dataset.train_x, desc="train")
        found = self._given(train) if self.settings.C is not None else self._swept(train)
        print(f"Linear probe: C = {found.c:g}, {len(train[0])} images")
        return found

    def _given(self, train: tuple[Tensor, Tensor]) -> FittedProbe:
        c, max_iter = self.settings.C, self.settings.MAX_ITER
        return FittedProbe(fit_probe(*train, len(self.classnames), c=c, max_iter=max_iter), c)

    def _swept(self, train: tuple[Tensor, Tensor]) -> FittedProbe:
        if not self.dm.dataset.val:
            raise ValueError(
                f"{self.cfg.DATASET.NAME} has no validation split to choose C on: "
                "set TRAINER.LINEARPROBE.C, for example 0.316"
            )
        return sweep_c(
            train,
            self.labelled(self.dm.dataset.val, desc="val"),
            len(self.classnames),
            grid=self.settings.GRID,
            steps=self.settings.STEPS,
            max_iter=self.settings.MAX_ITER,
        )

    def check_fit(self) -> None:
        """A probe has no text to tell other classes by.

        Raises:
            ValueError: other classes than those of the fit.
        """
        self.require_same_classes()

    def predict_features(self, features: Tensor) -> Prediction:
        """The probe's reading of image features (B, D)."""
        return Prediction(Reading.of_logits(self.fitted.probe.logits(features)))
