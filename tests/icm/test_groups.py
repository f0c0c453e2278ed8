"""What is held out together: each domain, or a fair share of the images for each kind."""

from __future__ import annotations

import hashlib

import pytest

from causalclip.icm.captions import CaptionedImage
from causalclip.icm.groups import KIND_GROUPS, Sample, grouped
from causalclip.icm.interventions import IMAGE_KINDS, ImageIntervention, ImageInterventionParams


def samples(domains: list[int]) -> list[Sample]:
    return [Sample(f"/data/{i}.png", f"{i}.png", i % 3, d) for i, d in enumerate(domains)]


def test_domains_are_groups_in_the_order_of_their_numbers_and_of_the_list_inside():
    groups = grouped(samples([2, 0, 2, 0, 5]), domain_names=["ink", "chalk", "neon"], seed=0)
    assert [group.name for group in groups] == ["ink", "neon", "domain 5"]
    assert groups[1].paths == ["/data/0.png", "/data/2.png"]
    assert groups[1].labels == [0, 2]
    assert all(group.intervention.kinds == IMAGE_KINDS for group in groups)
    assert not any(group.held_changed for group in groups)


def test_a_single_domain_is_dealt_out_to_the_kinds_whatever_its_order():
    items = samples([0] * 11)
    groups = grouped(items, domain_names=["ink"], seed=3)
    assert [group.intervention.kinds for group in groups] == list(KIND_GROUPS)
    assert [len(group.samples) for group in groups] == [4, 4, 3]
    assert all(group.held_changed for group in groups)
    assert grouped(items[::-1], domain_names=["ink"], seed=3) == groups
    # The published order of a hash, written out.
    dealt = sorted(items, key=lambda s: hashlib.sha256(f"3\0{s.key}".encode()).digest()[:8])
    assert [list(group.samples) for group in groups] == [dealt[i::3] for i in range(3)]


def test_the_intervention_asked_for_is_every_groups():
    mild = ImageIntervention(ImageInterventionParams().scaled(0.5), ("blur", "invert", "jitter"))
    (whole, _) = grouped(samples([0, 1]), domain_names=[], seed=0, intervention=mild)
    assert whole.intervention == mild
    kinds = grouped(samples([0] * 9), domain_names=[], seed=0, intervention=mild)
    assert [group.intervention.kinds for group in kinds] == [("jitter",), ("blur",), ("invert",)]
    assert all(group.intervention.params == mild.params for group in kinds)


def test_kinds_of_one_group_are_held_out_one_by_one_and_a_single_kind_cannot_be():
    bright = ImageIntervention(kinds=("solarize", "invert"))
    groups = grouped(samples([0] * 4), domain_names=[], seed=0, intervention=bright)
    assert [group.name for group in groups] == ["invert", "solarize"]
    with pytest.raises(ValueError, match="two kinds of intervention or more.*got blur"):
        alone = ImageIntervention(kinds=("blur",))
        grouped(samples([0] * 4), domain_names=[], seed=0, intervention=alone)


def test_a_kind_without_an_image_is_no_group():
    groups = grouped(samples([0, 0]), domain_names=[], seed=0)
    assert [group.name for group in groups] == ["jitter+grayscale", "blur+posterize"]


def test_a_group_takes_the_captions_of_its_own_images():
    group = grouped(samples([0, 1, 0]), domain_names=[], seed=0)[0]
    rows = [CaptionedImage(f"{i}.png", "a", ("b",)) for i in (2, 1, 0)]
    assert group.captioned(rows) == [rows[0], rows[2]]
