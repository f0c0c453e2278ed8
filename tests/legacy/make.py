"""Makes the files of this folder; run in a checkout of version 87e1c13 that is installed there.

    python <here>/make.py FOLDER

trains CoOp on the random CLIP of tests/conftest.py, stopping after one of two epochs, then to the
end. FOLDER is `minidassl`, or `dassl` with PYTHONPATH naming a checkout of Dassl 0.6.3.
"""

# pyright: reportMissingImports=false
# (87e1c13's modules, not today's)

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from causalclip import plugin
from causalclip.backbone import build_clip, save_tiny

OPTIONS = ["DATASET.NAME", "HandwrittenDigits", "DATASET.NUM_SHOTS", 2]
OPTIONS += ["DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.NAME", "CoOp", "SEED", 1]
OPTIONS += ["OPTIM.MAX_EPOCH", 2, "TRAIN.CHECKPOINT_FREQ", 1, "USE_CUDA", False]


def main(folder: Path) -> None:
    """Write checkpoint, few-shot set, and what the old code predicts and learns, into `folder`."""
    plugin.register_all()
    from dassl.config import get_cfg_default
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        clip = build_clip(vision_layers=2, transformer_layers=2, embed_dim=128)
        save_tiny(clip, [], work / "random.safetensors")
        cfg = plugin.extend_cfg(get_cfg_default())
        cfg.merge_from_file("configs/trainers/CoOp/tiny.yaml")
        cfg.merge_from_list(["DATASET.ROOT", str(work / "data"), "OUTPUT_DIR", str(work / "out")])
        cfg.merge_from_list(["MODEL.BACKBONE.NAME", str(work / "random.safetensors"), *OPTIONS])
        torch.use_deterministic_algorithms(True)
        set_random_seed(1)
        trainer = build_trainer(cfg)
        trainer.train()
        keep(work, folder)
        # What the old code had learned after both epochs, and predicted after the first.
        learned = {name: value.numpy() for name, value in trainer.model.state_dict().items()}
        np.savez_compressed(folder / "learned.npz", **learned)
        trainer.load_model(cfg.OUTPUT_DIR, epoch=1)
        trainer.test()
        predictions = np.load(work / "out" / "predictions.npz")
        kept = {key: predictions[key][:50] for key in ("probabilities", "label")}
        np.savez_compressed(folder / "predictions.npz", **kept)


def keep(work: Path, folder: Path) -> None:
    """Copy the checkpoint of epoch 1 and the few-shot set."""
    target = folder / "prompt_learner"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(work / "out" / "prompt_learner" / "model.pth.tar-1", target)
    (target / "checkpoint").write_text("model.pth.tar-1\n")
    (fewshot,) = (work / "data").rglob("causalclip_shot_*.json")
    shutil.copy(fewshot, folder)
    print(f"the few-shot set was {fewshot.relative_to(work)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
