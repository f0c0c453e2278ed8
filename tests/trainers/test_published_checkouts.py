"""Trainers of published checkouts, unmodified, on minidassl and beside ours; skipped without them.

    CAUSALCLIP_TCP=/path/to/Textual-based_Class-aware_prompt_tuning \\
        python -m pytest tests/trainers/test_published_checkouts.py

The images are real ones of Caltech101 (caltech101_mini.tar, in the folder CAUSALCLIP_TEST_DATA).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest
import torch

from causalclip.clip.backbone import build_clip
from causalclip.runs import convert, train

ROOT = Path(__file__).parents[2]
TCP = os.environ.get("CAUSALCLIP_TCP", "")
IMAGES = Path(os.environ.get("CAUSALCLIP_TEST_DATA", ROOT / ".." / "shared" / "data"))
ARCHIVE = IMAGES / "caltech101_mini.tar"
CLASSES = ("Faces", "Leopards", "Motorbikes", "accordion", "airplanes", "anchor")
SETTINGS = [
    *("INPUT.SIZE", "(32, 32)", "DATASET.NUM_SHOTS", "4", "OPTIM.MAX_EPOCH", "2"),
    *("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"),
]
PUBLISHED = [
    *("TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.PREC", "fp32", "TRAINER.COCOOP.PREC", "fp32"),
    *("DATALOADER.TEST.BATCH_SIZE", "50"),
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TCP, reason="set CAUSALCLIP_TCP to a checkout of TCP to run this"),
    pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"no {ARCHIVE}"),
]

# The process around their train.py: a CPU that stays in fp32, and a CLIP that is not downloaded.
AROUND = """
    import runpy, sys
    import torch
    checkout, weights, *arguments = sys.argv[1:]
    for kind in (torch.Tensor, torch.nn.Module):
        kind.half = kind.cuda = lambda self, *args, **options: self
    sys.path.insert(0, checkout)
    from trainers.clip_text import clip
    clip._MODELS["small"], clip._download = weights, lambda url: url
    sys.argv = ["train.py", *arguments]
    runpy.run_path(checkout + "/train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> str:
    """A CLIP with what TCP's code has as constants: a text tower of width 512, a ninth block."""
    text = {"transformer_width": 512, "transformer_heads": 8, "transformer_layers": 9}
    model = build_clip(embed_dim=32, vision_layers=1, **text)
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save(model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """Six classes of Caltech101."""
    root = tmp_path_factory.mktemp("data")
    with tarfile.open(ARCHIVE) as archive:
        mine = [m for m in archive.getmembers() if Path(m.name).parent.name in CLASSES]
        archive.extractall(root, members=mine, filter="data")
    return str(root)


def theirs(weights: str, data: str, output: Path, *arguments: str) -> int:
    """Run their train.py; how many test images it got right."""
    checkout = Path(TCP)
    configs = checkout / "configs"
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", textwrap.dedent(AROUND)),
            *(str(checkout), weights, "--root", data, "--seed", "1", "--trainer", "TCP"),
            *("--dataset-config-file", str(configs / "datasets" / "caltech101.yaml")),
            *("--config-file", str(configs / "trainers" / "TCP" / "vit_b16_ep100_ctxv1.yaml")),
            *("--backbone", "small", "--output-dir", str(output), *arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "minidassl")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return int(re.findall(r"\* correct: ([\d,]+)", done.stdout)[-1].replace(",", ""))


def ours(weights: str, data: str, output: Path, *arguments: str) -> int:
    """Run our train.py; how many test images it got right."""
    status = train.main(
        [
            *("--root", data, "--seed", "1", "--trainer", "TCP", "--backbone", weights),
            *("--dataset-config-file", str(ROOT / "configs" / "datasets" / "caltech101.yaml")),
            *("--config-file", str(ROOT / "configs" / "trainers" / "TCP" / "vit_b16_ep50.yaml")),
            *("--output-dir", str(output), *arguments, "USE_CUDA", "False"),
        ]
    )
    assert status == 0
    metrics = json.loads((output / "results.json").read_text())["metrics"]
    return round(metrics["accuracy"] * metrics["n"] / 100)


def test_tcp_trains_and_evaluates_unmodified_and_ours_reads_what_it_learned(
    weights_file, data, tmp_path
):
    base, new = (["DATASET.SUBSAMPLE_CLASSES", half] for half in ("base", "new"))
    learned, converted = tmp_path / "theirs", tmp_path / "converted"
    tested = ["--eval-only", "--load-epoch", "2", "--model-dir"]
    on_base = theirs(weights_file, data, learned, *SETTINGS, *PUBLISHED, *base)
    on_new = theirs(
        weights_file, data, tmp_path / "new", *tested, str(learned), *SETTINGS, *PUBLISHED, *new
    )
    file = learned / "prompt_learner" / "model.pth.tar-2"
    assert convert.main(["TCP", weights_file, str(file), str(converted)]) == 0
    for half, right in ((base, on_base), (new, on_new)):
        output = tmp_path / f"ours_{half[1]}"
        assert right == ours(weights_file, data, output, *tested, str(converted), *SETTINGS, *half)
    trained = tmp_path / "trained"
    assert ours(weights_file, data, trained, *SETTINGS, *base) > 0
    assert (trained / "prompt_learner" / "model.pth.tar-2").is_file()
