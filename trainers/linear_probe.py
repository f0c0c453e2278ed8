"""LinearProbe: logistic regression on CLIP's image features (CLIP, arXiv 2103.00020).

C is chosen by a sweep on the validation split, as in CoOp's lpclip.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from yacs.config import CfgNode

from causalclip.engine.feature_cache import ImageSet
from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.icm.fitted import LPCLIP_GRID, LPCLIP_STEPS, FittedProbe, fit_probe, sweep_c
from causalclip.settings.constraints import integer, list_of, number, or_none
from causalclip.settings.table import PREC, Setting

C = number(0, open_low=True)


class LinearProbe(FeatureTrainer[FittedProbe]):
    """A linear classifier of CLIP's image features; it cannot classify other classes."""

    config_node = "LINEARPROBE"
    fit_class = FittedProbe
    settings_table = {
        "C": Setting(None, or_none(C), "Inverse strength of the L2 penalty; None: by a sweep."),
        "GRID": Setting(list(LPCLIP_GRID), list_of(C), "Values of C that the sweep starts with."),
        "STEPS": Setting(LPCLIP_STEPS, integer(0, 100), "Steps of the binary search after GRID."),
        "MAX_ITER": Setting(1000, integer(1, 1_000_000), "Maximum iterations of the solver."),
        "PREC": PREC,
    }

    @classmethod
    def knows_other_classes(cls, settings: CfgNode) -> bool:
        """Return False: the probe has weights for its own classes only."""
        return False

    def image_sets(self) -> Iterator[ImageSet]:
        """Also yield the training images."""
        yield from super().image_sets()
        yield ImageSet.of(self.dm.dataset.train_x)

    @property
    def searches(self) -> bool:
        """Whether C is chosen on the validation split."""
        return self.settings.C is None

    def fit(self) -> FittedProbe:
        """Return the probe with the given C, or with the best C on the validation split.

        Raises:
            ValueError: no validation split to choose C on, or images of one class only.
        """
        settings, dataset, n_classes = self.settings, self.dm.dataset, len(self.classnames)
        train = self.encoder.labelled(dataset.train_x, desc="train")
        if (c := settings.C) is not None:
            probe = fit_probe(*train, n_classes, c=c, max_iter=settings.MAX_ITER)
            found = FittedProbe(probe, c)
        elif dataset.val:
            val = self.encoder.labelled(dataset.val, desc="val")
            grid, steps, max_iter = settings.GRID, settings.STEPS, settings.MAX_ITER
            found = sweep_c(train, val, n_classes, grid=grid, steps=steps, max_iter=max_iter)
        else:
            raise ValueError(
                f"{self.cfg.DATASET.NAME} has no validation split to choose C on: "
                "set TRAINER.LINEARPROBE.C, for example 0.316"
            )
        print(f"Linear probe: C = {found.c:g}, {len(train[0])} images")
        return found

    def build_method(self) -> None:
        """Do nothing: the probe uses no text."""

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the probe's reading of image features (B, D)."""
        return Prediction(Reading.of_logits(self.fitted.probe.logits(features)))
