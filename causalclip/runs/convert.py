"""Convert a checkpoint of a published trainer, CoOp's or ProGrad's for instance, into ours.

    causalclip convert MaPLe ViT-B/16 theirs/model.pth.tar-5 output/converted

writes output/converted/<model name>/model.pth.tar-5, which our trainer of that name loads with
--model-dir output/converted, and prints the settings it needs. No code in the file is run. It is
read in a child process that can write nothing and is ended at --seconds or --gigabytes.
"""

from __future__ import annotations

import argparse
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalclip.errors import prints_errors

if TYPE_CHECKING:
    from causalclip.clip.weights import Limits

# torch is imported by the functions that need it, so that --help is quick.


def parser() -> argparse.ArgumentParser:
    """Four positional arguments."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("trainer", help="who wrote the checkpoint: CoOp, MaPLe, ...")
    p.add_argument("backbone", help="the CLIP it was trained on: ViT-B/16, ..., or a file")
    p.add_argument("checkpoint", help="the published file, model.pth.tar-N")
    p.add_argument(
        "--trust-torchscript",
        action="store_true",
        help="load a TorchScript backbone that OpenAI did not release: it runs as a program",
    )
    p.add_argument(
        "--activation",
        choices=["quick_gelu", "gelu"],
        default="",
        help="what a backbone's file learned with that OpenAI did not release",
    )
    p.add_argument("output_dir", help="where the converted checkpoint goes")
    add = p.add_argument
    add("--seconds", type=float, default=600.0, help="limit of reading (default: 600)")
    add("--gigabytes", type=float, default=16.0, help="limit of its memory (default: 16)")
    return p


def convert_file(
    trainer: str,
    backbone: str,
    checkpoint: str,
    output_dir: str,
    *,
    trust_torchscript: bool = False,
    limits: Limits | None = None,
    activation: str = "",
) -> dict:
    """Write the converted checkpoint; the settings our trainer loads it with.

    Raises:
        ValueError: a file that is no published checkpoint, or one of another method or backbone;
            reading it reached one of the limits.
    """
    import torch

    from causalclip import plugin
    from causalclip.clip.backbone import weights_file
    from causalclip.clip.published import BUILDERS
    from causalclip.clip.weights import Limits, run_limited
    from causalclip.errors import unknown

    # isort: split
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import save_checkpoint

    if trainer not in BUILDERS:
        raise ValueError(unknown("trainer", trainer, sorted(BUILDERS)))
    plugin.register_all()
    weights_file(backbone)  # fetched here if need be: the child can write no file
    read = functools.partial(
        _converted, trainer, backbone, checkpoint, trust_torchscript, activation
    )
    try:
        content = run_limited(read, limits or Limits())
    except ValueError as error:
        raise ValueError(f"reading {checkpoint} and {backbone}: {error}") from error
    found = torch.load(io.BytesIO(content), weights_only=True)
    model_name = TRAINER_REGISTRY.get(trainer).model_name
    save_checkpoint(found["checkpoint"], str(Path(output_dir) / model_name))
    return found["settings"]


def _converted(
    trainer: str, backbone: str, checkpoint: str, trust_torchscript: bool, activation: str
) -> bytes:
    """Return our checkpoint and its settings, as a file of torch."""
    import torch

    from causalclip.clip.backbone import load_clip
    from causalclip.clip.published import convert
    from causalclip.clip.weights import weights_digest
    from causalclip.engine.checkpoint_file import read_checkpoint

    theirs = read_checkpoint(Path(checkpoint))
    clip = load_clip(backbone, trust_torchscript=trust_torchscript, activation=activation)
    module, sizes = convert(trainer, theirs["state_dict"], clip, backbone)
    identity = {"trainer": trainer, "backbone": backbone, "weights": weights_digest(clip)}
    ours: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "epoch": theirs["epoch"],
        "optimizer": None,
        "scheduler": None,
        "val_result": None,
        "identity": identity,
    }
    content = io.BytesIO()
    torch.save({"checkpoint": ours, "settings": sizes}, content)
    return content.getvalue()


@prints_errors("convert", RuntimeError)
def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file; 2 for a mistake in the input, which is printed in one line."""
    args = parser().parse_args(argv)
    from causalclip.clip.weights import Limits

    settings = convert_file(
        args.trainer,
        args.backbone,
        args.checkpoint,
        args.output_dir,
        trust_torchscript=args.trust_torchscript,
        limits=Limits(args.seconds, args.gigabytes),
        activation=args.activation,
    )
    from dassl.engine import TRAINER_REGISTRY

    node = TRAINER_REGISTRY.get(args.trainer).config_node
    options = " ".join(
        f"TRAINER.{node}.{key.upper()} " + (f'"{value}"' if isinstance(value, list) else str(value))
        for key, value in settings.items()
    )
    print(
        f"Evaluate it with: python train.py --trainer {args.trainer} --backbone {args.backbone} "
        f"--eval-only --model-dir {args.output_dir} ... {options}"
    )
    return 0
