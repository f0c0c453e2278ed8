"""Protocols as data: their parts, the cells of their tables, and the runs made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from causalclip.errors import UserError
from causalclip.runs.plan import plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.request import Request, check

LODO = Request(PROTOCOLS["lodo"], methods=("CoOp",), datasets=("causal_shapes",))


def value(arguments, flag):
    return arguments[arguments.index(flag) + 1]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda p: p.name)
def test_no_two_runs_share_a_folder_and_each_says_its_protocol_and_tests_an_earlier_one(protocol):
    datasets = ("caltech101", "dtd") if not protocol.only else ("imagenet_a", "imagenet_r")
    request = Request(protocol, ("CoOp", "CDC"), datasets, seeds=("1", "2"), shots=("1", "16"))
    runs = plan(request, lambda name: ["art", "photo"])
    before = set()
    for run in runs:
        said = value(run.arguments, "--protocol")
        assert said == ("xd" if protocol.name == "dg" and run.part == "train" else protocol.name)
        assert value(run.arguments, "--part") == run.part
        assert run.folder not in before and run.trained in {None, *before}
        before.add(run.folder)


def test_a_source_is_trained_once_for_all_its_targets():
    request = Request(PROTOCOLS["xd"], ("CoOp",), ("dtd", "eurosat"))
    assert [run.part for run in plan(request, list)] == ["train", "test", "test"]


def test_all_images_are_no_number_of_shots():
    (first, *_) = plan(LODO, lambda name: ["flat", "neon"])
    assert "shots_all" in str(first.folder)
    assert value(first.arguments, "DATASET.NUM_SHOTS") == "-1"
    (first, *_) = plan(replace(LODO, shots=("16",)), lambda name: ["flat", "neon"])
    assert value(first.arguments, "DATASET.NUM_SHOTS") == "16"


def test_a_value_may_name_the_domain_that_is_left_out_and_the_seed():
    settings = ("TRAINER.COOP.PROJECTION", "icm/{target}/seed{seed}/projection.safetensors")
    first, second = plan(replace(LODO, settings=settings), lambda name: ["flat", "neon"])
    assert value(first.arguments, settings[0]) == "icm/flat/seed1/projection.safetensors"
    assert value(second.arguments, settings[0]) == "icm/neon/seed1/projection.safetensors"
    assert first.folder.parent.name.endswith("PROJECTION=projection")


def test_a_linear_probe_of_imagenet_is_tested_on_the_variants_with_its_classes():
    request = Request(PROTOCOLS["dg"], ("LinearProbe",), ("imagenetv2", "imagenet_sketch"))
    check(request)
    with pytest.raises(UserError, match="LinearProbe cannot name the classes of dg"):
        check(replace(request, datasets=("imagenetv2", "imagenet_a")))


@pytest.mark.parametrize(
    ("method", "setting"),
    [("CoOp", "COOP:\n    CSC: True"), ("CLIP_ICM", "CLIP_ICM:\n    HEAD: linear_probe")],
)
def test_a_recipe_of_ones_own_whose_numbers_are_of_the_trained_classes_is_refused_for_others(
    method, setting, tmp_path
):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"MODEL: {{BACKBONE: {{NAME: tiny}}}}\nTRAINER:\n  {setting}\n")
    request = Request(PROTOCOLS["base2new"], (method,), ("dtd",), recipe=str(mine))
    with pytest.raises(UserError, match=f"{method} cannot name the classes"):
        check(request)
    check(replace(request, parts=("train_base",)))


def test_a_plan_is_relative_where_its_folders_are():
    (first, *_) = plan(replace(LODO, output=Path("here")), lambda name: ["flat", "neon"])
    assert value(first.arguments, "--output-dir").startswith("here/lodo/")
