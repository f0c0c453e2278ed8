"""Export a trained run for use without causalclip: class features, and the image tower."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.encode import encode_image
from causalclip.clip.image_tower import encode_patches, project, read_tokens
from causalclip.clip.interface import backbone_of, openai_model
from causalclip.clip.low_rank import merged_state
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompt_set import IMAGE_PROJECTION, PromptSet
from causalclip.clip.zeroshot import cosine_logits
from causalclip.errors import UserError
from causalclip.files.atomic import replacing
from causalclip.predict.predictor import Predictor
from causalclip.predict.trained import prompts_of
from causalclip.records.json_types import plain

# isort: split
from causalclip.engine.prediction import Reading
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.trainers.clip_icm import CLIP_ICM
from causalclip.trainers.zeroshot_clip import ZeroshotCLIP

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer

ProgramFormat = Literal["torch", "onnx"]
PROGRAM_FILES: dict[ProgramFormat, str] = {"torch": "image.pt2", "onnx": "image.onnx"}
CLASSES_FILE = "classes.safetensors"
MERGED_FILE = "clip.pt"
CLASSES_FORMAT = "causalclip.classes/1"
CHECKED_BATCHES = (2, 5)  # batch sizes on which the files are compared with the run
TOLERANCE = 1e-5  # largest difference of a probability
REFUSED = "{} cannot be exported: it {}; causalclip predict and causalclip.Predictor answer with it"


@torch.no_grad()
def export(
    predictor: Predictor, folder: str | Path, *, form: ProgramFormat = "torch"
) -> list[Path]:
    """Write `classes.safetensors` and, if the image tower has prompts, `image.pt2`.

    For a method that changes weights of CLIP, write `clip.pt` instead of `image.pt2`: the state
    dict of a whole CLIP with the changes merged, which openai/CLIP and open_clip load. The files
    are read again and must give the predictor's probabilities.

    Args:
        predictor: the trained method.
        folder: folder of the files; created if it is missing.
        form: `onnx` writes `image.onnx` instead, for every method, so that its users need no CLIP.

    Raises:
        UserError: ONNX without its packages.
        ValueError: a method whose answer is no cosine with fixed class features.
        RuntimeError: files that give other probabilities.
    """
    trainer, folder = predictor.trainer, Path(folder)
    classes, prompts = class_features_of(trainer), exported_prompts(trainer)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / CLASSES_FILE]
    with replacing(paths[0]) as part:
        tensors = {name: t.cpu().contiguous() for name, t in vars(classes).items() if t is not None}
        save_file(tensors, part, _metadata(predictor))
    clip = trainer.clip
    if prompts.weights and IMAGE_PROJECTION not in prompts.weights:
        paths.append(folder / MERGED_FILE)
        with replacing(paths[-1]) as part:
            torch.save(merged_state(clip, prompts), part)
        clip = _with_state(clip, paths[-1])
    if prompts.image or form == "onnx":
        paths.append(folder / PROGRAM_FILES[form])
        _write_program(ImageTower(clip, prompts), _noise(clip, 2), paths[-1])
    _check(predictor, paths)
    return paths


# Class features


@dataclass(frozen=True, eq=False)
class ClassFeatures:
    """The tensors of `classes.safetensors`."""

    text: Tensor
    """(K, E), or (M, K, E) for M templates; unit rows, projected if there is a `projection`."""
    logit_scale: Tensor
    projection: Tensor | None = None
    """Matrix (D, E) that projects image features to the subspace."""

    def logits(self, features: Tensor) -> Tensor:
        """Return scale * cosine (B, K), or (B, M, K), of features (B, D) or (B, M, D)."""
        z = features if self.projection is None else features @ self.projection
        if self.text.dim() == 3 and z.dim() == 2:
            z = z.unsqueeze(1).expand(-1, len(self.text), -1)
        return cosine_logits(z, self.text, self.logit_scale)


def class_features_of(trainer: CLIPTrainer) -> ClassFeatures:
    """Return the class features that a method compares images with.

    Raises:
        ValueError: its answer is more than a cosine with features that all images share.
    """
    text, projection = None, trainer.backbone.projection
    if isinstance(trainer, PromptTrainer):
        text = trainer.evaluation_text() if trainer.plain_cosine else None
    elif isinstance(trainer, ZeroshotCLIP):
        text = trainer.text
    elif isinstance(trainer, CLIP_ICM):
        settings = trainer.settings
        one_subspace = "new_classes" not in trainer.fitted.projections or not trainer.is_new.any()
        if settings.HEAD == "zeroshot" and settings.NORMALIZE_PROJECTED and one_subspace:
            text, projection = trainer.text, trainer.fitted.projections["zeroshot"]
    if text is None:
        reason = "answers by more than the cosine with class features that all images share"
        raise ValueError(REFUSED.format(trainer.cfg.TRAINER.NAME, reason))
    text, basis = text.float(), None
    if projection is not None:
        text, basis = projection(text), projection.basis.float()
    return ClassFeatures(F.normalize(text, dim=-1), trainer.backbone.logit_scale, basis)


def _metadata(predictor: Predictor) -> dict[str, str]:
    """Return the metadata of the tensors; safetensors allows strings only, so the rest is JSON."""
    trainer, inputs = predictor.trainer, predictor.trainer.cfg.INPUT
    image = {
        "size": inputs.SIZE,
        "interpolation": inputs.INTERPOLATION,
        "resize": inputs.RESIZE_MODE,
        "mean": inputs.PIXEL_MEAN,
        "std": inputs.PIXEL_STD,
    }
    return {
        "format": CLASSES_FORMAT,
        "method": trainer.cfg.TRAINER.NAME,
        "backbone": trainer.cfg.MODEL.BACKBONE.NAME,
        "weights": trainer.backbone.digest or "",
        "classnames": json.dumps(predictor.classnames),
        "image": json.dumps(image),
        "settings": json.dumps(plain(trainer.settings)),
        "details": json.dumps(trainer.details() if isinstance(trainer, PromptTrainer) else {}),
    }


# The image tower


class ImageTower(nn.Module):
    """CLIP's image tower with learned prompts, as a separate module."""

    visual: Any

    def __init__(self, clip: CLIPModel, prompts: PromptSet) -> None:
        """Store a model's tower, and image prompts (n, D) or (M, n, D) per depth, if any.

        If `prompts` changes the image projection, store the M changed projections too.

        Raises:
            ValueError: a CLIP that is not of OpenAI's classes.
        """
        super().__init__()
        self.visual = openai_model(clip, "an exported image tower").visual
        self.prompts = nn.ParameterList(depth.detach().clone() for depth in prompts.image)
        self.projections = None  # (M, D, E)
        if (change := prompts.weights.get(IMAGE_PROJECTION)) is not None:
            start = self.visual.proj.detach()
            self.projections = nn.Parameter(start + change.detach().to(start))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, E) in fp32 of images (B, 3, R, R); (B, M, E) for M sets of prompts.

        B is dynamic in the exported program.
        """
        images, prompts = images.type(self.visual.conv1.weight.dtype), list(self.prompts)
        if not prompts:
            return self.visual(images).float()
        if prompts[0].dim() == 2:
            return encode_patches(self.visual, images, prompts).float()
        batch, sets = images.shape[0], prompts[0].shape[0]
        images = images.unsqueeze(1).expand(-1, sets, -1, -1, -1).flatten(0, 1)
        tiled = [prompt.expand(batch, *prompt.shape).flatten(0, 1) for prompt in prompts]
        tokens = read_tokens(self.visual, images, tiled)
        if self.projections is None:
            return project(self.visual, tokens).float().unflatten(0, (batch, sets))
        tokens = tokens[:, 0].unflatten(0, (batch, sets))
        return torch.einsum("bmd,mde->bme", tokens, self.projections).float()


def exported_prompts(trainer: CLIPTrainer) -> PromptSet:
    """Return the prompts of the exported image tower.

    Raises:
        ValueError: a method that learns inside the blocks of the image tower.
    """
    prompts = prompts_of(trainer)
    if prompts.image_additions:
        reason = "learns inside the blocks of the image tower"
        raise ValueError(REFUSED.format(trainer.cfg.TRAINER.NAME, reason))
    return prompts


def _with_state(clip: CLIPModel, path: Path) -> CLIPModel:
    """Return a copy of a CLIP with the weights of a file."""
    merged = copy.deepcopy(clip)
    merged.load_state_dict(torch.load(path, weights_only=True))
    return merged


def _write_program(tower: ImageTower, example: Tensor, path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    if path.suffix == ".onnx":
        program = _onnx_program(tower, example, shapes)
        with replacing(path) as part:
            program.save(part, external_data=False)
        return
    program = torch.export.export(tower, (example,), dynamic_shapes=shapes)
    with replacing(path) as part, open(part, "wb") as file:
        torch.export.save(program, file)


def _onnx_program(tower: ImageTower, example: Tensor, shapes: tuple) -> torch.onnx.ONNXProgram:
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:  # torch's own message does not state what to install
        message = "ONNX needs two packages more: pip install 'causalclip[onnx]'"
        raise UserError(message) from error
    program = torch.onnx.export(
        tower,
        (example,),
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["images"],
        output_names=["features"],
        verbose=False,
    )
    assert program is not None, "dynamo=True returns a program"
    return program


def _read_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Read an exported program as a function from images (B, 3, R, R) to features."""
    if path.suffix != ".onnx":
        return torch.export.load(path).module()
    from onnx.reference import ReferenceEvaluator  # pyright: ignore[reportMissingImports]

    program = ReferenceEvaluator(str(path))

    def features(images: Tensor) -> Tensor:
        (array,) = cast(list[NDArray], program.run(None, {"images": images.cpu().numpy()}))
        return torch.from_numpy(array)

    return features


# Comparison with the run


def _check(predictor: Predictor, paths: Sequence[Path]) -> None:
    path, *others = paths
    trainer, classes = predictor.trainer, ClassFeatures(**load_file(path))
    encode = predictor.inputs
    if others and others[-1].name == MERGED_FILE:
        encode = partial(encode_image, _with_state(trainer.clip, others[-1]))
    elif others:
        encode = _read_program(others[-1])
    for count in CHECKED_BATCHES:
        images = _noise(trainer.clip, count)
        logits = classes.logits(encode(images).float().cpu())
        expected = predictor.prediction(images).main.probabilities
        error = (_probabilities(trainer, logits) - expected).abs().max().item()
        if not error < TOLERANCE:
            raise RuntimeError(
                f"{path.parent}: the exported files answer otherwise, by {error:.2g}"
            )


def _noise(clip: CLIPModel, count: int) -> Tensor:
    """Return noise as images (B, 3, R, R) on the model's device, the same every time."""
    size = backbone_of(clip).image_size
    images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))
    return images.to(clip.logit_scale.device)


def _probabilities(trainer: CLIPTrainer, logits: Tensor) -> Tensor:
    """Return the probabilities (B, K) of a method for class logits (B, K), or (B, M, K)."""
    if isinstance(trainer, PromptTrainer):
        return trainer.prediction_of(logits.to(trainer.device)).main.probabilities.float().cpu()
    return Reading.of_logits(logits).probabilities
