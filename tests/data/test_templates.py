"""Templates of data sets: the published ones, a method's own, and the user's."""

from __future__ import annotations

import pytest
from dassl.config import get_cfg_default

from causalclip import plugin
from causalclip.data.catalogue import CATALOGUE, DASSL_TEMPLATES, dataset_template, template_for


@pytest.fixture
def cfg():
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.DATASET.NAME = "OxfordPets"
    return cfg


def test_every_template_has_one_place_for_the_name():
    rows = [facts.template for facts in CATALOGUE.values()]
    assert all(text.count("{}") == 1 for text in (*rows, *DASSL_TEMPLATES.values()))


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("OxfordPets", "a photo of a {}, a type of pet."),
        ("DescribableTextures", "{} texture."),
        ("EuroSAT", "a centered satellite photo of {}."),
        ("UCF101", "a photo of a person doing {}."),
        ("Food101", "a photo of {}, a type of food."),
        ("OxfordFlowers", "a photo of a {}, a type of flower."),
        ("FGVCAircraft", "a photo of a {}, a type of aircraft."),
        ("ImageNetSketch", "a photo of a {}."),
        ("DomainBedTerraIncognita", "a photo of a {}."),
        ("HandwrittenDigits", "a photo of the number {}."),
        ("ColouredDigits", "a photo of the number {}."),
        ("CausalShapes", "a photo of a {}."),
        ("DigitsDG", "a photo of the number {}."),
        ("VLCS", "a photo of a {}."),
        ("a data set of the user's own", "a photo of a {}."),
    ],
)
def test_data_sets_have_their_published_template_or_the_default(name, template):
    assert template_for(name) == template


def test_the_settings_come_before_the_method_and_the_method_before_the_data_set(cfg):
    own = {"OxfordPets": "a pet: {}."}
    assert dataset_template(cfg) == "a photo of a {}, a type of pet."
    assert dataset_template(cfg, own) == "a pet: {}."
    cfg.DATASET.TEMPLATE = "my {}"
    assert dataset_template(cfg, own) == dataset_template(cfg) == "my {}"
    cfg = get_cfg_default()  # never extended
    cfg.DATASET.NAME = "EuroSAT"
    assert dataset_template(cfg) == "a centered satellite photo of {}."
