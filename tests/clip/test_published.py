"""Checkpoints in the published naming load into ours and give the published logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden import weights
from golden.cases import (
    MANIFEST,
    TRAINERS,
    assert_close,
    build,
    golden_file,
    logits_of,
)
from torch import nn

from causalclip.clip.backbone import load_clip
from causalclip.clip.published import convert, our_name
from causalclip.runs import convert as convert_checkpoint

SMALL = [
    (method, case)
    for method, spec in MANIFEST["methods"].items()
    for case in spec["cases"]
    if case.startswith("small/")
]


def published_state(method: str, case: str, clip) -> dict[str, torch.Tensor]:
    """The state dict that the published trainer saved at its golden start, key by key."""
    frozen = clip.state_dict()
    golden = golden_file(method)
    keys = [str(key).split(" ") for key in golden[f"{case}/published_keys"]]
    config = MANIFEST["methods"][method]["cases"][case]["config"]
    state = {}
    for name, sizes in (key if len(key) == 2 else (*key, "") for key in keys):
        shape = tuple(int(n) for n in sizes.split("x") if n)
        inner = name.removeprefix("prompt_learner.")
        if our_name(name) == "ctx" and config.get("CTX_INIT"):
            state[name] = torch.from_numpy(golden[f"{case}/start/prompt_learner.ctx"])
        elif our_name(name):
            full = name if "." in name and "meta_net" not in name else f"prompt_learner.{inner}"
            state[name] = weights.learnable(full, shape)
        elif inner in ("token_prefix", "token_embedding"):
            state[name] = frozen["token_embedding.weight"][49406].expand(shape).clone()
        else:
            state[name] = frozen_tensor(inner, shape, frozen)
        assert tuple(state[name].shape) == shape, name
    return state


def frozen_tensor(name: str, shape: tuple[int, ...], frozen: dict) -> torch.Tensor:
    """A frozen tensor under its published name; zeros for what no trainer reads back."""
    name = name.removeprefix("ZS_").removeprefix("text_encoder.")
    return frozen.get(name.replace("image_encoder.", "visual."), torch.zeros(shape)).clone()


def write_published(folder: Path, state: dict, epoch: int = 5) -> Path:
    """A file as Dassl writes it: SGD's state dict, and the scheduler that follows the warm-up."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    content = {
        "state_dict": state,
        "epoch": epoch,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"successor": after, "warmup_epoch": 1, "last_epoch": 4},
        "val_result": None,
    }
    torch.save(content, folder / f"model.pth.tar-{epoch}")
    return folder / f"model.pth.tar-{epoch}"


@pytest.mark.parametrize(("method", "case"), SMALL)
def test_a_published_checkpoint_gives_the_published_logits(method, case, clip_files, tmp_path):
    name, path = MANIFEST["methods"][method]["trainer"], clip_files["small"]
    file = write_published(tmp_path, published_state(method, case, load_clip(path)))
    assert convert_checkpoint.main([name, path, str(file), str(tmp_path / "ours")]) == 0
    trainer = build(method, case, clip_files)
    for parameter in trainer.model.parameters():
        nn.init.normal_(parameter)  # so that only what is loaded can be right
    trainer.load_model(str(tmp_path / "ours"), epoch=5)
    golden = golden_file(method)
    # A checkpoint does not say its classes: MMRL reads them as new ones.
    expected = golden.get(f"{case}/logits_new", golden[f"{case}/logits"])
    assert_close(logits_of(trainer), expected, 1e-5, "logits")


@pytest.mark.parametrize(
    ("method", "case", "expected"),
    [
        ("coop", "small/end-csc", "TRAINER.COOP.N_CTX 3 TRAINER.COOP.CSC True"),
        ("maple", "small/words", "TRAINER.MAPLE.N_CTX 2 TRAINER.MAPLE.PROMPT_DEPTH 2"),
        (
            "ivlp",
            "small/deep",
            (
                "TRAINER.IVLP.N_CTX_VISION 3 TRAINER.IVLP.PROMPT_DEPTH_VISION 3 "
                "TRAINER.IVLP.N_CTX_TEXT 2 TRAINER.IVLP.PROMPT_DEPTH_TEXT 2"
            ),
        ),
    ],
)
def test_the_settings_to_load_it_with_are_read_from_it(
    method, case, expected, clip_files, tmp_path, capsys
):
    name, path = MANIFEST["methods"][method]["trainer"], clip_files["small"]
    file = write_published(tmp_path, published_state(method, case, load_clip(path)))
    convert_checkpoint.main([name, path, str(file), str(tmp_path / "ours")])
    assert expected in capsys.readouterr().out


def test_half_precision_checkpoints_become_fp32(clip_files):
    clip = load_clip(clip_files["small"])
    state = published_state("maple", "small/words", clip)
    module = convert("MaPLe", {k: v.half() for k, v in state.items()}, clip, "small")
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    np.testing.assert_array_equal(
        module.ctx.detach().numpy(), state["prompt_learner.ctx"].half().float().numpy()
    )


@pytest.mark.parametrize("method", ["maple", "vpt", "ivlp", "promptsrc", "mmrl"])
def test_a_whole_model_of_another_size_is_refused(method, clip_files):
    case = next(case for m, case in SMALL if m == method)
    state = published_state(method, case, load_clip(clip_files["small"]))
    name = MANIFEST["methods"][method]["trainer"]
    with pytest.raises(ValueError, match=r"another backbone: image_encoder.*tiny has \(128,\)"):
        convert(name, state, load_clip(clip_files["tiny"]), "tiny")


@pytest.mark.parametrize("method", ["coop", "cocoop", "kgcoop", "prograd", "tcp", "mma"])
def test_a_prompt_learner_of_another_clip_of_the_same_size_is_refused(method, clip_files):
    clip = load_clip(clip_files["small"])
    case = next(case for m, case in SMALL if m == method)
    state = published_state(method, case, clip)
    start = "token_embedding" if method == "mma" else "token_prefix"
    state[start] = state[start].flip(-1)
    with pytest.raises(ValueError, match=f"another backbone: {start} has other numbers"):
        convert(MANIFEST["methods"][method]["trainer"], state, clip, "small")


@pytest.mark.parametrize(("method", "other"), [("coop", "MaPLe"), ("maple", "CoOp")])
def test_a_checkpoint_of_another_method_is_refused(method, other, clip_files):
    clip = load_clip(clip_files["small"])
    case = next(case for m, case in SMALL if m == method)
    with pytest.raises(ValueError, match=f"not a published {other} checkpoint"):
        convert(other, published_state(method, case, clip), clip, "small")


def test_unpaired_prompt_depths_are_refused(clip_files):
    clip = load_clip(clip_files["small"])
    state = published_state("maple", "small/random", clip)
    del state["prompt_learner.compound_prompt_projections.1.weight"]
    with pytest.raises(ValueError, match=r"Missing key.*compound_prompt_projections\.1\.weight"):
        convert("MaPLe", state, clip, "small")


def test_the_script_says_one_line_and_2_for_a_file_that_is_no_checkpoint(
    clip_files, tmp_path, capsys
):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "model.pth.tar-5")
    file, out = str(tmp_path / "model.pth.tar-5"), str(tmp_path / "ours")
    assert convert_checkpoint.main(["MaPLe", clip_files["small"], file, out]) == 2
    assert "lacks state_dict or epoch" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


class Hostile(nn.Module):
    """A program whose weights are read by running it: it never ends, or takes 16 GB."""

    def __init__(self, greed: bool):
        super().__init__()
        self.greed, self.kept = greed, torch.zeros(1)

    @torch.jit.export
    def __getstate__(self):
        return self.greed, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[bool, bool]):
        self.greed, self.training = state
        self.kept = torch.zeros(1)
        while True:
            if self.greed:
                self.kept = torch.ones([1 << 32])


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("greed", "limit"), [(False, "longer than 0.5 seconds"), (True, "more than 1 GB of memory")]
)
def test_torchscript_that_never_ends_or_eats_memory_is_stopped_and_said(
    greed, limit, clip_files, tmp_path, capsys
):
    state = published_state("coop", "small/end-csc", load_clip(clip_files["small"]))
    file, script = write_published(tmp_path, state), str(tmp_path / "script.pt")
    torch.jit.script(Hostile(greed)).save(script)
    line = ["CoOp", script, str(file), str(tmp_path / "ours")]
    assert convert_checkpoint.main(line) == 2
    assert "script.pt is TorchScript, a program" in capsys.readouterr().err
    limits = ["--gigabytes", "1"] if greed else ["--seconds", "0.5"]
    assert convert_checkpoint.main([*line, "--trust-torchscript", *limits]) == 2
    said = capsys.readouterr().err
    assert f"{limit}" in said and "script.pt" in said and said.count("\n") == 1
    assert not (tmp_path / "ours").exists()


def test_every_trainer_here_has_a_golden_file():
    assert {spec["trainer"] for spec in MANIFEST["methods"].values()} == {
        trainer.__name__ for trainer in TRAINERS.values()
    }
