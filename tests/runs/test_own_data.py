"""Every protocol takes data sets, CLIPs and recipes of the user's own, by folder, table or file."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from causalclip import cli
from causalclip.errors import UserError
from causalclip.report.summarize import main as summarize
from causalclip.runs.backbones import fitted, named_backbone
from causalclip.runs.configuration import cfg_from, planned_settings
from causalclip.runs.perform import planned, with_own
from causalclip.runs.plan import recipe_notes
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import CONFIGS, choose_recipe, methods, names
from causalclip.runs.request import Request
from causalclip.runs.train import main as train

CELL = ("base2new", "photos", "16")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder with four classes in photos/, the same in domains/, and pets.csv."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)
    random = np.random.default_rng(0)
    rows = ["path,split,classname,domain"]
    for name in ("cat", "dog", "emu", "fox"):
        for i in range(6):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            for place in (f"photos/{name}", f"domains/ink/{name}", f"domains/oil/{name}"):
                os.makedirs(place, exist_ok=True)
                Image.fromarray(pixels).save(f"{place}/{i}.png")
            split = ("train", "val", "test")[i % 3]
            rows.append(f"photos/{name}/{i}.png,{split},{name},{'ab'[i // 3]}")
    (tmp_path / "pets.csv").write_text("\n".join(rows))
    (tmp_path / "mine.yaml").write_text("DATASET: {NAME: DomainFolder, PATH: domains, ROOT: .}")
    return tmp_path


def asked(protocol, *datasets, backbone="", **fields):
    fields = {"methods": ("ZeroshotCLIP",), "shots": ("2",), **fields}
    return with_own(Request(PROTOCOLS[protocol], datasets=datasets, **fields), backbone)


@pytest.mark.parametrize("method", methods())
def test_the_tiny_recipe_of_every_method_has_one_name(method):
    choice = choose_recipe(method, "tiny", CELL)
    assert choice.file is not None and choice.file.is_file()
    assert cfg_from([choice.file], ()).MODEL.BACKBONE.NAME == "tiny"


@pytest.mark.parametrize(
    ("model", "recipe"), [("tiny-coloured", "tiny"), ("RN50", "vit_b16"), ("ViT-L/14", "vit_b16")]
)
def test_without_a_name_the_recipe_is_the_nearest_to_the_backbone(model, recipe, random_clip):
    assert choose_recipe("ZeroshotCLIP", "", CELL, model=model).name == recipe
    choice = choose_recipe("ZeroshotCLIP", "", CELL, model=random_clip)
    assert choice.name == "tiny"
    assert choice.reason == (
        "the nearest to random.safetensors: 32 x 32 pixels, text width 64, 2 text and 2 image "
        "blocks"
    )


def test_image_size_and_depth_are_those_of_the_backbone(random_clip):
    backbone = named_backbone(random_clip)
    published = {
        "MaPLe": {"TRAINER.MAPLE.PROMPT_DEPTH": 2},  # 9 of 12 blocks, here of 2
        "MMRL": {"TRAINER.MMRL.REP_LAYERS": [1, 2]},  # 6 to 12 of 12
        "CoOp": {},
    }
    for method, depths in published.items():
        choice = choose_recipe(method, "published", CELL)
        pairs = fitted(backbone, method, choice.file)
        assert pairs == {"MODEL.BACKBONE.NAME": random_clip, "INPUT.SIZE": (32, 32), **depths}


def test_a_packaged_backbone_changes_nothing_and_a_yaml_keeps_what_it_says(tmp_path, random_clip):
    recipe = CONFIGS / "trainers/CoOp/vit_b16.yaml"
    for name in names("backbones"):
        assert fitted(named_backbone(name), "CoOp", recipe) == {}
    assert named_backbone("ViT-L/14").name == "vit_l14"
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"MODEL: {{BACKBONE: {{NAME: {random_clip}}}}}\nINPUT: {{SIZE: [8, 8]}}")
    assert fitted(named_backbone(str(mine)), "CoOp", recipe) == {}
    mine.write_text("INPUT: {SIZE: [8, 8]}")
    with pytest.raises(UserError, match="mine.yaml must name a CLIP"):
        named_backbone(str(mine))


def test_folders_and_settings_are_those_of_the_own_set(here, random_clip):
    request = asked("fewshot", "photos", "pets.csv", "mine.yaml", "dtd", backbone=random_clip)
    runs = planned(request, dry=True)
    assert [run.folder.as_posix() for run in runs] == [
        f"output/random/{name}/ZeroshotCLIP/tiny_2shots/seed1"
        for name in ("photos", "pets", "mine", "dtd")
    ]
    kinds = [planned_settings(run.arguments)["DATASET.NAME"] for run in runs]
    assert kinds == ["ImageFolder", "Table", "DomainFolder", "DescribableTextures"]
    (note,) = recipe_notes(request)
    assert note.startswith("recipe of ZeroshotCLIP: tiny, the nearest to random.safetensors: 32 x")


def test_domains_of_folders_and_tables_are_left_out_in_turn(here, random_clip):
    runs = planned(asked("lodo", "domains", "pets.csv", backbone=random_clip))
    assert [run.folder.parts[-4] for run in runs] == ["ink", "oil", "a", "b"]
    with pytest.raises(ValueError, match="ImageFolder has no domains"):
        planned(asked("lodo", "photos", backbone=random_clip))


def test_open_classes_of_an_own_folder_end_in_a_table_of_its_name(here, random_clip, capsys):
    for run in planned(asked("openclass", "./domains", backbone=random_clip)):
        assert train([*run.arguments, "USE_CUDA", "False"]) == 0
    assert summarize(["output"]) == 0
    out = capsys.readouterr().out
    assert "Open class: domains, 2 shots" in out


def test_a_recipe_may_be_a_file_and_names_the_folder(here, random_clip):
    (here / "slow.yaml").write_text("OPTIM: {MAX_EPOCH: 3}")
    (run, *_) = planned(asked("base2new", "photos", backbone=random_clip, recipe="slow.yaml"))
    assert "/slow/" in run.folder.as_posix()
    assert planned_settings(run.arguments)["OPTIM.MAX_EPOCH"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos", "other/photos"], "two data sets are called photos: "),
        (["./dtd"], "dtd has the name of a registered data set: rename it"),
        (["empty"], "must hold CLASS/IMAGE, {train,test}/CLASS/IMAGE or DOMAIN/CLASS/IMAGE, found"),
        (["bad.csv"], "bad.csv lacks the column split and classname or label"),
        (["bad.yaml"], "bad.yaml: no setting DATASET.NAMEE; did you mean DATASET.NAME"),
        (["photos", "OPTIM.MAX_EPOCHS", "5"], "no setting OPTIM.MAX_EPOCHS; did you mean"),
        (["photos", "--backbone", "vitb32"], "?; or a file"),
        (["photos", "--backbone", "vitb32"], "did you mean vit_b32"),
        (["photos", "--recipe", "tinny"], "unknown recipe tinny of CoOp; known: tiny published "),
        (["photos", "--backbone", "pets.csv"], "pets.csv"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(words, said, here, capsys):
    (here / "bad.csv").write_text("path,kind\n")
    (here / "bad.yaml").write_text("DATASET: {NAMEE: ImageFolder}")
    (here / "empty").mkdir()
    for place in ("other/photos", "dtd"):
        (here / place / "cat").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(here / place / "cat" / "a.png")
    assert cli.main(["run", "base2new", "--methods", "CoOp", "--datasets", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (here / "output").exists()
