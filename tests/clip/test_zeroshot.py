"""Class features against CLIP's own encoder, text by text, and cosine logits against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from causalclip.clip.backbone import build_clip
from causalclip.clip.interface import tokenize
from causalclip.clip.zeroshot import (
    IMAGENET_TEMPLATES,
    IMAGENET_TEMPLATES_SELECT,
    class_features,
    cosine_logits,
    text_features,
)


@pytest.fixture(scope="module")
def model():
    return build_clip()


def test_class_features_are_the_normalised_mean_over_templates(model):
    templates, names = ["a photo of a {}.", "{} texture.", "art of {}"], ["cat", "jet_plane"]
    features = class_features(model, names, templates)
    assert not features.requires_grad
    for k, name in enumerate(["cat", "jet plane"]):
        each = [model.encode_text(tokenize(t.replace("{}", name)))[0] for t in templates]
        mean = torch.stack([one / one.norm() for one in each]).mean(0).detach()
        torch.testing.assert_close(features[k], mean / mean.norm())


def test_names_and_templates_must_be_there(model):
    for names, templates in (([], ["a {}."]), (["cat"], [])):
        with pytest.raises(ValueError, match="at least one class name and one template"):
            class_features(model, names, templates)
    with pytest.raises(ValueError, match="must contain {} for the class name, got 'a photo'"):
        class_features(model, ["cat"], ["a photo"])


def test_texts_are_encoded_as_they_stand_in_parts_of_any_size(model, monkeypatch):
    texts = ["a cat.", "grass", "a dog that sleeps"]
    monkeypatch.setattr("causalclip.clip.zeroshot.TEXT_BATCH", 2)
    expected = torch.cat([model.encode_text(tokenize(text)) for text in texts]).detach()
    torch.testing.assert_close(text_features(model, texts), expected)


def test_texts_must_fit_unless_they_are_cut(model):
    long = "cat " * 100
    with pytest.raises(ValueError, match="takes 102 tokens, more than the context length 77"):
        text_features(model, [long])
    cut = text_features(model, ["cat " * 75])
    torch.testing.assert_close(text_features(model, [long], cut=True), cut)


@pytest.mark.parametrize(
    ("image", "text"),
    [((5, 8), (3, 8)), ((5, 4, 8), (4, 3, 8)), ((5, 8), (5, 3, 8)), ((2, 5, 4, 8), (3, 8))],
    ids=["plain", "per template", "per image", "batch of batches"],
)
def test_logits_are_scaled_cosines(image, text):
    generator = torch.Generator().manual_seed(0)
    image = 3 * torch.randn(image, generator=generator, dtype=torch.float64)
    text = torch.randn(text, generator=generator, dtype=torch.float64)
    expected = 7 * F.cosine_similarity(image.unsqueeze(-2), text, dim=-1)
    torch.testing.assert_close(cosine_logits(image, text, 7.0), expected)
    mixed = cosine_logits(torch.ones(2, 4, dtype=torch.half), torch.ones(3, 4), 100.0)
    torch.testing.assert_close(mixed, torch.full((2, 3), 100.0))


def test_the_ensembles_for_imagenet_have_their_published_sizes():
    assert len(set(IMAGENET_TEMPLATES)) == 80 and len(set(IMAGENET_TEMPLATES_SELECT)) == 7
    assert set(IMAGENET_TEMPLATES_SELECT) <= set(IMAGENET_TEMPLATES)
    assert all(template.count("{}") == 1 for template in IMAGENET_TEMPLATES)
