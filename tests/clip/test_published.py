"""Checkpoints in the published naming load into ours and give the published logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden import weights
from golden.cases import MANIFEST, assert_close, build, golden_file, logits_of
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
FIRST = dict(reversed(SMALL))  # a case a method
TRAINER = {method: spec["trainer"] for method, spec in MANIFEST["methods"].items()}


@pytest.fixture(scope="module")
def clips(clip_files):
    """The CLIPs of the golden tensors, which nothing here changes."""
    return {shape: load_clip(path) for shape, path in clip_files.items()}


def published_state(method: str, case: str, clip) -> dict[str, torch.Tensor]:
    """The state dict that the published trainer saved at its golden start, key by key."""
    frozen, golden = clip.state_dict(), golden_file(method)
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
        else:  # zeros for what no trainer reads back
            own = inner.removeprefix("ZS_").removeprefix("text_encoder.")
            own = own.replace("image_encoder.", "visual.")
            state[name] = frozen.get(own, torch.zeros(shape)).clone()
        assert tuple(state[name].shape) == shape, name
    return state


def write_published(folder: Path, state: dict) -> str:
    """A file as Dassl writes it: SGD's state dict, and the scheduler that follows the warm-up."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    content = {
        "state_dict": state,
        "epoch": 5,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"successor": after, "warmup_epoch": 1, "last_epoch": 4},
        "val_result": None,
    }
    torch.save(content, folder / "model.pth.tar-5")
    return str(folder / "model.pth.tar-5")


SETTINGS = {
    ("coop", "small/end-csc"): "TRAINER.COOP.N_CTX 3 TRAINER.COOP.CSC True",
    ("maple", "small/words"): "TRAINER.MAPLE.N_CTX 2 TRAINER.MAPLE.PROMPT_DEPTH 2",
    ("ivlp", "small/deep"): (
        "TRAINER.IVLP.N_CTX_VISION 3 TRAINER.IVLP.PROMPT_DEPTH_VISION 3 "
        "TRAINER.IVLP.N_CTX_TEXT 2 TRAINER.IVLP.PROMPT_DEPTH_TEXT 2"
    ),
}


@pytest.mark.parametrize(("method", "case"), SMALL)
def test_a_published_checkpoint_gives_the_published_logits(
    method, case, clips, clip_files, tmp_path, capsys
):
    path, out = clip_files["small"], str(tmp_path / "ours")
    file = write_published(tmp_path, published_state(method, case, clips["small"]))
    assert convert_checkpoint.main([TRAINER[method], path, file, out]) == 0
    assert SETTINGS.get((method, case), "") in capsys.readouterr().out
    trainer = build(method, case, clip_files)
    for parameter in trainer.model.parameters():
        nn.init.normal_(parameter)  # so that only what is loaded can be right
    trainer.load_model(out, epoch=5)
    golden = golden_file(method)
    # A checkpoint does not say its classes: MMRL reads them as new ones.
    expected = golden.get(f"{case}/logits_new", golden[f"{case}/logits"])
    assert_close(logits_of(trainer), expected, 1e-5, "logits")


def test_half_precision_checkpoints_become_fp32(clips):
    clip = clips["small"]
    state = {k: v.half() for k, v in published_state("maple", "small/words", clip).items()}
    module, sizes = convert("MaPLe", state, clip, "small")
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert torch.equal(module.ctx, state["prompt_learner.ctx"].float())
    assert sizes == {"n_ctx": 2, "prompt_depth": 2}


@pytest.mark.parametrize("method", ["maple", "vpt", "ivlp", "promptsrc", "mmrl", "mmrlpp"])
def test_a_whole_model_of_another_size_is_refused(method, clips):
    state = published_state(method, FIRST[method], clips["small"])
    with pytest.raises(ValueError, match=r"another backbone: image_encoder.*tiny has \(128,\)"):
        convert(TRAINER[method], state, clips["tiny"], "tiny")


@pytest.mark.parametrize("method", ["coop", "cocoop", "kgcoop", "prograd", "tcp", "mma"])
def test_a_prompt_learner_of_another_clip_of_the_same_size_is_refused(method, clips):
    clip = clips["small"]
    state = published_state(method, FIRST[method], clip)
    start = "token_embedding" if method == "mma" else "token_prefix"
    state[start] = state[start].flip(-1)
    with pytest.raises(ValueError, match=f"another backbone: {start} has other numbers"):
        convert(TRAINER[method], state, clip, "small")


@pytest.mark.parametrize(
    ("method", "other"), [("coop", "MaPLe"), ("maple", "CoOp"), ("coop", "MMA")]
)
def test_a_checkpoint_of_another_method_is_refused(method, other, clips):
    clip = clips["small"]
    with pytest.raises(ValueError, match=f"not a published {other} checkpoint"):
        convert(other, published_state(method, FIRST[method], clip), clip, "small")


def test_the_command_prints_one_line_and_returns_2_for_a_file_that_is_no_checkpoint(
    clip_files, tmp_path, capsys
):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "model.pth.tar-5")
    file, out = str(tmp_path / "model.pth.tar-5"), str(tmp_path / "ours")
    assert convert_checkpoint.main(["MaPLe", clip_files["small"], file, out]) == 2
    assert "lacks state_dict or epoch" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


class Hostile(nn.Module):
    """A program whose weights are read by running it, which never ends."""

    def __init__(self):
        super().__init__()
        self.kept = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self):
        return self.training

    @torch.jit.export
    def __setstate__(self, training: bool):
        self.training, self.kept = training, torch.zeros(1)
        while True:
            self.kept += 1


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_refused_and_stopped_where_it_is_trusted_and_never_ends(
    clips, tmp_path, capsys
):
    state = published_state("coop", "small/end-csc", clips["small"])
    file, script = write_published(tmp_path, state), str(tmp_path / "script.pt")
    torch.jit.script(Hostile()).save(script)
    line = ["CoOp", script, file, str(tmp_path / "ours")]
    assert convert_checkpoint.main(line) == 2
    assert "script.pt is TorchScript, a program" in capsys.readouterr().err
    assert convert_checkpoint.main([*line, "--trust-torchscript", "--seconds", "0.5"]) == 2
    message = capsys.readouterr().err
    assert "longer than 0.5 seconds" in message and "script.pt" in message
    assert message.count("\n") == 1 and not (tmp_path / "ours").exists()
