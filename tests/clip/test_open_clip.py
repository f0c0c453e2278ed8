"""open_clip's models: loaded by name, equal to OpenAI's in its layout, prompted as they are."""

from __future__ import annotations

import huggingface_hub
import open_clip
import open_clips
import pytest
import torch

from causalclip.clip.additions import Additions
from causalclip.clip.backbone import build_clip, load_clip, preprocessing_of, weights_digest
from causalclip.clip.encode import encode_image, encode_text, encode_texts
from causalclip.clip.injection import prompted
from causalclip.clip.kinds import backbone_of
from causalclip.clip.open_clip_backbone import OpenCLIPTokenizer
from causalclip.clip.published import check_backbone
from causalclip.clip.texts import class_tokens
from causalclip.clip.zeroshot import class_features
from causalclip.predict.explain import last_layer

NAMES = ["dog", "grey parrot", "a very long name of a thing"]
CLOSE = {"atol": 1e-5, "rtol": 0}


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> dict[str, str]:
    return open_clips.write(tmp_path_factory.mktemp("open_clip"))


@pytest.fixture(scope="module")
def models(names):
    return {kind: load_clip(name) for kind, name in names.items()}


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def prompts(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator) / 10 for _ in range(2)]


def texts_for(model, **options):
    backbone = backbone_of(model)
    return class_tokens(
        NAMES,
        context_length=backbone.context_length,
        tokenizer=backbone.tokenizer,
        **{"n_ctx": 2, "prefix": "a photo of a", **options},
    )


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


def test_openais_layout_gives_the_same_features_through_both_packages(both, images):
    ours, theirs = (class_features(model, NAMES, ["a photo of a {}."]) for model in both)
    assert torch.allclose(ours, theirs, **CLOSE)
    ours, theirs = (encode_image(model, images) for model in both)
    assert torch.allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_text_prompts_give_the_same_through_both_packages(both, position):
    given = [prompt.requires_grad_() for prompt in prompts(3, 4, 64)]
    found = []
    for model in both:
        features = encode_texts(model, texts_for(model, n_ctx=4, position=position), given)
        found.append([features, *torch.autograd.grad(features.square().sum(), given)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * ours.abs().max()


@pytest.mark.parametrize("shape", [(3, 64), (2, 3, 64)])
def test_image_prompts_give_the_same_through_both_packages(both, images, shape):
    ours, theirs = (encode_image(model, images, prompts(*shape)) for model in both)
    assert torch.allclose(ours, theirs, **CLOSE)


def test_adapters_give_the_same_through_both_packages(both, images):
    weights = [w.requires_grad_() for w in prompts(64, 64)]
    added = Additions(adapters={i: lambda x, w=w: torch.tanh(x @ w) for i, w in enumerate(weights)})
    found = []
    for model in both:
        text = encode_texts(model, texts_for(model), (), added)[0]
        features = torch.cat([text, encode_image(model, images, (), added)])
        found.append([features, *torch.autograd.grad(features.square().sum(), weights)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * ours.abs().max()


# What each kind needs


@pytest.mark.parametrize("kind", open_clips.KINDS)
def test_features_are_those_of_open_clips_own_forward(kind, models, images):
    model = models[kind]
    tokens = backbone_of(model).tokenizer(NAMES, backbone_of(model).context_length)
    text = model.model.encode_text(tokens, normalize=False)
    assert torch.allclose(encode_text(model, tokens), text, **CLOSE)
    if kind != "convnext":
        image = model.model.encode_image(images, normalize=False)
        assert torch.equal(encode_image(model, images), image)


@pytest.mark.parametrize(("kind", "cut"), [("vit", 7), ("eva", 7), ("map", 64), ("coca", 77)])
def test_text_is_cut_only_under_a_causal_mask_and_where_its_end_is_read(kind, cut, models):
    model, seen = models[kind], []
    blocks = backbone_of(model).text_tower().blocks
    handle = blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    encode_text(model, backbone_of(model).tokenizer(["a photo of a dog"], model.context_length))
    handle.remove()
    assert seen == [cut]


def written_out(visual, images, given, adapted=None):
    """A timm tower with prompts behind its prefix token, which rotary positions leave out.

    `adapted` is what the adapters of all blocks make of tokens.
    """
    trunk, n = visual.trunk, given[0].shape[0]
    x = trunk._pos_embed(trunk.patch_embed(images))
    x, rope = x if isinstance(x, tuple) else (x, None)
    prefix = trunk.num_prefix_tokens
    for i, block in enumerate(trunk.blocks):
        own = given[i].expand(len(x), -1, -1)
        behind = x[:, prefix:] if i == 0 else x[:, prefix + n :]
        x = torch.cat([x[:, :prefix], own, behind], dim=1)
        beside = 0 if adapted is None else adapted(block.norm1(x))
        if rope is None:
            x = block(x) + beside
            continue
        block.attn.num_prefix_tokens += n
        x = block(x, rope=rope) + beside
        block.attn.num_prefix_tokens -= n
    x = torch.cat([x[:, :prefix], x[:, prefix + n :]], dim=1)
    return visual.head(trunk.forward_head(trunk.norm(x)))


@pytest.mark.parametrize("kind", ["map", "eva"])
def test_deep_image_prompts_are_read_by_patches_and_pooled_by_none(kind, models, images):
    given = prompts(3, 64)
    found = encode_image(models[kind], images, given)
    assert torch.allclose(found, written_out(models[kind].model.visual, images, given), **CLOSE)
    assert not torch.allclose(found, encode_image(models[kind], images), atol=1e-3)
    added = Additions(adapters=dict.fromkeys((0, 1), torch.tanh))
    found = encode_image(models[kind], images, given, added)
    slow = written_out(models[kind].model.visual, images, given, torch.tanh)
    assert torch.allclose(found, slow, **CLOSE)
    assert not torch.allclose(found, encode_image(models[kind], images, given), atol=1e-3)


@pytest.mark.parametrize("kind", ["vit", "map", "eva", "coca"])
def test_prompts_leave_no_trace_and_learn_on_every_tower(kind, models, images):
    model = models[kind]
    before = encode_image(model, images)
    text, image = ([p.requires_grad_() for p in prompts(2, 64)] for _ in range(2))
    features = encode_texts(model, texts_for(model), [p.unsqueeze(0) for p in text])[0]
    features = features.sum() + encode_image(model, images, image).square().sum()
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(features, [*text, *image]))
    added = Additions(adapters={0: torch.tanh})
    both = {"text_additions": added, "image_additions": added}
    with pytest.raises(ZeroDivisionError), prompted(model, text=text, image=image, **both):
        raise ZeroDivisionError
    assert torch.equal(encode_image(model, images), before)


def test_a_tower_without_tokens_refuses_image_prompts_in_words(models):
    with pytest.raises(ValueError, match=r"need a ViT backbone, open_clip:seam-convnext.*ConvNeXt"):
        backbone_of(models["convnext"]).image_tower()


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


def test_where_a_text_begins_is_read_from_the_tokenizer():
    tokenizer = OpenCLIPTokenizer(Words())
    assert (tokenizer.start, tokenizer.count("a photo of a dog")) == (0, 6)
    texts = class_tokens(["dog"], n_ctx=2, prefix="a photo", context_length=16, tokenizer=tokenizer)
    assert texts.positions.tolist() == [[0, 1]] and not texts.leading
    own = OpenCLIPTokenizer(open_clip.get_tokenizer("seam-vit"))
    assert (own.start, own.count("a photo of a dog")) == (1, 7)


# Preprocessing, activation and digest


def test_preprocessing_is_the_models_own_and_agrees_with_open_clips():
    assert preprocessing_of("open_clip:ViT-B-16-SigLIP2/webli") == {
        "SIZE": (224, 224),
        "PIXEL_MEAN": [0.5, 0.5, 0.5],
        "PIXEL_STD": [0.5, 0.5, 0.5],
        "INTERPOLATION": "bicubic",
        "RESIZE_MODE": "squash",
    }
    clip = preprocessing_of("open_clip:ViT-B-16/laion2b_s34b_b88k")
    assert (clip["RESIZE_MODE"], clip["PIXEL_MEAN"][0]) == ("shortest", 0.48145466)
    assert preprocessing_of("ViT-B/16") == {}


def test_a_tag_that_learned_with_quick_gelu_loads_with_it(monkeypatch, names, tmp_path):
    for tag, quick in (("laion", None), ("dfn", True)):
        released = {"seam-vit": {tag: {"quick_gelu": quick}}}
        monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", released)
        monkeypatch.setattr(
            open_clip, "download_pretrained", lambda _: names["vit"].partition("/")[2]
        )
        model = load_clip(f"open_clip:seam-vit/{tag}")
        found = type(model.model.visual.transformer.resblocks[0].mlp.gelu).__name__
        assert found == ("QuickGELU" if quick else "GELU")
    with pytest.raises(ValueError, match="must be quick_gelu or empty for open_clip:seam-vit/dfn"):
        load_clip("open_clip:seam-vit/dfn", activation="gelu")


def test_the_digest_knows_the_activation(both, names):
    quick = load_clip(names["vit"], activation="quick_gelu")
    assert weights_digest(quick) != weights_digest(load_clip(names["vit"]))


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


def test_what_needs_openais_classes_says_so(models):
    tokens = Additions({0: torch.zeros(2, 64)})
    with (
        pytest.raises(ValueError, match="a token that enters midway needs .*seam-vit/"),
        prompted(models["vit"], image_additions=tokens),
    ):
        pass
    with pytest.raises(ValueError, match="a map of patches needs .*got open_clip:seam-vit/"):
        last_layer(models["vit"])
    with pytest.raises(ValueError, match="a published checkpoint needs .*got open_clip:seam-vit/"):
        check_backbone({}, models["vit"], "x")


def test_weights_of_another_model_are_refused_by_name(names):
    file = names["vit"].partition("/")[2]
    with pytest.raises(ValueError, match=r"vit.pt holds no seam-eva, or one of an image size"):
        load_clip(f"open_clip:seam-eva/{file}")


def test_an_image_size_that_cannot_be_interpolated_is_named(names, tmp_path):
    state = torch.load(names["vit"].partition("/")[2])
    state["visual.positional_embedding"] = state["visual.positional_embedding"][:12]
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd.pt holds no seam-vit, or one of an image size"):
        load_clip(f"open_clip:seam-vit/{tmp_path / 'odd.pt'}")


def test_offline_the_error_says_which_file_goes_where(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError) as error:
        load_clip("open_clip:ViT-B-16/laion2b_s34b_b88k")
    said = str(error.value)
    assert str(tmp_path) in said and "open_clip:ViT-B-16//path/to/" in said
    assert "hf download laion/CLIP-ViT-B-16-laion2B-s34B-b88K open_clip_" in said


def test_a_missing_tokenizer_is_named(monkeypatch):
    def missing(_name):
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "get_tokenizer", missing)
    with pytest.raises(ConnectionError, match="tokenizer timm/ViT-B-16-SigLIP of ViT-B-16-SigLIP"):
        load_clip("open_clip:ViT-B-16-SigLIP/webli")
