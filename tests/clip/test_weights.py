"""Weights in files: the bundled format, the digest, refusals, and reading in a child process."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from causalclip.clip import backbone, weights
from causalclip.clip.backbone import build_clip, load_clip
from causalclip.clip.interface import tokenize
from causalclip.clip.weights import Limits, run_limited, save_tiny, weights_digest
from causalclip.files.digests import file_digest, is_vouched_for, write_digest

SMALL = {"vocab_size": 49408, "vision_layers": 2, "transformer_layers": 2}
RESNET = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "transformer_layers": 1}


def trained(rows, **options):
    """A model whose weights and given token rows have changed since it was built."""
    model = build_clip(**{**SMALL, **options}, seed=7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "token_embedding.weight":
                weight.add_(0.1)
        model.token_embedding.weight[rows] += 0.1
    return model


def test_the_bundled_format_round_trips_bit_for_bit(tmp_path, monkeypatch):
    rows, path = [320, 49406, 49407, 5], tmp_path / "tiny.safetensors"
    model = trained(rows)
    save_tiny(model, rows, path, fill_seed=7, metadata={"by": "test"})
    monkeypatch.setitem(backbone.BUNDLED_CLIPS, "tiny", path)
    for name in ("tiny", str(path)):
        loaded = load_clip(name)
        assert weights_digest(loaded) == weights_digest(model)
        assert torch.equal(loaded.encode_text(tokenize("a")), model.encode_text(tokenize("a")))
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.safetensors"]
    with torch.no_grad():
        loaded.logit_scale.add_(1e-6)
    assert weights_digest(loaded) != weights_digest(model)
    assert path.stat().st_size < model.token_embedding.weight.nbytes / 4


def test_saving_refuses_to_lose_trained_rows_or_what_it_cannot_store(tmp_path):
    path = tmp_path / "tiny.safetensors"
    with pytest.raises(ValueError, match=r"token rows \[9\] are not in token_rows"):
        save_tiny(trained([5, 9]), [5], path, fill_seed=7)
    with pytest.raises(ValueError, match="differ from those drawn with fill_seed 8"):
        save_tiny(trained([5]), [5], path, fill_seed=8)
    for options in (RESNET, {"transformer_heads": 2}):  # heads of 32 are in no state dict
        with pytest.raises(ValueError, match="only ViT models with QuickGELU and 64-wide heads"):
            save_tiny(build_clip(**{**SMALL, **options}), [5], path)
    assert list(tmp_path.iterdir()) == []


# Damage, and code


def test_a_flipped_bit_is_noticed_by_the_digest_file_or_the_checksum(tmp_path):
    path, state = tmp_path / "tiny.safetensors", tmp_path / "clip.pt"
    assert all(is_vouched_for(bundled) for bundled in backbone.BUNDLED_CLIPS.values())
    save_tiny(build_clip(**SMALL), [], path)
    write_digest(path)
    load_clip(str(path))
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # a number is a little larger: no format notices
    path.write_bytes(content)
    with pytest.raises(ValueError, match="tiny.safetensors does not match tiny.safetensors.sha256"):
        load_clip(str(path))
    torch.save({"a": torch.zeros(1000)}, state)
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(ValueError, match="clip.pt cannot be read as weights: .*checksum"):
        load_clip(str(state))


@pytest.mark.parametrize(
    "architecture",
    ["{", "{}", "[]", *(json.dumps({"vocab_size": n}) for n in (10**12, 0, True, "64"))],
)
def test_a_damaged_header_is_named_before_memory_is_asked_for(architecture, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_tiny(build_clip(**SMALL), [], path)
    save_file(load_file(path), path, metadata={"architecture": architecture, "fill_seed": "0"})
    with pytest.raises(ValueError, match="tiny.safetensors is damaged: its header"):
        load_clip(str(path))


def test_a_file_of_a_format_without_checksums_is_read_with_a_digest_file(tmp_path):
    path, model = tmp_path / "old.pt", build_clip(**SMALL)
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="torch before 1.6.*causalclip digest .*old.pt"):
        load_clip(str(path))
    write_digest(path)
    assert weights_digest(load_clip(str(path), activation="quick_gelu")) == weights_digest(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.index_fill(0, torch.tensor(0), torch.nan), "is damaged: .* holds NaN"),
        (lambda x: x.to(torch.int8), "text_projection must be of a floating type"),
        (lambda x: x.to(torch.complex64), "text_projection must be real"),
        (lambda _: "text", "text_projection must be a tensor, got a str"),
    ],
)
def test_numbers_that_are_no_weights_are_refused_by_name(change, message, tmp_path):
    state = build_clip(**SMALL).state_dict()
    state["text_projection"] = change(state["text_projection"])
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=f"clip.pt.*{message}"):
        load_clip(str(tmp_path / "clip.pt"), activation="quick_gelu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page and no weights"),
        ("zip", r"a zip archive and no torch file: unpack it .* \(ViT-B-16.pt\)"),
        (
            {"vision_model.embeddings.class_embedding": torch.zeros(2)},
            "Hugging Face's transformers",
        ),
    ],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_what_is_often_in_the_place_of_weights_is_named(content, message, name, tmp_path):
    path = tmp_path / name
    if content == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ViT-B-16.pt", b"weights")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif name == "w.pt":
        torch.save(content, path)
    else:
        save_file(content, path)
    with pytest.raises(ValueError, match=f"{name} is .*{message}"):
        load_clip(str(path))


def test_an_archive_of_a_later_version_of_zip_is_refused_by_name(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(1)}, path)
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02")  # the first of the archive's index
    path.write_bytes(content[: entry + 6] + b"\xff" + content[entry + 7 :])
    with pytest.raises(ValueError, match=r"a.pt cannot be read as weights: .*version 25.5"):
        load_clip(str(path))


def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list.pt holds a list, not a state dict"):
        load_clip(str(tmp_path / "list.pt"))
    (tmp_path / "list.pt").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with pytest.raises(ValueError, match=r"list.pt cannot be read as weights: it is a pickle of"):
        load_clip(str(tmp_path / "list.pt"))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_that_openai_did_not_release_is_not_loaded_unless_trusted(
    tmp_path, monkeypatch
):
    path = tmp_path / "script.pt"
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
    with monkeypatch.context() as patch:
        patch.delattr(torch.jit, "load")
        with pytest.raises(ValueError, match="script.pt is TorchScript, a program.*state dict or"):
            load_clip(str(path))
    with pytest.raises(ValueError, match="holds no CLIP"):  # read, and found to be none
        load_clip(str(path), trust_torchscript=True)
    url = f"https://example.org/{file_digest(path)}/script.pt"
    monkeypatch.setattr(weights, "RELEASED", {"a": url})
    with pytest.raises(ValueError, match="holds no CLIP"):
        load_clip(str(path))


# In a child process

LITTLE = Limits(seconds=60, gigabytes=0.5)
BRIEF = Limits(seconds=0.5, gigabytes=0.5)


def refuse():
    raise OSError("a.pt is no file of mine")


def spin():
    while True:
        pass


def test_the_result_of_a_child_comes_back_whole():
    result = os.urandom(3_000_000)  # more than a pipe holds
    assert run_limited(lambda: result, Limits()) == result
    assert run_limited(lambda: b"", Limits()) == b""


@pytest.mark.parametrize(
    ("work", "limits", "message"),
    [
        (refuse, LITTLE, "^a.pt is no file of mine$"),
        (spin, BRIEF, "took longer than 0.5 seconds and was stopped"),
        (lambda: time.sleep(100), BRIEF, "took longer than 0.5 seconds and was stopped"),
        (lambda: bytes(2 << 30), LITTLE, "asked for more than 0.5 GB of memory"),
        (lambda: signal.raise_signal(signal.SIGTERM), LITTLE, "without an answer, with SIGTERM"),
        (lambda: os._exit(3), LITTLE, "without an answer, with status 3"),
    ],
)
def test_a_child_that_fails_or_reaches_a_limit_is_named(work, limits, message):
    if "memory" in message and not Path("/proc/self/statm").exists():
        pytest.skip("bounded on Linux only")
    with pytest.raises(ValueError, match=message):
        run_limited(work, limits)


def test_a_child_can_write_no_file(tmp_path):
    with pytest.raises(ValueError, match="File too large"):
        run_limited(lambda: (tmp_path / "file").write_bytes(b"text"), LITTLE)
