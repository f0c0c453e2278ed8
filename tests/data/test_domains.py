"""datasets/domains.py: DomainBed's protocol, in DomainBed's and in Dassl's trees."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import replicas

from causalclip.datasets.domains import split_environment

GOLDEN = json.loads(Path(__file__).with_name("golden_domainbed.json").read_text())["held_out"]
DOMAINS = ["art", "cartoon", "photo"]
CLASSES = ["dog", "elephant", "giraffe", "guitar", "horse"]
CASE = {"SOURCE_DOMAINS": ["cartoon", "photo"], "TARGET_DOMAINS": ["art"]}


@pytest.mark.parametrize("case", GOLDEN)
def test_held_out_images_are_domainbeds(case):
    count, trial, environment = map(int, case.split())
    held, kept = split_environment(count, trial, environment)
    assert held == GOLDEN[case]
    assert sorted(held + kept) == list(range(count))


@pytest.fixture
def pacs(tmp_path):
    replicas.domains(tmp_path / "PACS", DOMAINS, CLASSES)
    return tmp_path


def of_domain(items, domain):
    return [i for i in items if f"/{domain}/" in i.impath]


def paths(items):
    return {item.impath for item in items}


def test_sources_are_split_80_20_and_the_target_is_tested_whole(load, pacs):
    dataset = load("DomainBedPACS", pacs, **CASE)
    everything = {str(p) for p in (pacs / "PACS").rglob("*.jpg")}
    target = {p for p in everything if "/art/" in p}
    assert paths(dataset.train_x) | paths(dataset.val) == everything - target
    assert not paths(dataset.train_x) & paths(dataset.val)
    assert len(of_domain(dataset.val, "photo")) == 60 // 5
    assert paths(dataset.test) == target
    assert dataset.heldout_test < target and len(dataset.heldout_test) == 60 // 5
    # numbered sources first and the target after
    assert {i.domain for i in of_domain(dataset.train_x, "cartoon")} == {0}
    assert {i.domain for i in of_domain(dataset.val, "photo")} == {1}
    assert {i.domain for i in dataset.test} == {2}


def test_what_is_held_out_of_a_domain_is_the_same_as_source_and_as_target(load, pacs):
    as_source = load("DomainBedPACS", pacs, **CASE)
    turned = {"SOURCE_DOMAINS": ["art"], "TARGET_DOMAINS": ["photo"]}
    as_target = load("DomainBedPACS", pacs, **turned)
    assert as_target.heldout_test == paths(of_domain(as_source.val, "photo"))


def test_the_split_depends_on_the_trial_and_on_no_other_seed(load, pacs):
    first = load("DomainBedPACS", pacs, seed=1, **CASE)
    random.seed(99)
    np.random.seed(99)
    assert paths(load("DomainBedPACS", pacs, seed=2, **CASE).val) == paths(first.val)
    assert paths(load("DomainBedPACS", pacs, TRIAL_SEED=1, **CASE).val) != paths(first.val)


def published_held_out(count, base_keys, labels, environment):
    """The published open-class split, step by step: base and open images are shuffled apart."""
    held = []
    for name, wanted in (("base", True), ("open", False)):
        keys = [i for i in range(count) if (labels[i] in base_keys) == wanted]
        seed = int(hashlib.md5(str((0, environment, name)).encode()).hexdigest(), 16) % (2**31)
        order = list(range(len(keys)))
        np.random.RandomState(seed).shuffle(order)
        held += [keys[i] for i in order[: int(len(keys) * 0.2)]]
    return held


def test_base_and_open_classes_can_be_split_apart_as_in_the_published_code(load, pacs):
    options = {**CASE, "HOLDOUT_WITHIN": "halves", "SUBSAMPLE_ROUNDING": "floor"}
    dataset = load("DomainBedPACS", pacs, **options)
    for environment, domain in enumerate(DOMAINS):
        files = [p for c in CLASSES for p in sorted((pacs / "PACS" / domain / c).iterdir())]
        labels = [CLASSES.index(file.parent.name) for file in files]
        expected = published_held_out(len(files), {0, 1}, labels, environment)
        held = dataset.heldout_test if domain == "art" else paths(of_domain(dataset.val, domain))
        assert held == {str(files[i]) for i in expected}
    whole = load("DomainBedPACS", pacs, **CASE)
    assert paths(whole.val) != paths(dataset.val)
    with pytest.raises(ValueError, match="WITHIN must be 'domain' or 'halves', got 'class'"):
        load("DomainBedPACS", pacs, **CASE, HOLDOUT_WITHIN="class")


def test_few_shot_sets_are_drawn_from_the_sources_and_leave_no_folder_behind(load, pacs, cache):
    dataset = load("DomainBedPACS", pacs, NUM_SHOTS=3, **CASE)
    assert len(dataset.train_x) == 15 and len(dataset.val) == 15 and len(dataset.test) == 60
    assert sorted(os.listdir(pacs / "PACS")) == DOMAINS  # DomainBed counts every folder as one
    assert len(list(cache.rglob("causalclip_shot_3-seed_1.json"))) == 1
    again = load("DomainBedPACS", pacs, NUM_SHOTS=3, **CASE)
    assert [i.impath for i in again.train_x] == [i.impath for i in dataset.train_x]


def test_base_and_new_classes_restrict_training_names_and_test(load, pacs):
    base = load("DomainBedPACS", pacs, SUBSAMPLE_CLASSES="base", **CASE)
    new = load("DomainBedPACS", pacs, SUBSAMPLE_CLASSES="new", **CASE)
    assert base.classnames == CLASSES[:3] and new.classnames == CLASSES[3:]
    assert {i.label for i in base.test} == {0, 1, 2} and {i.label for i in new.test} == {0, 1}


def test_real_pacs_has_seven_classes_of_thirty_images_a_domain(load, real_images):
    dataset = load(
        "DomainBedPACS",
        real_images,
        SOURCE_DOMAINS=["art_painting", "cartoon", "photo"],
        TARGET_DOMAINS=["sketch"],
    )
    assert dataset.classnames == "dog elephant giraffe guitar horse house person".split()
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (504, 126, 210)


# The other sets of DomainBed, and Dassl's trees of the same images


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("TerraIncognita", "terra_incognita"),
        ("DomainNet", "domain_net"),
        ("PACS", "pacs/images"),  # Dassl's
    ],
)
def test_a_tree_of_domains_and_classes_is_read(load, tmp_path, name, folder):
    replicas.domains(tmp_path / folder, DOMAINS, CLASSES)
    dataset = load(f"DomainBed{name}", tmp_path, **CASE)
    assert dataset.domains == DOMAINS and len(dataset.test) == 60


def test_dassls_vlcs_tree_is_merged_and_its_numbers_get_names(load, tmp_path):
    for domain in ("CALTECH", "SUN"):
        for part, count in (("train", 5), ("crossval", 3), ("test", 2), ("full", 10)):
            for label in range(5):
                folder = tmp_path / "VLCS" / domain / part / str(label)
                replicas.put_images(folder, (f"{part}_{n}.jpg" for n in range(count)))
    case = {"SOURCE_DOMAINS": ["CALTECH"], "TARGET_DOMAINS": ["SUN"]}
    dataset = load("DomainBedVLCS", tmp_path, **case)
    assert dataset.classnames == ["bird", "car", "chair", "dog", "person"]
    assert len(dataset.test) == 50 and not [i for i in dataset.test if "/full/" in i.impath]


def test_dassls_office_home_tree_is_read(load, tmp_path):
    for part in ("train", "val"):
        for domain in ("art", "real_world"):
            replicas.domains(tmp_path / "office_home_dg" / domain, [part], ["Bed", "Mug"])
    case = {"SOURCE_DOMAINS": ["art"], "TARGET_DOMAINS": ["real_world"]}
    dataset = load("DomainBedOfficeHome", tmp_path, **case)
    assert dataset.classnames == ["Bed", "Mug"] and len(dataset.test) == 42


def test_your_own_domains_need_a_path_only(load, tmp_path):
    replicas.domains(tmp_path / "mine", DOMAINS, CLASSES)
    (domain, *_), (name, *_) = DOMAINS, CLASSES
    for stray in ("__MACOSX/x", f"{domain}/__MACOSX/x", f"{domain}/{name}/.ipynb_checkpoints"):
        replicas.put(tmp_path / "mine" / stray / "a.jpg")
    replicas.put(tmp_path / "mine" / domain / name / "notes.txt")
    dataset = load("DomainFolder", tmp_path, PATH="mine", **CASE)
    assert dataset.classnames == CLASSES and len(dataset.test) == 60
    first = [
        f"{domain}/{name}/.ipynb_checkpoints: hidden",
        f"{domain}/{name}/notes.txt: not a picture's suffix",
    ]
    assert dataset.left_out == {"count": 2, "first": first}


def test_formats_of_your_own_domains_that_pillow_cannot_read_are_named(load, tmp_path):
    for domain in DOMAINS:
        replicas.put_images(tmp_path / "mine" / domain / "cat", ["1.jpg"])
        replicas.put_images(tmp_path / "mine" / domain / "dog", ["1.heic"])
    with pytest.raises(ValueError, match="1 have none: dog; it holds 3 .heic; Pillow reads"):
        load("DomainFolder", tmp_path, PATH="mine", **CASE)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SOURCE_DOMAINS": ["sketch"]}, "SOURCE_DOMAINS must be among art, cartoon, photo .* got"),
        ({"TARGET_DOMAINS": ["Art"]}, "TARGET_DOMAINS must be among art, .* got 'Art'"),
        ({"TARGET_DOMAINS": ["photo"]}, "target domain must not be among the sources, got photo"),
        ({"SOURCE_DOMAINS": []}, "SOURCE_DOMAINS must name one or more of art, cartoon, photo"),
        ({"SOURCE_DOMAINS": ["photo", "photo"]}, "SOURCE_DOMAINS must name a domain once"),
        ({"SUBSAMPLE_CLASSES": "half"}, "must be 'all', 'base' or 'new', got 'half'"),
    ],
)
def test_bad_settings_are_refused(load, pacs, change, message):
    with pytest.raises(ValueError, match=message):
        load("DomainBedPACS", pacs, **{**CASE, **change})


def test_a_class_without_a_source_image_is_named(load, pacs):
    replicas.put(pacs / "PACS" / "art" / "zebra" / "a.jpg")
    with pytest.raises(ValueError, match="image in the source domains, 1 have none: zebra"):
        load("DomainBedPACS", pacs, **CASE)


def test_a_class_folder_that_is_no_utf8_is_named(load, pacs):
    folder = os.fsencode(pacs / "PACS" / "photo") + b"/caf\xe9"
    os.mkdir(folder)
    with pytest.raises(ValueError, match=r"must be valid UTF-8, got b'caf\\xe9'"):
        load("DomainBedPACS", pacs, **CASE)


def test_a_missing_set_lists_what_the_root_holds(load, pacs):
    with pytest.raises(FileNotFoundError, match="must hold the folder office_home/, .* PACS"):
        load("DomainBedOfficeHome", pacs, **CASE)
