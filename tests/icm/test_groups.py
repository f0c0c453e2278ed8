"""Held-out groups: each domain, or an equal share of the images for each group of kinds."""

from __future__ import annotations

import hashlib

import pytest

from causalclip.icm.groups import KIND_GROUPS, Sample, class_parts, grouped, image_parts
from causalclip.icm.interventions import ImageIntervention, ImageInterventionParams


def samples(domains: list[int]) -> list[Sample]:
    return [Sample(f"/data/{i}.png", f"{i}.png", i % 3, d) for i, d in enumerate(domains)]


def groups_of(domains, intervention=None, *, names=(), seed=0):
    intervention = intervention or ImageIntervention()
    return grouped(samples(domains), domain_names=names, seed=seed, intervention=intervention)


def test_domains_are_groups_in_the_order_of_their_numbers_and_of_the_list_inside():
    groups = groups_of([2, 0, 2, 0, 5], names=["ink", "chalk", "neon"])
    assert [group.name for group in groups] == ["ink", "neon", "domain 5"]
    assert groups[1].paths == ["/data/0.png", "/data/2.png"]
    assert all(group.intervention == ImageIntervention() for group in groups)
    assert not any(group.held_changed for group in groups)


def test_a_single_domain_is_split_among_the_kinds_whatever_its_order():
    items = samples([0] * 11)
    groups = groups_of([0] * 11, names=["ink"], seed=3)
    assert [group.intervention.kinds for group in groups] == list(KIND_GROUPS)
    assert [len(group.samples) for group in groups] == [4, 4, 3]
    assert all(group.held_changed for group in groups)
    turned = grouped(items[::-1], domain_names=["ink"], seed=3, intervention=ImageIntervention())
    assert turned == groups
    # The order of a hash, written out.
    order = sorted(items, key=lambda s: hashlib.sha256(f"3\0{s.key}".encode()).digest()[:8])
    assert [list(group.samples) for group in groups] == [order[i::3] for i in range(3)]


@pytest.mark.parametrize(
    ("kinds", "images", "names"),
    [
        (("blur", "invert", "jitter"), 9, ["jitter", "blur", "invert"]),
        (("solarize", "invert"), 4, ["invert", "solarize"]),  # of one group: each by itself
        (ImageIntervention().kinds, 2, ["jitter+grayscale", "blur+posterize"]),  # none left over
    ],
)
def test_a_group_has_the_kinds_of_its_name_at_the_given_strengths(kinds, images, names):
    mild = ImageIntervention(ImageInterventionParams().scaled(0.5), kinds)
    groups = groups_of([0] * images, mild)
    assert [group.name for group in groups] == names
    assert ["+".join(group.intervention.kinds) for group in groups] == names
    assert all(group.intervention.params == mild.params for group in groups)


def test_a_single_kind_cannot_be_held_out():
    with pytest.raises(ValueError, match="two kinds of intervention or more.*got blur"):
        groups_of([0] * 4, ImageIntervention(kinds=("blur",)))


def test_parts_of_the_images_share_each_class_equally_whatever_the_order():
    items = [Sample(f"{i}", f"{i}", i % 5, 0) for i in range(80)]
    parts = image_parts(items, seed=3)
    assert sorted(row for part in parts for row in part) == list(range(80))
    for part in parts:
        assert sorted(items[row].label for row in part) == sorted([0, 1, 2, 3, 4] * 4)
    turned = image_parts(items[::-1], seed=3)
    assert [[items[::-1][row] for row in part] for part in turned] == [
        [items[row] for row in part] for part in parts
    ]
    assert image_parts(items, seed=4) != parts
    assert [len(part) for part in image_parts(items[:3], seed=0)] == [1, 1, 1]


def test_groups_of_classes_share_no_class():
    items = [Sample(f"{i}", f"{i}", 2 * (i % 5), 0) for i in range(13)]
    parts = class_parts(items, 2)
    assert sorted(row for part in parts for row in part) == list(range(13))
    assert [{items[row].label for row in part} for part in parts] == [{0, 4, 8}, {2, 6}]
