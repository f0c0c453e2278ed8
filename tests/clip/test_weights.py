"""Weights in files: the bundled format, and the digest."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from causalclip.clip import activation, backbone
from causalclip.clip.backbone import build_clip, load_clip
from causalclip.clip.openai_clip import tokenize
from causalclip.clip.weights import save_tiny, weights_digest
from causalclip.files.digests import is_vouched_for, write_digest
from causalclip.files.download import file_digest

SMALL = {"vocab_size": 49408, "vision_layers": 2, "transformer_layers": 2}
RESNET = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "transformer_layers": 1}


def test_the_digest_sees_every_weight():
    model = build_clip(**SMALL)
    before = weights_digest(model)
    with torch.no_grad():
        model.logit_scale.add_(1e-6)
        changed = weights_digest(model)
        model.logit_scale.sub_(1e-6)
    assert changed != before


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
    rows = [320, 49406, 49407, 5]
    model = trained(rows, transformer_heads=2)  # not the 64-wide heads a state dict implies
    save_tiny(model, rows, tmp_path / "tiny.safetensors", fill_seed=7, metadata={"by": "test"})
    monkeypatch.setitem(backbone.BUNDLED, "tiny", tmp_path / "tiny.safetensors")
    for name in ("tiny", str(tmp_path / "tiny.safetensors")):
        loaded = load_clip(name)
        assert weights_digest(loaded) == weights_digest(model)
        assert loaded.transformer.resblocks[0].attn.num_heads == 2
        assert torch.equal(loaded.encode_text(tokenize("a")), model.encode_text(tokenize("a")))
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_the_bundled_format_stays_under_eight_megabytes(tmp_path):
    shape = {"vision_width": 128, "transformer_width": 128, "transformer_heads": 2}
    depth = {"vision_layers": 4, "transformer_layers": 4, "embed_dim": 64}
    path = tmp_path / "tiny.safetensors"
    save_tiny(build_clip(**shape, **depth, seed=1), range(1000), path, fill_seed=1)
    assert path.stat().st_size < 8e6


def test_saving_refuses_to_lose_trained_rows(tmp_path):
    with pytest.raises(ValueError, match=r"token rows \[9\] are not in token_rows"):
        save_tiny(trained([5, 9]), [5], tmp_path / "tiny.safetensors", fill_seed=7)
    with pytest.raises(ValueError, match="differ from those drawn with fill_seed 8"):
        save_tiny(trained([5]), [5], tmp_path / "tiny.safetensors", fill_seed=8)
    with pytest.raises(ValueError, match="ViT models only"):
        save_tiny(build_clip(**RESNET), [5], tmp_path / "tiny.safetensors")
    assert list(tmp_path.iterdir()) == []


# Damage, and code


@pytest.mark.parametrize("path", backbone.BUNDLED.values(), ids=list(backbone.BUNDLED))
def test_bundled_weights_have_their_digest_beside_them(path):
    assert is_vouched_for(path)


def test_a_flipped_bit_in_bundled_weights_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "tiny.safetensors"
    save_tiny(build_clip(**SMALL), [], path)
    write_digest(path)
    load_clip(str(path))
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # a number is a little larger: no format notices
    path.write_bytes(content)
    monkeypatch.setitem(backbone.BUNDLED, "tiny", path)
    with pytest.raises(ValueError, match="tiny.safetensors is not what .* beside it says"):
        load_clip("tiny")


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    state = build_clip(**SMALL).state_dict()
    state["visual.proj"][0, 0] = torch.nan
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a.safetensors is damaged: visual.proj holds NaN"):
        load_clip(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("said", ["{", "{}", '{"vocab_size": 1000000000000}', "[]"])
def test_a_damaged_header_is_named_before_memory_is_asked_for(said, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_tiny(build_clip(**SMALL), [], path)
    header = {"architecture": said, "fill_seed": "0"}
    save_file(load_file(path), path, metadata=header)
    with pytest.raises(ValueError, match="tiny.safetensors is damaged: its header"):
        load_clip(str(path))


def test_a_flipped_bit_in_a_state_dict_is_noticed(tmp_path):
    path = tmp_path / "clip.pt"
    torch.save(build_clip(**SMALL).state_dict(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="clip.pt cannot be read as weights: .*checksum"):
        load_clip(str(path))


def test_a_file_of_a_format_without_checksums_is_read_when_vouched_for(tmp_path):
    path = tmp_path / "old.pt"
    model = build_clip(**SMALL)
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="old.pt is of torch before 1.6.*sha256sum old.pt"):
        load_clip(str(path))
    write_digest(path)
    loaded = load_clip(str(path), activation="quick_gelu")
    assert weights_digest(loaded) == weights_digest(model)


class Writes:
    """A pickle that writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_named_as_that_and_not_run(zipped, tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"a": Writes(tmp_path / "ran")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError) as error:
        load_clip(str(path))
    assert "holds a pickled" in str(error.value) and "open" in str(error.value)
    assert "weights_only" not in str(error.value) and not (tmp_path / "ran").exists()


class Writer(torch.nn.Module):
    """A program: its weights come with code that runs when it is called, or loaded."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x * self.weight


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_that_openai_did_not_release_is_not_loaded_unless_trusted(
    tmp_path, monkeypatch
):
    path = tmp_path / "script.pt"
    torch.jit.script(Writer()).save(str(path))

    def loaded(*arguments, **options):
        raise AssertionError("it was loaded")

    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "load", loaded)
        with pytest.raises(ValueError, match="script.pt is TorchScript, a program.*state dict or"):
            load_clip(str(path))
    with pytest.raises(ValueError, match="holds no CLIP"):  # read, and found to be none
        load_clip(str(path), trust_torchscript=True)
    url = f"https://example.org/{file_digest(path)}/script.pt"
    monkeypatch.setattr(activation, "RELEASED", {"a": url})
    with pytest.raises(ValueError, match="holds no CLIP"):
        load_clip(str(path))


@pytest.mark.parametrize(
    ("key", "size"),
    [
        ("transformer_layers", 10**9),  # would be built one by one, for hours and without end
        ("vision_layers", 3),
        ("embed_dim", "64"),
        ("image_resolution", 10**30),
        ("transformer_heads", True),
    ],
)
def test_a_header_of_other_sizes_than_the_tensors_is_refused_before_any_work(key, size, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_tiny(build_clip(**SMALL), [], path)
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    said["architecture"] = json.dumps({**json.loads(said["architecture"]), key: size})
    save_file(load_file(path), path, metadata=said)
    with pytest.raises(ValueError, match=f"tiny.safetensors is damaged: .*{key} must be"):
        load_clip(str(path))


@pytest.mark.parametrize(("kind", "said"), [("int8", "of a floating type"), ("complex64", "real")])
def test_numbers_that_are_no_weights_are_refused_by_name(kind, said, tmp_path):
    state = build_clip(**SMALL).state_dict()
    state["text_projection"] = state["text_projection"].to(getattr(torch, kind))
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(ValueError, match=f"clip.pt.*text_projection must be {said}"):
        load_clip(str(tmp_path / "clip.pt"), activation="quick_gelu")


def test_the_advice_to_run_the_code_of_a_pickle_is_not_passed_on(tmp_path):
    (tmp_path / "list.pt").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with pytest.raises(ValueError, match=r"list.pt cannot be read as weights: it is a pickle of"):
        load_clip(str(tmp_path / "list.pt"))
