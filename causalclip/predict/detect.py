"""Detect foreign images: measure how well a run's scores separate another data set from its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from causalclip.clip.encode import encode_image_patches
from causalclip.clip.texts import readable
from causalclip.clip.zeroshot import class_features, cosine_logits
from causalclip.data.catalogue import dataset_template
from causalclip.metrics import fpr_at_95, novelty_auroc
from causalclip.predict.trained import read_result
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions

if TYPE_CHECKING:
    from causalclip.predict.pictures import ImageSource
    from causalclip.predict.predictor import Predictor


def detect(
    predictor: Predictor,
    foreign: str | PathLike,
    *,
    root: str | PathLike = "",
    gl_mcm: bool = False,
) -> dict[str, dict[str, float]]:
    """Return how well each score detects foreign images: AUROC and FPR95, in per cent.

    Known images are the images of the run's predictions.npz. Foreign images are the test images of
    another data set, classified into the run's classes.

    Args:
        predictor: the run.
        foreign: a data set, as `data` of `causalclip.train`.
        root: the folder of the registered data sets; empty: $DATA, else data/.
        gl_mcm: add `global_local_mcm`, which encodes all images again.

    Raises:
        UserError: no such data set.
        ValueError: a foreign set without test images or with classes of the run, or a predictor of
            other classes; with `gl_mcm`, a CLIP that is no ViT of OpenAI's classes.
        FileNotFoundError: a run without predictions.npz; with `gl_mcm`, without its images.
    """
    if predictor.classnames != read_result(predictor.folder).classnames:
        raise ValueError("the run's own predictions are of its own classes: load it without others")
    dataset, name = predictor.dataset(foreign, root)
    own = {readable(each).casefold() for each in predictor.classnames}
    if shared := [each for each in dataset.classnames if readable(each).casefold() in own]:
        raise ValueError(
            f"a foreign set must share no class with the run, {name} shares {len(shared)}: "
            f"{', '.join(shared[:5])}"
        )
    if not dataset.test:
        raise ValueError(f"a foreign set must have test images, {name} has none")
    recorded = Predictions.read(predictor.folder / PREDICTIONS_FILE)
    paths = [item.impath for item in dataset.test]
    answers = predictor(paths)
    trainer = predictor.trainer
    scale = trainer.backbone.logit_scale.item() if getattr(trainer, "softmax", True) else None
    known = foreign_scores(
        recorded.probabilities(), recorded.uncertainty(), recorded.arrays.get("energy"), scale=scale
    )
    others = foreign_scores(
        np.stack([a.probabilities for a in answers]),
        [a.uncertainty for a in answers],
        None if answers[0].energy is None else [a.energy for a in answers],
        scale=scale,
    )
    if gl_mcm:
        known["GL-MCM"] = global_local_mcm(predictor, recorded.arrays["path"].tolist())
        others["GL-MCM"] = global_local_mcm(predictor, paths)
    return {
        score: {
            "AUROC": novelty_auroc(known[score], others[score]),
            "FPR95": fpr_at_95(known[score], others[score]),
        }
        for score in others
        if score in known  # a predictions.npz of an earlier version has no energy
    }


def foreign_scores(
    probabilities: Any, uncertainty: Any, energy: Any = None, *, scale: float | None
) -> dict[str, NDArray[np.float64]]:
    """Return scores (N,) by name from class probabilities (N, K), uncertainty and energy (N,).

    A larger score is more foreign.

    - `uncertainty`: the method's own; for CDC, that of the fused opinion.
    - `MSP`: 1 - max p (Hendrycks and Gimpel, ICLR 2017).
    - `MCM`: 1 - max softmax(cosine) (Ming et al., NeurIPS 2022). p must be the softmax of cosines
      times `scale`, so that log p / scale is the cosine plus a constant. Left out without `scale`.
    - `energy`: -log sum_k exp(logit_k) (Liu et al., NeurIPS 2020). Left out without `energy`.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    scores: Mapping[str, Any] = {"uncertainty": uncertainty, "MSP": 1 - p.max(-1)}
    if scale is not None:
        tempered = softmax(np.log(np.maximum(p, np.finfo(np.float32).tiny)) / scale, axis=-1)
        scores = {**scores, "MCM": 1 - tempered.max(-1)}
    if energy is not None:
        scores = {**scores, "energy": energy}
    return {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}


@torch.no_grad()
def global_local_mcm(predictor: Predictor, images: Sequence[ImageSource]) -> NDArray[np.float64]:
    """Return GL-MCM (N,) of images (Miyai et al., IJCV 2025), computed by CLIP without the method.

    The score is minus the largest softmax(cosine) of the image, minus the largest one of its
    patches. The cosines are with the hand-crafted texts of the classes.

    Raises:
        ValueError: a CLIP other than a plain ViT of OpenAI's classes.
        FileNotFoundError: a path that does not exist.
        OSError: an image that cannot be read.
    """
    trainer, scores = predictor.trainer, []
    text = class_features(trainer.clip, predictor.classnames, [dataset_template(trainer.cfg)])

    def largest(features: Tensor) -> Tensor:
        return cosine_logits(features.float(), text.float(), 1.0).softmax(-1).amax(-1)

    for batch in predictor.batches(images):
        patches = encode_image_patches(trainer.clip, batch.to(trainer.device))
        score = largest(trainer.backbone.encode(batch)) + largest(patches).amax(-1)
        scores.append(-score.double().cpu().numpy())
    return np.concatenate(scores)
