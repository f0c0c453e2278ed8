"""QuickGELU or GELU: asked for where a file is not known, never guessed."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from causalclip.clip import activation
from causalclip.clip.backbone import BUNDLED, build_clip, load_clip, save_tiny, tokenize
from causalclip.clip.encode import encode_image, encode_text
from causalclip.clip.weights import weights_digest
from causalclip.files.download import file_digest

SMALL = {"vision_layers": 2, "transformer_layers": 2}


@pytest.fixture(scope="module")
def state_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(build_clip(**SMALL).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def gelu(state_file):
    return load_clip(str(state_file), activation="gelu")


def test_a_state_dict_of_unknown_activation_is_refused_by_the_name_of_the_setting(state_file):
    with pytest.raises(ValueError, match=r"clip.pt .*MODEL.BACKBONE.ACTIVATION to quick_gelu .*or"):
        load_clip(str(state_file))


def test_an_activation_that_is_none_is_refused(state_file):
    with pytest.raises(ValueError, match="ACTIVATION must be quick_gelu, gelu or .*got 'relu'"):
        load_clip(str(state_file), activation="relu")


def test_gelu_replaces_quick_gelu_in_every_block_of_both_towers(state_file, gelu):
    oracle = load_clip(str(state_file), activation="quick_gelu")
    for module in oracle.modules():
        if type(module).__name__ == "QuickGELU":  # OpenAI's class, made to compute the other
            module.forward = nn.functional.gelu
    images, tokens = torch.randn(2, 3, 32, 32), tokenize(["a dog", "a photo of a cat"])
    assert torch.allclose(gelu.encode_image(images), oracle.encode_image(images), atol=1e-6)
    assert torch.allclose(gelu.encode_text(tokens), oracle.encode_text(tokens), atol=1e-6)
    assert torch.allclose(encode_image(gelu, images), oracle.encode_image(images), atol=1e-5)
    assert torch.allclose(encode_text(gelu, tokens), oracle.encode_text(tokens), atol=1e-5)


def test_the_digest_tells_the_two_activations_of_the_same_weights_apart(state_file, gelu):
    quick = load_clip(str(state_file), activation="quick_gelu")
    assert weights_digest(quick) == weights_digest(build_clip(**SMALL)) != weights_digest(gelu)


def test_what_is_known_needs_no_activation_and_contradicts_another(tmp_path):
    save_tiny(build_clip(**SMALL), [], tmp_path / "own.safetensors")
    for name in (*BUNDLED, str(tmp_path / "own.safetensors")):
        assert type(load_clip(name).transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
        with pytest.raises(ValueError, match="must be quick_gelu or empty .*got 'gelu'"):
            load_clip(name, activation="gelu")


def test_a_file_that_openai_released_is_recognised_by_its_digest(state_file, monkeypatch):
    url = f"https://example.org/{file_digest(state_file)}/ViT-B-32.pt"
    monkeypatch.setattr(activation, "RELEASED", {"ViT-B/32": url})
    assert not activation.uses_gelu(load_clip(str(state_file)))


def test_a_safetensors_file_may_say_its_activation_in_its_header(tmp_path):
    path, state = tmp_path / "said.safetensors", build_clip(**SMALL).state_dict()
    save_file(state, path, metadata={"activation": "gelu"})
    assert activation.uses_gelu(load_clip(str(path)))
    with pytest.raises(ValueError, match="must be gelu or empty for .*got 'quick_gelu'"):
        load_clip(str(path), activation="quick_gelu")


def test_a_resnet_has_gelu_in_its_text_tower(tmp_path):
    shape = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "transformer_layers": 1}
    torch.save(build_clip(**shape).state_dict(), tmp_path / "resnet.pt")
    model = load_clip(str(tmp_path / "resnet.pt"), activation="gelu")
    assert activation.uses_gelu(model)
