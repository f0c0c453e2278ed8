"""The image tower of a trained run as a program of its own: torch.export's, or ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalclip.clip.image_tower import encode_patches
from causalclip.clip.kinds import openai_model
from causalclip.clip.model import CLIPModel
from causalclip.clip.plain import has_plain_image_tower
from causalclip.clip.prompt_set import PromptSet
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.files.atomic import replacing

Format = Literal["torch", "onnx"]
FILES: dict[Format, str] = {"torch": "image.pt2", "onnx": "image.onnx"}
NEEDED = "ONNX needs two packages more: pip install 'causalclip[onnx]'"


class ImageSide(nn.Module):
    """CLIP's image tower with learned prompts: images (B, 3, R, R) to features (B, E) in fp32.

    (B, M, E) for prompts of M templates. The text tower is no part of it.
    """

    visual: Any

    def __init__(self, visual: nn.Module, prompts: Sequence[Tensor]) -> None:
        """Take the tower and prompts (n, D) or (M, n, D), one tensor a depth; or none."""
        super().__init__()
        self.visual = visual
        self.depth = len(prompts)
        for i, prompt in enumerate(prompts):
            self.register_buffer(f"prompt_{i}", prompt.detach().clone())

    @classmethod
    def of(cls, clip: CLIPModel, prompts: PromptSet) -> ImageSide:
        """The image side of a model.

        Raises:
            ValueError: prompts in a tower that is not OpenAI's.
        """
        if prompts.image and not has_plain_image_tower(clip):
            raise ValueError("only OpenAI's image tower can be exported with prompts")
        return cls(openai_model(clip, "an exported image tower").visual, prompts.image).eval()

    def forward(self, images: Tensor) -> Tensor:
        """The features of a batch of any size."""
        prompts = [self.get_buffer(f"prompt_{i}") for i in range(self.depth)]
        images = images.type(self.visual.conv1.weight.dtype)
        if not prompts:
            return self.visual(images).float()
        if prompts[0].dim() == 2:
            return encode_patches(self.visual, images, prompts).float()
        batch, sets = images.shape[0], prompts[0].shape[0]
        images = images.unsqueeze(1).expand(-1, sets, -1, -1, -1).flatten(0, 1)
        tiled = [prompt.expand(batch, *prompt.shape).flatten(0, 1) for prompt in prompts]
        return encode_patches(self.visual, images, tiled).float().unflatten(0, (batch, sets))


def prompts_of(trainer: CLIPTrainer) -> PromptSet:
    """The learned prompts; none of a method that learns nothing in the image tower."""
    if trainer.image_tower_untouched or not isinstance(trainer, PromptTrainer):
        return PromptSet()
    return trainer.model()


def write(side: ImageSide, example: Tensor, path: Path) -> None:
    """Write the program, in the format that the file's name ends in; for batches of any size.

    Args:
        side: what is traced.
        example: two pictures (2, 3, R, R).
        path: where to; whole or not at all.

    Raises:
        ImportError: ONNX without its packages.
    """
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    if path.suffix == ".onnx":
        program = _onnx(side, example, shapes)
        with replacing(path) as part:
            program.save(part, external_data=False)
        return
    program = torch.export.export(side, (example,), dynamic_shapes=shapes)
    with replacing(path) as part, open(part, "wb") as file:
        torch.export.save(program, file)


def _onnx(side: ImageSide, example: Tensor, shapes: tuple) -> torch.onnx.ONNXProgram:
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:  # torch's own message does not say what to install
        raise ImportError(NEEDED) from error
    program = torch.onnx.export(
        side,
        (example,),
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["images"],
        output_names=["features"],
        verbose=False,
    )
    assert program is not None, "dynamo=True gives a program"
    return program


def read(path: Path) -> Callable[[Tensor], Tensor]:
    """The program of a file, from images (B, 3, R, R) to features; ONNX by its own reference."""
    if path.suffix != ".onnx":
        return torch.export.load(path).module()
    from onnx.reference import ReferenceEvaluator  # pyright: ignore[reportMissingImports]

    program = ReferenceEvaluator(str(path))

    def features(images: Tensor) -> Tensor:
        (found,) = cast(list[NDArray], program.run(None, {"images": images.cpu().numpy()}))
        return torch.from_numpy(found)

    return features
