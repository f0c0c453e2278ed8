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
from typing import Any

from causalclip.errors import prints_errors, unknown

# torch is imported by the functions that need it, so that --help is quick.


def parser() -> argparse.ArgumentParser:
    """Return the parser: four positional arguments, and options."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("trainer", help="who wrote the checkpoint: CoOp, MaPLe, ...")
    add("backbone", help="the CLIP it was trained on: ViT-B/16, ..., or a file")
    add("checkpoint", help="the published file, model.pth.tar-N")
    add(
        "--trust-torchscript",
        action="store_true",
        help="load a TorchScript backbone that OpenAI did not release: it runs as a program",
    )
    add(
        "--activation",
        choices=["quick_gelu", "gelu"],
        default="",
        help="activation that a backbone's file was trained with, if OpenAI did not release it",
    )
    add("output_dir", help="where the converted checkpoint goes")
    add("--seconds", type=float, default=600.0, help="limit of reading (default: 600)")
    add("--gigabytes", type=float, default=16.0, help="limit of its memory (default: 16)")
    return p


@prints_errors("convert", RuntimeError)
def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file; return 2 for invalid input, with a message of one line."""
    args = parser().parse_args(argv)
    import torch

    from causalclip import plugin
    from causalclip.clip.backbone import weights_file
    from causalclip.clip.published import BUILDERS
    from causalclip.clip.weights import Limits, run_limited

    # isort: split
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import save_checkpoint

    if args.trainer not in BUILDERS:
        raise ValueError(unknown("trainer", args.trainer, sorted(BUILDERS)))
    plugin.register_all()
    weights_file(args.backbone)  # download it if needed: the child process cannot
    limits = Limits(args.seconds, args.gigabytes)
    try:
        content = run_limited(functools.partial(_converted, args), limits)
    except ValueError as error:
        raise ValueError(f"reading {args.checkpoint} and {args.backbone}: {error}") from error
    found = torch.load(io.BytesIO(content), weights_only=True)
    kind = TRAINER_REGISTRY.get(args.trainer)
    save_checkpoint(found["checkpoint"], str(Path(args.output_dir) / kind.model_name))
    options = " ".join(
        f"TRAINER.{kind.config_node}.{key.upper()} "
        + (f'"{value}"' if isinstance(value, list) else str(value))
        for key, value in found["settings"].items()
    )
    print(
        f"Evaluate it with: python train.py --trainer {args.trainer} --backbone {args.backbone} "
        f"--eval-only --model-dir {args.output_dir} ... {options}"
    )
    return 0


def _converted(args: argparse.Namespace) -> bytes:
    """Return the bytes of a torch file with our checkpoint and the settings it needs.

    Raises:
        ValueError: a file that is no published checkpoint, or one of another method or backbone.
    """
    import torch

    from causalclip.clip.backbone import load_clip
    from causalclip.clip.published import convert
    from causalclip.clip.weights import weights_digest
    from causalclip.engine.checkpoint_file import read_checkpoint

    theirs = read_checkpoint(Path(args.checkpoint))
    how = {"trust_torchscript": args.trust_torchscript, "activation": args.activation}
    clip = load_clip(args.backbone, **how)
    module, sizes = convert(args.trainer, theirs["state_dict"], clip, args.backbone)
    digest = weights_digest(clip)
    ours: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "epoch": theirs["epoch"],
        "optimizer": None,
        "scheduler": None,
        "val_result": None,
        "identity": {"trainer": args.trainer, "backbone": args.backbone, "weights": digest},
    }
    content = io.BytesIO()
    torch.save({"checkpoint": ours, "settings": sizes}, content)
    return content.getvalue()
