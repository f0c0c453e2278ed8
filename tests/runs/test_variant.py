"""The readable name of settings that were given in addition to a recipe."""

from __future__ import annotations

import pytest

from causalclip.records.identity import counted_value
from causalclip.runs.plan import LONGEST, plan, variant_name
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.request import Request

KNOWN = {"OPTIM.LR": 0.002, "INPUT.SIZE": [224, 224]}


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        (["TRAINER.CDC.N_TEMPLATES", "2"], "N_TEMPLATES=2"),
        (["OPTIM.LR", "2e-3", "DATALOADER.NUM_WORKERS", "0", "INPUT.SIZE", "(224, 224)"], ""),
        (["OPTIM.LR", "1", "OPTIM.LR", "0.1"], "LR=0.1"),
        (["MODEL.BACKBONE.NAME", "/a/b/mine.pt"], "BACKBONE=mine"),
        (["A.X", "1", "B.X", "2"], "A.X=1,B.X=2"),
        (["INPUT.TRANSFORMS", "['a', \"b/c\"]"], "TRANSFORMS=c"),
    ],
)
def test_settings_that_differ_from_the_recipe_are_named(pairs, name):
    assert variant_name(pairs, KNOWN) == name


def test_a_file_of_the_content_that_the_recipe_names_is_no_variant(tmp_path):
    file, key = tmp_path / "projection.safetensors", "TRAINER.CDC.PROJECTION"
    file.write_bytes(b"one")
    known = {key: counted_value(key, str(file))}
    assert variant_name([key, str(file)], known) == ""
    file.write_bytes(b"another")
    assert variant_name([key, str(file)], known) == "PROJECTION=projection"


def test_a_long_name_ends_in_a_digest():
    pairs = [["TRAINER.COOP.CTX_INIT", f"{'long ' * 200}{end}"] for end in "ab"]
    names = {variant_name(pair, {}) for pair in pairs}
    assert len(names) == 2
    assert all(len(name.encode()) <= LONGEST and name.startswith("CTX_INIT=lo") for name in names)


def test_the_suffix_is_in_the_folder_of_the_training_and_of_its_test():
    settings = ("TRAINER.CDC.N_TEMPLATES", "2")
    request = Request(PROTOCOLS["base2new"], ("CDC",), ("handwritten_digits",), settings=settings)
    train, test = plan(request, list)
    assert train.folder.parent.name == test.folder.parent.name == "tiny_m4,N_TEMPLATES=2"
    assert test.trained == train.folder
