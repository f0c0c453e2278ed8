"""Loading CLIP: file formats, precisions and names; and building it at random."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from causalclip.clip import backbone
from causalclip.clip.backbone import (
    BUNDLED,
    available_models,
    build_clip,
    image_size,
    is_vit,
    load_clip,
    tokenize,
    weights_digest,
)
from causalclip.clip.openai_clip import convert_weights

SMALL = {"vocab_size": 49408, "vision_layers": 2, "transformer_layers": 2}
RESNET = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "transformer_layers": 1}


@pytest.fixture(scope="module")
def model():
    return build_clip(**SMALL, seed=3)


@pytest.fixture
def state_file(model, tmp_path):
    path = tmp_path / "clip.pt"
    torch.save(model.state_dict(), path)
    return path


def assert_same_weights(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_same_seed_builds_the_same_model_and_another_seed_another():
    digests = [weights_digest(build_clip(**SMALL, seed=seed)) for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_building_and_loading_leave_the_global_generator_alone(state_file):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_clip(**SMALL, seed=9)
    load_clip(str(state_file), activation="quick_gelu")
    assert torch.equal(torch.rand(3), expected)


def test_a_seed_does_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    one = weights_digest(build_clip(**SMALL))
    torch.manual_seed(2)
    assert weights_digest(build_clip(**SMALL)) == one


def test_sizes_are_read_from_the_model(model):
    resnet = build_clip(**RESNET, image_resolution=64)
    assert (image_size(model), is_vit(model)) == (32, True)
    assert (image_size(resnet), is_vit(resnet)) == (64, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vision_width": 96}, "vision_width must be a multiple of 64, got 96"),
        ({"image_resolution": 30}, "image_resolution must be a multiple of 8, got 30"),
        ({**RESNET, "image_resolution": 48}, "image_resolution must be a multiple of 32, got 48"),
        ({"transformer_heads": 3}, "transformer_heads must divide transformer_width 64, got 3"),
    ],
)
def test_impossible_architectures_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_clip(**options)


def test_every_file_format_gives_the_weights_bit_for_bit(model, state_file, tmp_path):
    nested, tensors = tmp_path / "nested.pth", tmp_path / "clip.safetensors"
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, nested)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tensors)
    for path in (state_file, nested, tensors):
        assert_same_weights(load_clip(str(path), activation="quick_gelu"), model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_torchscript_archive_in_half_precision_loads_as_the_released_ones(model, tmp_path):
    half = load_clip_from(model, tmp_path, "fp16")
    half.register_buffer("input_resolution", torch.tensor(32))  # as the released archives carry
    images, tokens = torch.zeros(1, 3, 32, 32), tokenize("a")
    path = tmp_path / "script.pt"
    torch.jit.trace(half, (images, tokens), check_trace=False).save(str(path))
    loaded = load_clip(str(path), trust_torchscript=True, activation="quick_gelu")
    expected = {k: v.float() for k, v in half.state_dict().items() if k != "input_resolution"}
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name]), name


def load_clip_from(model, folder, precision):
    path = folder / f"{precision}.pt"
    torch.save(model.state_dict(), path)
    return load_clip(str(path), precision=precision, activation="quick_gelu")


def test_a_resnet_model_loads_from_its_state_dict(tmp_path):
    resnet = build_clip(**RESNET)
    assert_same_weights(load_clip_from(resnet, tmp_path, "fp32"), resnet)


def test_loaded_models_are_frozen_and_in_evaluation_mode(state_file):
    model = load_clip(str(state_file), activation="quick_gelu")
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


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


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("options", [SMALL, RESNET], ids=["vit", "resnet"])
def test_low_precision_features_stay_near_full_precision(precision, options, tmp_path):
    model = build_clip(**options)
    low = load_clip_from(model, tmp_path, precision)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = tokenize(["a photo of a dog.", "a cat"])
    with torch.no_grad():
        for encode, x in (("encode_image", images), ("encode_text", tokens)):
            full, half = getattr(model, encode)(x), getattr(low, encode)(x).float()
            assert torch.cosine_similarity(full, half).min() > 0.999


def test_amp_keeps_full_precision_weights(model, tmp_path):
    assert_same_weights(load_clip_from(model, tmp_path, "amp"), model)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of .*'amp'.*, got 'fp8'"):
        load_clip("tiny", precision="fp8")


@pytest.mark.parametrize(
    ("name", "near"), [("vit-b16", "ViT-B/16"), ("RN-50", "RN50"), ("tyni", "tiny")]
)
def test_an_unknown_name_is_answered_with_the_nearest_ones(name, near):
    with pytest.raises(ValueError, match=f"unknown CLIP '{name}'; nearest names: .*{near}"):
        load_clip(name)


def test_a_path_without_a_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*gone.pt"):
        load_clip(str(tmp_path / "gone.pt"))


@pytest.mark.parametrize("name", ["broken.pt", "broken.safetensors", "cut.pt", "empty.pt"])
def test_a_file_that_cannot_be_read_is_named(name, tmp_path, state_file):
    content = {"cut.pt": state_file.read_bytes()[:5000], "empty.pt": b""}.get(name, b"not weights")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read as weights"):
        load_clip(str(path))


def test_missing_unexpected_and_ill_shaped_weights_are_named(model, tmp_path):
    def load(change):
        state = dict(model.state_dict())
        change(state)
        torch.save(state, tmp_path / "changed.pt")
        load_clip(str(tmp_path / "changed.pt"))

    with pytest.raises(ValueError, match=r"changed.pt .* missing \['ln_final.weight'\]"):
        load(lambda state: state.pop("ln_final.weight"))
    with pytest.raises(ValueError, match="(?s)changed.pt .*Missing.*ln_final.bias"):
        load(lambda state: state.pop("ln_final.bias"))
    with pytest.raises(ValueError, match="(?s)changed.pt .*Unexpected.*head.weight"):
        load(lambda state: state.update({"head.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match="(?s)changed.pt .*size mismatch"):
        load(lambda state: state.update({"ln_final.bias": torch.zeros(2)}))


def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="list.pt holds a list, not a state dict"):
        load_clip(str(tmp_path / "list.pt"))


def test_released_names_come_from_the_download_folder_by_checksum(model, tmp_path, monkeypatch):
    torch.save(model.state_dict(), tmp_path / "ViT-B-32.pt")
    digest = hashlib.sha256((tmp_path / "ViT-B-32.pt").read_bytes()).hexdigest()
    url = f"http://127.0.0.1:9/{digest}/ViT-B-32.pt"
    monkeypatch.setattr(backbone, "RELEASED", {"ViT-B/32": url})
    assert_same_weights(load_clip("ViT-B/32", download_root=tmp_path), model)


def test_released_names_offline_say_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(backbone, "RELEASED", {"ViT-B/32": "http://127.0.0.1:9/00/ViT-B-32.pt"})
    with pytest.raises(ConnectionError, match="cannot download ViT-B-32.pt"):
        load_clip("ViT-B/32", download_root=tmp_path)


def test_all_released_names_are_known_with_their_checksums():
    names = {"RN50", "RN101", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px", *BUNDLED}
    assert names <= set(available_models())
    assert all(len(url.split("/")[-2]) == 64 for url in backbone.RELEASED.values())


def test_a_missing_bundled_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(backbone.BUNDLED, "tiny", tmp_path / "tiny.safetensors")
    with pytest.raises(FileNotFoundError, match="tiny.safetensors are missing"):
        load_clip("tiny")
