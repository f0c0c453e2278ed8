"""The catalogue: one row a data set, without anything heavy behind it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY

from causalclip import plugin
from causalclip.data.catalogue import (
    BUNDLED,
    CATALOGUE,
    DASSL_TEMPLATES,
    dataset_template,
    facts_from,
    facts_of,
    sets_of,
    template_for,
)
from causalclip.data.rendering import DIGIT_DOMAINS, LOOKS, SHAPES, STYLES

ROOT = Path(__file__).parents[2]


RECOGNITION = (
    "caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft sun397 dtd eurosat "
    "ucf101"
)
DOMAINS = "pacs vlcs office_home terra_incognita domain_net"


@pytest.mark.parametrize(
    ("protocols", "sets"),
    [
        ("base2new fewshot", f"imagenet {RECOGNITION}"),
        ("xd", RECOGNITION),
        ("dg", "imagenetv2 imagenet_sketch imagenet_a imagenet_r"),
        ("lodo openclass", " ".join(f"domainbed_{name}" for name in DOMAINS.split())),
    ],
)
def test_published_protocols_test_on_their_published_sets_in_order(protocols, sets):
    for name in protocols.split():
        assert sets_of(name) == sets.split()


def test_an_unknown_protocol_is_answered_with_the_known():
    with pytest.raises(ValueError, match="one of base2new, fewshot, xd, dg, lodo, .* got 'base'"):
        sets_of("base")


@pytest.mark.parametrize("facts", CATALOGUE.values(), ids=lambda facts: facts.name)
def test_a_row_and_its_configuration_name_a_registered_set(facts):
    plugin.register_all()
    assert facts.name in DATASET_REGISTRY.registered_names()
    yaml = (ROOT / "configs" / "datasets" / f"{facts.config}.yaml").read_text()
    assert re.search(r'NAME: "(\w+)"', yaml)[1] == facts.name


@pytest.mark.parametrize("facts", BUNDLED, ids=lambda facts: facts.name)
def test_rows_of_drawn_sets_say_what_is_drawn(facts):
    drawn = STYLES if facts.name == "CausalShapes" else DIGIT_DOMAINS
    assert facts.domains == drawn
    assert set(facts.looks) <= {*drawn, "scan"} and "scan" in LOOKS
    assert facts.classes == len(SHAPES) == 10


def test_a_set_in_dassls_tree_is_found_and_an_absent_one_is_not(tmp_path):
    facts = facts_of("DomainBedOfficeHome")
    assert facts.find(tmp_path) is None
    (tmp_path / "office_home_dg").mkdir()
    assert facts.find(tmp_path) == tmp_path / "office_home_dg"
    (tmp_path / "office_home").mkdir()  # DomainBed's own comes first
    assert facts.find(tmp_path) == tmp_path / "office_home"


def test_the_list_of_data_sets_needs_no_torch_and_no_dassl():
    code = (
        "import sys; from causalclip.data.command import main; main(['list']);"
        "sys.exit(', '.join({'torch', 'dassl', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip() == "" and "CausalShapes" in done.stdout


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"folder": "a", "classes": 2, "licens": "MIT"}, "Mine: .* argument 'licens'"),
        ({"folder": "a"}, "Mine: .* argument: 'classes'"),
        ({"folder": "a", "classes": 2, "layout": "zip"}, "layout must be split, .* got 'zip'"),
        ({"folder": "a", "classes": 2, "downloads": [{"urls": "x"}]}, "Mine: .* argument 'urls'"),
    ],
)
def test_a_row_that_says_what_no_set_can_is_refused(row, message):
    with pytest.raises(ValueError, match=rf"catalogue.yaml, .*{message}"):
        facts_from("Mine", row)


def test_every_set_is_known_by_its_configuration_too():
    assert facts_of("dtd") is facts_of("DescribableTextures") is facts_of("describabletextures")
    with pytest.raises(ValueError, match="must be one of ImageNet, Caltech101, .* got 'MNIST'"):
        facts_of("MNIST")


def test_every_configuration_of_a_real_set_is_in_the_catalogue():
    folder = ROOT / "configs" / "datasets"
    assert {path.stem for path in folder.glob("*.yaml")} == {f.config for f in CATALOGUE.values()}


# Templates


def test_every_template_has_one_place_for_the_name():
    rows = [facts.template for facts in CATALOGUE.values()]
    assert all(text.count("{}") == 1 for text in (*rows, *DASSL_TEMPLATES.values()))


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("a photo of a {}, a type of pet.", ["OxfordPets"]),
        ("{} texture.", ["DescribableTextures"]),
        ("a centered satellite photo of {}.", ["EuroSAT"]),
        ("a photo of a person doing {}.", ["UCF101"]),
        ("a photo of {}, a type of food.", ["Food101"]),
        ("a photo of a {}, a type of flower.", ["OxfordFlowers"]),
        ("a photo of a {}, a type of aircraft.", ["FGVCAircraft"]),
        ("a photo of the number {}.", ["HandwrittenDigits", "ColouredDigits", "DigitsDG"]),
        ("a photo of a {}.", ["ImageNetSketch", "DomainBedTerraIncognita", "VLCS", "my own"]),
    ],
)
def test_data_sets_have_their_published_template_or_the_default(template, names):
    assert {template_for(name) for name in names} == {template}


def test_the_settings_come_before_the_method_and_the_method_before_the_data_set():
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.DATASET.NAME = "OxfordPets"
    own = {"OxfordPets": "a pet: {}."}
    assert dataset_template(cfg) == "a photo of a {}, a type of pet."
    assert dataset_template(cfg, own) == "a pet: {}."
    cfg.DATASET.TEMPLATE = "my {}"
    assert dataset_template(cfg, own) == dataset_template(cfg) == "my {}"
    cfg = get_cfg_default()  # never extended
    cfg.DATASET.NAME = "EuroSAT"
    assert dataset_template(cfg) == "a centered satellite photo of {}."
