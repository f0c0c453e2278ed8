"""Templates: each has one place for a name, and no data set is without one."""

import pytest

from causalclip.clip.templates import (
    IMAGENET_TEMPLATES,
    IMAGENET_TEMPLATES_SELECT,
    TEMPLATES,
    template_for,
)

ALL = [*TEMPLATES.values(), *IMAGENET_TEMPLATES, *IMAGENET_TEMPLATES_SELECT]


def test_every_template_has_one_place_for_the_name():
    assert all(template.count("{}") == 1 for template in ALL)


def test_the_ensembles_have_their_published_sizes():
    assert len(set(IMAGENET_TEMPLATES)) == 80 and len(set(IMAGENET_TEMPLATES_SELECT)) == 7
    assert set(IMAGENET_TEMPLATES_SELECT) <= set(IMAGENET_TEMPLATES)


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("OxfordPets", "a photo of a {}, a type of pet."),
        ("DescribableTextures", "{} texture."),
        ("EuroSAT", "a centered satellite photo of {}."),
        ("UCF101", "a photo of a person doing {}."),
        ("Food101", "a photo of {}, a type of food."),
        ("VLCS", "a photo of a {}."),
        ("a data set of the user's own", "a photo of a {}."),
    ],
)
def test_data_sets_have_their_published_template_or_the_default(name, template):
    assert template_for(name) == template
