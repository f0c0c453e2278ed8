"""open_clip's models: loaded by name, equal to OpenAI's in its layout, prompted as they are."""

from __future__ import annotations

import huggingface_hub
import open_clip
import open_clips
import pytest
import torch

from causalclip.clip.backbone import build_clip, load_clip
from causalclip.clip.encode import encode_image, encode_text, encode_texts
from causalclip.clip.interface import backbone_of
from causalclip.clip.open_clip_backbone import OpenCLIPTokenizer, preprocessing_of
from causalclip.clip.openai_clip import ActivationError
from causalclip.clip.prompt_set import Additions
from causalclip.clip.published import check_backbone
from causalclip.clip.texts import class_tokens
from causalclip.clip.weights import weights_digest
from causalclip.clip.zeroshot import class_features
from causalclip.predict.explain import last_layer

NAMES = ["dog", "grey parrot", "a very long name of a thing"]
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> dict[str, str]:
    return open_clips.write(tmp_path_factory.mktemp("open_clip"))


@pytest.fixture(scope="module")
def files(names):
    return {kind: name.partition("/")[2] for kind, name in names.items()}


@pytest.fixture(scope="module")
def models(names):
    return {kind: load_clip(name) for kind, name in names.items()}


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def prompts(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(*shape, generator=generator) / 10).requires_grad_() for _ in range(2)]


def texts_for(model, **options):
    backbone = backbone_of(model)
    sizes = {"context_length": backbone.context_length, "tokenizer": backbone.tokenizer}
    return class_tokens(NAMES, **{"n_ctx": 2, "prefix": "a photo of a", **sizes, **options})


# The same numbers through both packages


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def both(request, names, tmp_path_factory):
    path = tmp_path_factory.mktemp("openai") / "clip.pt"
    model = build_clip(vision_layers=2, transformer_layers=2, embed_dim=48)
    torch.save(model.state_dict(), path)
    return [
        load_clip(name, activation=request.param)
        for name in (str(path), f"open_clip:seam-vit/{path}")
    ]


def assert_same(both, encode, learned=()):
    """Compare features, and gradients of their squares, of both models."""
    results = []
    for model in both:
        features = encode(model)
        gradients = torch.autograd.grad(features.square().sum(), learned) if learned else ()
        results.append([features, *gradients])
    for ours, other in zip(*results, strict=True):
        assert (ours - other).abs().max() < 1e-5 * max(1, ours.abs().max())


def test_openais_layout_gives_the_same_features_through_both_packages(both, images):
    assert_same(both, lambda model: class_features(model, NAMES, ["a photo of a {}."]))
    assert_same(both, lambda model: encode_image(model, images))


def test_prompts_give_the_same_through_both_packages(both, images):
    text = prompts(3, 4, 64)
    for position in ("end", "middle", "front"):
        texts = texts_for(both[0], n_ctx=4, position=position)
        assert_same(both, lambda model, texts=texts: encode_texts(model, texts, text), text)
    for given in (prompts(3, 64), prompts(2, 3, 64)):
        assert_same(both, lambda model, given=given: encode_image(model, images, given), given)


# What each kind needs


@pytest.mark.parametrize("kind", open_clips.KINDS)
def test_features_are_those_of_open_clips_own_forward(kind, models, images):
    model = models[kind]
    tokens = model.tokenizer(NAMES, model.context_length)
    text = model.model.encode_text(tokens, normalize=False)
    assert torch.allclose(encode_text(model, tokens), text, **CLOSE)
    if kind != "convnext":
        image = model.model.encode_image(images, normalize=False)
        assert torch.equal(encode_image(model, images), image)


@pytest.mark.parametrize(("kind", "cut"), [("vit", 7), ("eva", 7), ("map", 64), ("coca", 77)])
def test_text_is_cut_only_under_a_causal_mask_and_where_its_end_is_read(kind, cut, models):
    model, seen = models[kind], []
    blocks = model.text_tower().blocks
    handle = blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    encode_text(model, model.tokenizer(["a photo of a dog"], model.context_length))
    handle.remove()
    assert seen == [cut]


def written_out(visual, images, given, adapter=lambda x: 0 * x):
    """A timm tower with prompts behind its prefix token, which rotary positions leave out."""
    trunk, n = visual.trunk, given[0].shape[0]
    x = trunk._pos_embed(trunk.patch_embed(images))
    x, rope = x if isinstance(x, tuple) else (x, None)
    prefix = trunk.num_prefix_tokens
    for i, block in enumerate(trunk.blocks):
        own = given[i].expand(len(x), -1, -1)
        patches = x[:, prefix:] if i == 0 else x[:, prefix + n :]
        x = torch.cat([x[:, :prefix], own, patches], dim=1)
        added = adapter(block.norm1(x))
        if rope is None:
            x = block(x) + added
            continue
        block.attn.num_prefix_tokens += n
        x = block(x, rope=rope) + added
        block.attn.num_prefix_tokens -= n
    x = torch.cat([x[:, :prefix], x[:, prefix + n :]], dim=1)
    return visual.head(trunk.forward_head(trunk.norm(x)))


@pytest.mark.parametrize("kind", ["map", "eva"])
def test_deep_image_prompts_are_read_by_patches_and_pooled_by_none(kind, models, images):
    given, visual = prompts(3, 64), models[kind].model.visual
    plain, prompted_only = (encode_image(models[kind], images, own) for own in ((), given))
    assert torch.allclose(prompted_only, written_out(visual, images, given), **CLOSE)
    assert not torch.allclose(prompted_only, plain, atol=1e-3)
    added = Additions(adapters=dict.fromkeys((0, 1), torch.tanh))
    adapted = encode_image(models[kind], images, given, added)
    assert torch.allclose(adapted, written_out(visual, images, given, torch.tanh), **CLOSE)
    assert not torch.allclose(adapted, prompted_only, atol=1e-3)


class Words:
    """As sentence pieces: no start token, an end token, padding with 1, no `encode`."""

    context_length = 16

    def __init__(self):
        self.tokenizer = self

    def __call__(self, texts, context_length=None, add_special_tokens=True):
        if isinstance(texts, str):
            return type("Encoded", (), {"input_ids": [10 + len(word) for word in texts.split()]})
        rows = [[10 + len(word) for word in text.split()][: context_length - 1] for text in texts]
        return torch.tensor([[*r, 2] + [1] * (context_length - 1 - len(r)) for r in rows])

    @staticmethod
    def clean_fn(text):
        return text


def test_the_start_of_a_text_is_read_from_the_tokenizer(names):
    tokenizer = OpenCLIPTokenizer(Words())
    assert (tokenizer.start, tokenizer.count("a photo of a dog")) == (0, 6)
    texts = class_tokens(["dog"], n_ctx=2, prefix="a photo", context_length=16, tokenizer=tokenizer)
    assert texts.positions.tolist() == [[0, 1]] and not texts.leading
    own = OpenCLIPTokenizer(open_clip.get_tokenizer("seam-vit"))
    assert (own.start, own.count("a photo of a dog")) == (1, 7)


# Preprocessing, activation and digest


def test_preprocessing_is_the_models_own():
    assert preprocessing_of("open_clip:ViT-B-16-SigLIP2/webli") == {
        "size": (224, 224),
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    clip = preprocessing_of("open_clip:ViT-B-16/laion2b_s34b_b88k")
    assert (clip["resize_mode"], clip["mean"][0]) == ("shortest", 0.48145466)


def test_a_tag_that_was_trained_with_quick_gelu_loads_with_it(monkeypatch, files):
    monkeypatch.setattr(open_clip, "download_pretrained", lambda _: files["vit"])
    digests = set()
    for tag, quick, name in (("laion", None, "GELU"), ("dfn", True, "QuickGELU")):
        released = {"seam-vit": {tag: {"quick_gelu": quick}}}
        monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", released)
        model = load_clip(f"open_clip:seam-vit/{tag}")
        assert type(model.model.visual.transformer.resblocks[0].mlp.gelu).__name__ == name
        digests.add(weights_digest(model))
    assert len(digests) == 2  # of the same weights
    message = "must be quick_gelu or empty for open_clip:seam-vit/dfn"
    with pytest.raises(ActivationError, match=message):
        load_clip("open_clip:seam-vit/dfn", activation="gelu")


# Bad input


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("open_clip:ViT-B16/openai", ValueError, "model 'ViT-B16'.*nearest names: .*ViT-B-16"),
        ("open_clip:ViT-B-16/laion2b", ValueError, "weights 'laion2b'.*laion2b_s34b_b88k"),
        ("open_clip:ViT-B-16", ValueError, "weights ''.*all tags: openai"),
        ("open_clip:ViT-B-16//no/such.pt", FileNotFoundError, "no weights of ViT-B-16 at /no/such"),
    ],
)
def test_unknown_models_and_tags_are_answered_with_the_nearest(name, error, message):
    with pytest.raises(error, match=message):
        load_clip(name)


IMAGE, TOKENS = torch.zeros(1, 3, 32, 32), Additions({0: torch.zeros(2, 64)})


@pytest.mark.parametrize(
    ("kind", "use", "message"),
    [
        ("vit", lambda m: encode_image(m, IMAGE, (), TOKENS), "enters midway needs .*seam-vit/"),
        ("vit", last_layer, "a map of patches needs .*got open_clip:seam-vit/"),
        ("vit", lambda m: check_backbone({}, m, "x"), "a published checkpoint needs .*seam-vit/"),
        ("convnext", lambda m: m.image_tower(), "need a ViT backbone, .*seam-convnext.*ConvNeXt"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_by_name(models, kind, use, message):
    with pytest.raises(ValueError, match=message):
        use(models[kind])


def test_weights_of_another_model_or_size_and_damaged_ones_are_refused_by_name(files, tmp_path):
    state = torch.load(files["vit"])
    state["visual.positional_embedding"] = state["visual.positional_embedding"][:12]
    torch.save(state, tmp_path / "odd.pt")
    for kind, file in (("eva", files["vit"]), ("vit", tmp_path / "odd.pt")):
        with pytest.raises(ValueError, match=rf".pt holds no seam-{kind}, or one of an image size"):
            load_clip(f"open_clip:seam-{kind}/{file}")
    state["ln_final.weight"] = state["ln_final.weight"] * torch.nan
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match="nan.pt is damaged: ln_final.weight holds NaN"):
        load_clip(f"open_clip:seam-vit/{tmp_path / 'nan.pt'}")


def test_offline_the_error_names_the_file_and_its_place(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError) as error:
        load_clip("open_clip:ViT-B-16/laion2b_s34b_b88k")
    message = str(error.value)
    assert str(tmp_path) in message and "open_clip:ViT-B-16//path/to/" in message
    assert "hf download laion/CLIP-ViT-B-16-laion2B-s34B-b88K open_clip_" in message
