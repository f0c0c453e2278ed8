"""A trained run as files for elsewhere: class features, and an image tower that has prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

import causalclip.plugin  # noqa: F401  (before the first import of dassl)

# isort: split
from causalclip.clip.kinds import backbone_of
from causalclip.clip.model import CLIPModel
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.zeroshot import cosine_logits
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.files.atomic import replacing
from causalclip.predict.image_side import FILES, Format, ImageSide, prompts_of, read, write
from causalclip.predict.predictor import Predictor
from causalclip.report.json_types import plain
from causalclip.trainers.clip_icm import CLIP_ICM
from causalclip.trainers.zeroshot_clip import ZeroshotCLIP

FORMAT = "causalclip.classes/1"
CLASSES_FILE = "classes.safetensors"
CHECKED = (2, 5)  # pictures in the batches that are compared
TOLERANCE = 1e-5  # of a probability


@dataclass(frozen=True, eq=False)
class Classes:
    """What a picture's features are compared with."""

    text: Tensor
    """(K, E), or (M, K, E) of M templates; unit rows, inside the subspace if there is one."""
    logit_scale: Tensor
    projection: Tensor | None = None
    """(D, E) from the features to the subspace."""

    def logits(self, features: Tensor) -> Tensor:
        """scale * cosine (B, K), or (B, M, K), of features (B, D) or (B, M, D)."""
        z = features if self.projection is None else features @ self.projection
        if self.text.dim() == 3 and z.dim() == 2:
            z = z.unsqueeze(1).expand(-1, len(self.text), -1)
        return cosine_logits(z, self.text, self.logit_scale)

    def tensors(self) -> dict[str, Tensor]:
        """By name, without what is not there."""
        named = {"text": self.text, "logit_scale": self.logit_scale, "projection": self.projection}
        return {name: t.cpu().contiguous() for name, t in named.items() if t is not None}


@torch.no_grad()
def export(predictor: Predictor, folder: str | Path, *, form: Format = "torch") -> list[Path]:
    """Write `classes.safetensors` and, where the image tower has prompts, `image.pt2`.

    What was written is read again and must answer as the predictor does.

    Args:
        predictor: the trained method.
        folder: where the files go; made if it is not there.
        form: `onnx` writes `image.onnx` in place of it, of every method: who reads ONNX need not
            have a CLIP.

    Raises:
        ImportError: ONNX without its packages.
        ValueError: a method whose answer is no cosine with fixed class features.
        RuntimeError: files that answer otherwise.
    """
    trainer, folder = predictor.trainer, Path(folder)
    classes, prompts = classes_of(trainer), exported_prompts(trainer)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / CLASSES_FILE]
    with replacing(paths[0]) as part:
        save_file(classes.tensors(), part, metadata(predictor))
    if prompts.image or form == "onnx":
        paths.append(folder / FILES[form])
        write(ImageSide.of(trainer.clip, prompts), _pictures(trainer.clip, 2), paths[1])
    check(predictor, paths)
    return paths


def classes_of(trainer: CLIPTrainer) -> Classes:
    """The class features that a method compares pictures with.

    Raises:
        ValueError: there are none that hold for all pictures, or they are not all there is.
    """
    text, projection = None, trainer.projection
    if isinstance(trainer, PromptTrainer):
        text = trainer.evaluation_text()
    elif isinstance(trainer, ZeroshotCLIP):
        text = trainer.text
    elif isinstance(trainer, CLIP_ICM) and answers_by_cosine(trainer.settings):
        text, projection = trainer.text, trainer.fitted.projections["zeroshot"]
    if text is None:
        raise ValueError(
            f"{trainer.cfg.TRAINER.NAME} cannot be exported: it answers by more than the cosine "
            "with class features that are the same for all pictures; causalclip predict and "
            "causalclip.Predictor answer with it"
        )
    text, basis = text.float(), None
    if projection is not None:
        text, basis = projection(text), projection.basis.float()
    return Classes(F.normalize(text, dim=-1), trainer.logit_scale, basis)


def answers_by_cosine(settings: CfgNode) -> bool:
    """Whether CLIP_ICM's settings ask for the cosine in the subspace."""
    return settings.HEAD == "zeroshot" and settings.NORMALIZE_PROJECTED


def exported_prompts(trainer: CLIPTrainer) -> PromptSet:
    """The prompts that the image side has.

    Raises:
        ValueError: a method that learns inside the blocks of the image tower.
    """
    prompts = prompts_of(trainer)
    if prompts.image_additions:
        raise ValueError(
            f"{trainer.cfg.TRAINER.NAME} cannot be exported: it learns inside the blocks of the "
            "image tower; causalclip predict and causalclip.Predictor answer with it"
        )
    return prompts


def metadata(predictor: Predictor) -> dict[str, str]:
    """What must be known to use the tensors, as safetensors' text; lists and numbers are JSON."""
    trainer = predictor.trainer
    inputs = trainer.cfg.INPUT
    image = {
        "size": list(inputs.SIZE),
        "interpolation": inputs.INTERPOLATION,
        "resize": inputs.RESIZE_MODE,
        "mean": list(inputs.PIXEL_MEAN),
        "std": list(inputs.PIXEL_STD),
    }
    return {
        "format": FORMAT,
        "method": trainer.cfg.TRAINER.NAME,
        "backbone": trainer.cfg.MODEL.BACKBONE.NAME,
        "weights": trainer.digest or "",
        "classnames": json.dumps(predictor.classnames),
        "image": json.dumps(image),
        "settings": json.dumps(plain(trainer.settings)),
        "details": json.dumps(trainer.details() if isinstance(trainer, PromptTrainer) else {}),
    }


def _pictures(clip: CLIPModel, count: int) -> Tensor:
    """Noise as pictures (B, 3, R, R) on the model's device, the same every time."""
    size = backbone_of(clip).image_size
    pictures = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))
    return pictures.to(clip.logit_scale.device)


# The check


def check(predictor: Predictor, paths: Sequence[Path]) -> None:
    """Compare what the files answer with the predictor's own answers.

    Args:
        predictor: what was exported.
        paths: its class features, and its image side where that was written.

    Raises:
        RuntimeError: they differ; says by how much.
    """
    classes, *programs = paths
    compared, clip = Classes(**load_file(classes)), predictor.trainer.clip
    side = read(programs[0]) if programs else predictor.inputs
    for count in CHECKED:
        pictures = _pictures(clip, count)
        logits = compared.logits(side(pictures).float().cpu())
        ours = predictor.prediction(pictures).main.probabilities
        apart = (probabilities_of(predictor.trainer, logits) - ours).abs().max().item()
        if not apart < TOLERANCE:
            raise RuntimeError(
                f"{classes.parent}: the exported files answer otherwise, by {apart:.2g}"
            )


def probabilities_of(trainer: CLIPTrainer, logits: Tensor) -> Tensor:
    """Probabilities (B, K) that a method reads from class logits (B, K), or (B, M, K)."""
    if isinstance(trainer, PromptTrainer):
        read: Prediction = trainer.prediction_of(logits.to(trainer.device))
        return read.main.probabilities.float().cpu()
    return Reading.of_logits(logits).probabilities
