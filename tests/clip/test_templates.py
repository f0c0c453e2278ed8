"""The ensembles of templates for ImageNet."""

from __future__ import annotations

from causalclip.clip.templates import IMAGENET_TEMPLATES, IMAGENET_TEMPLATES_SELECT


def test_every_template_has_one_place_for_the_name():
    both = (*IMAGENET_TEMPLATES, *IMAGENET_TEMPLATES_SELECT)
    assert all(template.count("{}") == 1 for template in both)


def test_the_ensembles_have_their_published_sizes():
    assert len(set(IMAGENET_TEMPLATES)) == 80 and len(set(IMAGENET_TEMPLATES_SELECT)) == 7
    assert set(IMAGENET_TEMPLATES_SELECT) <= set(IMAGENET_TEMPLATES)
