"""Loading CLIP: file formats, precisions, names and activations; and building it at random."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from causalclip.clip import backbone, weights
from causalclip.clip.backbone import BUNDLED_CLIPS, build_clip, load_clip
from causalclip.clip.encode import encode_image, encode_text
from causalclip.clip.interface import tokenize
from causalclip.clip.openai_clip import ActivationError, convert_weights, is_vit, uses_gelu
from causalclip.clip.weights import save_tiny, weights_digest
from causalclip.files.digests import file_digest

SMALL = {"vocab_size": 49408, "vision_layers": 2, "transformer_layers": 2}
RESNET = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "transformer_layers": 1}


@pytest.fixture(scope="module")
def model():
    return build_clip(**SMALL, seed=3)


@pytest.fixture(scope="module")
def state_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(model.state_dict(), path)
    return path


def assert_same_weights(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def load_clip_from(model, folder, precision="fp32"):
    path = folder / f"{precision}.pt"
    torch.save(model.state_dict(), path)
    return load_clip(str(path), precision=precision, activation="quick_gelu")


def test_models_follow_their_seed_and_leave_the_global_generator_alone(state_file):
    digests = [weights_digest(build_clip(**SMALL, seed=seed)) for seed in (0, 0, 1)]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert digests[0] == digests[1] == weights_digest(build_clip(**SMALL)) != digests[2]
    load_clip(str(state_file), activation="quick_gelu")
    assert torch.equal(torch.rand(3), expected)


def test_every_file_format_gives_the_weights_bit_for_bit(model, state_file, tmp_path):
    nested, tensors = tmp_path / "nested.pth", tmp_path / "clip.safetensors"
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, nested)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tensors)
    for path in (state_file, nested, tensors):
        loaded = load_clip(str(path), activation="quick_gelu")
        assert_same_weights(loaded, model)
        assert is_vit(loaded) and not loaded.training
        assert not any(weight.requires_grad for weight in loaded.parameters())
        mask = loaded.transformer.resblocks[0].attn_mask  # in no file
        assert torch.equal(mask, model.transformer.resblocks[0].attn_mask)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_torchscript_archive_in_half_precision_loads_as_the_released_ones(model, tmp_path):
    half = load_clip_from(model, tmp_path, "fp16")
    half.register_buffer("input_resolution", torch.tensor(32))  # as the released archives carry
    images, tokens, path = torch.zeros(1, 3, 32, 32), tokenize("a"), tmp_path / "script.pt"
    torch.jit.trace(half, (images, tokens), check_trace=False).save(str(path))
    loaded = load_clip(str(path), trust_torchscript=True, activation="quick_gelu")
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, half.state_dict()[name].float()), name


def test_a_resnet_model_loads_from_its_state_dict_with_amp_too(tmp_path):
    resnet = build_clip(**RESNET, image_resolution=64)
    loaded = load_clip_from(resnet, tmp_path)
    assert_same_weights(loaded, resnet)
    assert_same_weights(load_clip_from(resnet, tmp_path, "amp"), resnet)
    assert (loaded.visual.input_resolution, is_vit(loaded)) == (64, False)


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.half), ("bf16", torch.bfloat16)])
def test_low_precision_casts_what_openai_casts_and_rounds_once(model, tmp_path, precision, dtype):
    low = load_clip_from(model, tmp_path, precision)
    reference = build_clip(**SMALL, seed=3)
    convert_weights(reference)
    for (name, weight), expected in zip(
        low.named_parameters(), reference.parameters(), strict=True
    ):
        cast = expected.dtype == torch.half
        assert weight.dtype == (dtype if cast else torch.float32), name
        assert torch.equal(weight, model.get_parameter(name).to(weight.dtype)), name
    assert low.ln_final.weight.dtype == low.token_embedding.weight.dtype == torch.float32


# Names


def test_released_names_come_from_the_download_folder_by_checksum(
    model, state_file, tmp_path, monkeypatch
):
    (tmp_path / "ViT-B-32.pt").write_bytes(state_file.read_bytes())
    url = f"http://127.0.0.1:9/{file_digest(state_file)}/ViT-B-32.pt"
    monkeypatch.setattr(backbone, "RELEASED", {"ViT-B/32": url})
    assert_same_weights(load_clip("ViT-B/32", download_root=tmp_path), model)
    with pytest.raises(ActivationError, match="must be quick_gelu or empty for ViT-B/32"):
        load_clip("ViT-B/32", download_root=tmp_path, activation="gelu")


@pytest.mark.parametrize(
    ("name", "near"), [("vit-b16", "ViT-B/16"), ("RN-50", "RN50"), ("tyni", "tiny")]
)
def test_an_unknown_name_or_precision_is_answered_with_known_ones(name, near):
    with pytest.raises(ValueError, match=f"unknown CLIP '{name}'; nearest names: .*{near}"):
        load_clip(name)
    with pytest.raises(ValueError, match="precision must be one of .*'amp'.*, got 'fp8'"):
        load_clip(near, precision="fp8")


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no weights at .*gone.pt"):
        load_clip(str(tmp_path / "gone.pt"))
    monkeypatch.setitem(backbone.BUNDLED_CLIPS, "tiny", tmp_path / "tiny.safetensors")
    with pytest.raises(FileNotFoundError, match="tiny.safetensors are missing"):
        load_clip("tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("ln_final.weight"), "missing 'ln_final.weight'"),
        (lambda state: state.pop("ln_final.bias"), "Missing.*ln_final.bias"),
        (lambda state: state.update({"head.weight": torch.zeros(2)}), "Unexpected.*head.weight"),
        (lambda state: state.update({"ln_final.bias": torch.zeros(2)}), "size mismatch"),
    ],
)
def test_missing_unexpected_and_ill_shaped_weights_are_named(model, tmp_path, change, message):
    state = dict(model.state_dict())
    change(state)
    torch.save(state, tmp_path / "changed.pt")
    with pytest.raises(ValueError, match=f"(?s)changed.pt holds no CLIP .*{message}"):
        load_clip(str(tmp_path / "changed.pt"))


# Activations


def test_an_activation_that_is_unknown_or_none_is_refused(state_file):
    message = "clip.pt does not record its activation.*quick_gelu .*or gelu"
    with pytest.raises(ActivationError, match=message):
        load_clip(str(state_file))
    with pytest.raises(ActivationError, match="must be quick_gelu, gelu or .*got 'relu'"):
        load_clip(str(state_file), activation="relu")


def test_gelu_replaces_quick_gelu_in_every_block_of_both_towers(model, state_file, tmp_path):
    gelu, oracle = (load_clip(str(state_file), activation=a) for a in ("gelu", "quick_gelu"))
    assert weights_digest(oracle) == weights_digest(model) != weights_digest(gelu)
    for module in oracle.modules():
        if type(module).__name__ == "QuickGELU":  # OpenAI's class, made to compute the other
            module.forward = nn.functional.gelu
    images, tokens = torch.randn(2, 3, 32, 32), tokenize(["a dog", "a photo of a cat"])
    assert torch.allclose(gelu.encode_image(images), oracle.encode_image(images), atol=1e-6)
    assert torch.allclose(gelu.encode_text(tokens), oracle.encode_text(tokens), atol=1e-6)
    assert torch.allclose(encode_image(gelu, images), oracle.encode_image(images), atol=1e-5)
    assert torch.allclose(encode_text(gelu, tokens), oracle.encode_text(tokens), atol=1e-5)
    torch.save(build_clip(**RESNET).state_dict(), tmp_path / "resnet.pt")
    assert uses_gelu(load_clip(str(tmp_path / "resnet.pt"), activation="gelu"))


def test_a_recorded_activation_need_not_be_given_and_contradicts_another(model, tmp_path):
    save_tiny(build_clip(**SMALL), [], tmp_path / "own.safetensors")
    for name in (*BUNDLED_CLIPS, str(tmp_path / "own.safetensors")):
        assert not uses_gelu(load_clip(name))
        with pytest.raises(ActivationError, match="must be quick_gelu or empty .*got 'gelu'"):
            load_clip(name, activation="gelu")
    path = tmp_path / "recorded.safetensors"
    save_file(model.state_dict(), path, metadata={"activation": "gelu"})
    assert uses_gelu(load_clip(str(path)))
    with pytest.raises(ActivationError, match="must be gelu or empty for .*got 'quick_gelu'"):
        load_clip(str(path), activation="quick_gelu")


def test_a_file_that_openai_released_is_recognised_by_its_digest(state_file, monkeypatch):
    url = f"https://example.org/{file_digest(state_file)}/ViT-B-32.pt"
    monkeypatch.setattr(weights, "RELEASED", {"ViT-B/32": url})
    assert not uses_gelu(load_clip(str(state_file)))
