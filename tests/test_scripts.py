"""The protocol scripts: their commands and output folders, and a real run of some."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from causalclip.data.catalogue import CATALOGUE
from causalclip.records.identity import Identity, write_run
from causalclip.runs import flags, scripts
from causalclip.runs.configuration import planned_settings
from causalclip.runs.worker import Outcome

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
PROTOCOLS = ("base2new", "xd", "dg", "fewshot", "lodo", "openclass")
# Each script with complete, correct arguments.
CALLS = {
    "base2new_train.sh": ["CoOp", "caltech101", "1"],
    "base2new_test.sh": ["CoOp", "caltech101", "1"],
    "xd_train.sh": ["CoOp", "1"],
    "xd_test.sh": ["CoOp", "caltech101", "1"],
    "dg_test.sh": ["CoOp", "imagenet_a", "1"],
    "fewshot.sh": ["CoOp", "caltech101"],
    "lodo.sh": ["CoOp", "domainbed_pacs"],
    "openclass.sh": ["CoOp", "domainbed_pacs"],
    "reproduce.sh": ["CoOp", "base2new"],
}


def run(script, *arguments, cwd=ROOT, **environment) -> subprocess.CompletedProcess:
    """Run a script without the caller's settings in its environment."""
    ours = ("DATA", "CFG", "SHOTS", "SEEDS", "SOURCE", "LOADEP", "BACKBONE", "DATASETS", "TABLE")
    clean = {key: value for key, value in os.environ.items() if key not in ours}
    path = os.pathsep.join([str(Path(sys.executable).parent), clean["PATH"]])
    environment = {**clean, "VIRTUAL_ENV": sys.prefix, "PATH": path, **environment}
    command = ["bash", str(SCRIPTS / script), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def refused(capsys):
    """A function like `run` for wrong calls, without a shell; it returns the error message."""

    def call(script, *arguments, **environment):
        assert scripts.main([script.removesuffix(".sh"), *arguments], environment) == 2
        return capsys.readouterr().err

    return call


@pytest.fixture
def stubbed(tmp_path, monkeypatch, capsys):
    """A function like `run` without training; `.calls()` returns the arguments for train.py."""
    calls: list[list[str]] = []

    class Stub:
        """An executor that writes a result without training."""

        places, close, died = (lambda self: 1), (lambda self: None), BrokenExecutor

        def submit(self, function, run, *_):
            calls.append(list(run.arguments))
            run.folder.mkdir(parents=True)
            write_run(run.folder, Identity(planned_settings(run.arguments)), {})
            (run.folder / "results.json").write_text('{"metrics": {"accuracy": 50.0}}')
            future = Future()
            future.set_result(Outcome(run, "finished"))
            return future

    def call(script, *arguments, **environment):
        settings = {"DATA": str(tmp_path), "OUTPUT": str(tmp_path / "out"), "TABLE": "no"}
        status = scripts.main([script.removesuffix(".sh"), *arguments], {**settings, **environment})
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    monkeypatch.setattr(scripts, "LocalPool", lambda **_: Stub())
    monkeypatch.setattr(scripts, "print_table", lambda *folder, **options: 0)
    for facts in CATALOGUE.values():
        for domain in facts.domains or [""]:
            (tmp_path / facts.folder / domain).mkdir(parents=True, exist_ok=True)
    call.calls = lambda: calls
    call.folders = lambda: [
        str(Path(value(arguments, "--output-dir")).relative_to(tmp_path / "out"))
        for arguments in calls
    ]
    return call


def value(arguments: list[str], key: str) -> str:
    """The value after the last occurrence of a flag or a key."""
    return arguments[len(arguments) - arguments[::-1].index(key)]


# Help and mistakes


@pytest.mark.parametrize("script", CALLS)
def test_help_says_usage_and_environment_from_any_folder(script, tmp_path):
    done = run(script, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"bash scripts/{script}" in done.stdout
    assert "Environment: DATA (required)" in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize("script", CALLS)
def test_too_few_arguments_say_the_usage(script):
    done = run(script, CALLS[script][0])
    assert done.returncode == 2
    assert f"{script}: usage: " in done.stderr


@pytest.mark.parametrize("script", CALLS)
def test_without_data_it_is_said_and_how_to_set_it(script, refused):
    assert "Give --data FOLDER, or set DATA" in refused(script, *CALLS[script])


@pytest.mark.parametrize("script", CALLS)
def test_an_unknown_trainer_lists_those_there_are(script, refused, tmp_path):
    said = refused(script, "CoOP", *CALLS[script][1:], DATA=str(tmp_path))
    assert "unknown trainer CoOP; known: " in said
    assert " CoOp " in said


@pytest.mark.parametrize("script", sorted(set(CALLS) - {"xd_train.sh", "dg_test.sh"}))
def test_an_unknown_data_set_comes_with_the_nearest(script, refused, tmp_path):
    trainer, *rest = CALLS[script]
    if script == "reproduce.sh":
        said = refused(script, trainer, *rest, DATA=str(tmp_path), DATASETS="caltech")
    else:
        said = refused(script, trainer, "caltech", *rest[1:], DATA=str(tmp_path))
    assert "no data set, file or folder 'caltech'; did you mean caltech101?" in said


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "said"),
    [
        ("xd_train.sh", ["CoOp", "1"], {"SOURCE": "nowhere"}, "file or folder 'nowhere'"),
        ("xd_test.sh", ["CoOp", "imagenet", "1"], {}, "imagenet is the source itself"),
        ("fewshot.sh", ["CoOp", "dtd", "OPTIM.LR", "1."], {}, "SEEDS must be numbers, got OPTIM"),
        ("xd_test.sh", ["CoOp", "dtd", "1"], {}, "run xd_train.sh first"),
        ("dg_test.sh", ["CoOp", "dtd", "1"], {}, "dtd is no variant of ImageNet: imagenetv2"),
        ("reproduce.sh", ["CoOp", "b2n"], {}, "unknown protocol b2n; known: base2new xd dg"),
        ("reproduce.sh", ["CoOp", "xd"], {"CFG": "mine"}, "unknown recipe mine of CoOp; known: "),
        ("reproduce.sh", ["CoOp", "xd"], {"SEEDS": "1,2"}, "SEEDS must be numbers, got 1,2"),
        ("xd_train.sh", ["CoOp", "OPTIM.LR"], {}, "SEED must be a number, got OPTIM.LR"),
        ("fewshot.sh", ["CoOp", "dtd", "1", "--dry-run"], {}, "KEY VALUE pairs, got --dry-run"),
        ("xd_test.sh", ["CoOp", "dtd", "-1"], {}, "SEED must be a number, got -1"),
        ("base2new_train.sh", ["CoOp", "dtd", "1"], {"SHOTS": "1 2"}, "of images a class, got 1 2"),
        ("base2new_test.sh", ["CoOp", "dtd", "1"], {"SHOTS": "all"}, "of images a class, got all"),
        ("fewshot.sh", ["CoOp", "dtd"], {"SHOTS": "1 0"}, "SHOTS must be a positive number of im"),
        ("openclass.sh", ["CoOp", "domainbed_pacs"], {"SHOTS": "ALL"}, "or all, got ALL"),
        ("lodo.sh", ["CoOp", "domainbed_pacs"], {"BACKBONE": "vit"}, "BACKBONE vit; known: rn50"),
    ],
)
def test_what_cannot_be_run_is_said(script, arguments, environment, said, refused, tmp_path):
    folders = {"DATA": str(tmp_path), "OUTPUT": str(tmp_path)}
    assert said in refused(script, *arguments, **folders, **environment)


# Commands and folders


def test_source_and_targets_lie_where_the_family_has_them(stubbed):
    stubbed("xd_train.sh", "MaPLe", "1", "OPTIM.LR", "0.1")
    stubbed("xd_test.sh", "MaPLe", "dtd", "1", "OPTIM.LR", "0.1", LOADEP="2")
    stubbed("xd_train.sh", "MaPLe", "1")
    stubbed("dg_test.sh", "MaPLe", "imagenet_a", "1")
    cfg = "vit_b16_c2_ep5_batch4_2ctx_cross_datasets"
    assert stubbed.folders() == [
        f"imagenet/MaPLe/{cfg},LR=0.1_16shots/seed1",
        f"evaluation/MaPLe/{cfg},LR=0.1,epoch=2_16shots/dtd/seed1",
        f"imagenet/MaPLe/{cfg}_16shots/seed1",
        f"evaluation/MaPLe/{cfg}_16shots/imagenet_a/seed1",
    ]
    train, cross, *_ = stubbed.calls()
    assert value(train, "--config-file").endswith(f"configs/trainers/MaPLe/{cfg}.yaml")
    assert value(train, "--dataset-config-file").endswith("configs/datasets/imagenet.yaml")
    assert value(train, "DATASET.NUM_SHOTS") == "16"
    assert train[-2:] == ["OPTIM.LR", "0.1"]
    assert value(cross, "--model-dir") == value(train, "--output-dir")
    assert value(cross, "--load-epoch") == "2"
    assert "--eval-only" in cross


def test_another_source_and_backbone_have_folders_of_their_own(stubbed):
    settings = {"SOURCE": "caltech101", "BACKBONE": "vit_b32", "SHOTS": "4"}
    stubbed("xd_train.sh", "CoOp", "2", **settings)
    stubbed("xd_test.sh", "CoOp", "dtd", "2", **settings)
    assert stubbed.folders() == [
        "vit_b32/caltech101/CoOp/vit_b16_ep50_ctxv1_4shots/seed2",
        "vit_b32/evaluation/from_caltech101/CoOp/vit_b16_ep50_ctxv1_4shots/dtd/seed2",
    ]
    assert all(value(c, "--config-file").endswith("vit_b32.yaml") for c in stubbed.calls())


def test_coops_few_shot_runs_have_its_names_and_as_many_epochs_as_published(stubbed):
    stubbed("fewshot.sh", "CoOp", "dtd", "3")
    assert stubbed.folders() == [
        f"dtd/CoOp/{cfg}_{shots}shots/nctx16_cscFalse_ctpend/seed3"
        for cfg, shots in [
            ("vit_b16_ep50", 1),
            ("vit_b16_ep100", 2),
            ("vit_b16_ep100", 4),
            ("vit_b16", 8),
            ("vit_b16", 16),
        ]
    ]
    assert [value(c, "DATASET.NUM_SHOTS") for c in stubbed.calls()] == ["1", "2", "4", "8", "16"]
    assert {planned_settings(tuple(c))["TRAINER.COOP.CSC"] for c in stubbed.calls()} == {False}


def test_a_started_context_has_as_many_words_as_its_start(stubbed):
    stubbed(
        "fewshot.sh", "CoOp", "dtd", "1", CFG="vit_b16_ctxv1", SHOTS="1", CSC="True", CTP="middle"
    )
    assert stubbed.folders() == ["dtd/CoOp/vit_b16_ctxv1_1shots/nctx4_cscTrue_ctpmiddle/seed1"]


@pytest.mark.parametrize(("dataset", "mean"), [("dtd", True), ("caltech101", False)])
def test_promptsrc_weights_its_epochs_as_published_for_fine_grained_sets(stubbed, dataset, mean):
    stubbed("fewshot.sh", "PromptSRC", dataset, "1", SHOTS="1")
    (call,) = stubbed.calls()
    assert ("TRAINER.PROMPTSRC.GPA_MEAN" in call) == mean


def test_seeds_and_shots_come_from_the_environment_or_the_arguments(stubbed):
    stubbed("fewshot.sh", "MaPLe", "dtd", SEEDS="1 2", SHOTS="4")
    stubbed("fewshot.sh", "MaPLe", "dtd", "7", SHOTS="4")
    assert [folder[-5:] for folder in stubbed.folders()] == ["seed1", "seed2", "seed7"]


def test_each_domain_is_left_out_once(stubbed):
    stubbed("lodo.sh", "ZeroshotCLIP", "domainbed_pacs", "1")
    folder = "lodo/domainbed_pacs/shots_all/{}/ZeroshotCLIP/vit_b16/seed1"
    domains = ["art_painting", "cartoon", "photo", "sketch"]
    assert stubbed.folders() == [folder.format(domain) for domain in domains]
    for call, target in zip(stubbed.calls(), domains, strict=True):
        others = [domain for domain in domains if domain != target]
        start = call.index("--source-domains")
        assert call[start + 1 : call.index("--target-domains")] == others
        assert value(call, "DATASET.NUM_SHOTS") == "-1"


def test_open_classes_are_tested_with_what_the_base_classes_taught(stubbed):
    stubbed("openclass.sh", "ZeroshotCLIP", "domainbed_pacs", "1", SHOTS="4")
    train, test, *rest = stubbed.calls()
    assert len(rest) == 6
    assert value(train, "DATASET.SUBSAMPLE_CLASSES") == "base"
    assert value(test, "DATASET.SUBSAMPLE_CLASSES") == "all"
    for call in (train, test):  # as the published code halves classes and splits images
        assert value(call, "DATASET.SUBSAMPLE_ROUNDING") == "floor"
        assert value(call, "DATASET.HOLDOUT_WITHIN") == "halves"
    assert value(test, "--model-dir") == value(train, "--output-dir")
    assert "--eval-only" in test
    assert stubbed.folders()[1] == (
        "openclass/test/domainbed_pacs/shots_4/art_painting/ZeroshotCLIP/vit_b16/seed1"
    )


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("caltech101", "lodo.sh: Caltech101 has no domains"),
        ("domainbed_vlcs", "lodo.sh: DATASET.ROOT .* must hold the folder VLCS/"),
    ],
)
def test_why_there_is_no_domain_to_leave_out_is_said_once(dataset, said, refused, tmp_path):
    (line,) = refused("lodo.sh", "CoOp", dataset, "1", DATA=str(tmp_path)).splitlines()
    assert re.match(said, line)


def test_domains_with_a_space_are_one_word(stubbed, tmp_path):
    stubbed("lodo.sh", "CoOp", "domainbed_office_home", "1")
    assert value(stubbed.calls()[-1], "--target-domains") == "Real World"


@pytest.mark.parametrize("method", ["LinearProbe", "TipAdapter", "TipAdapterF"])
@pytest.mark.parametrize("script", ["openclass.sh", "base2new_test.sh", "xd_test.sh"])
def test_a_method_that_cannot_name_other_classes_is_refused_before_any_work(
    script, method, refused, tmp_path
):
    folders = {"DATA": str(tmp_path), "OUTPUT": str(tmp_path / "out")}
    said = refused(script, method, *CALLS[script][1:], **folders)
    assert f"{method} cannot name the classes" in said
    assert not (tmp_path / "out").exists()


def test_a_context_for_each_class_is_refused_for_other_classes(refused, tmp_path):
    key = ["TRAINER.COOP.CSC", "True"]
    said = refused("openclass.sh", "CoOp", "domainbed_pacs", "1", *key, DATA=str(tmp_path))
    assert "CoOp cannot name the classes" in said


def test_reproducing_says_first_which_data_sets_are_missing(refused, tmp_path):
    (tmp_path / "dtd").mkdir()
    folders = {"DATA": str(tmp_path), "DATASETS": "dtd eurosat sun397"}
    said = refused("reproduce.sh", "CoOp", "base2new", **folders)
    assert f"not in DATA={tmp_path}: eurosat sun397. Get them (" in said


def test_a_finished_run_is_skipped(stubbed):
    stubbed("xd_train.sh", "MaPLe", "1")
    printed = stubbed("xd_train.sh", "MaPLe", "1")
    assert "1 runs: 1 finished before" in printed
    assert len(stubbed.calls()) == 1


@pytest.mark.parametrize(
    ("protocol", "count"),
    [("base2new", 22), ("xd", 11), ("dg", 5), ("fewshot", 55), ("lodo", 22), ("openclass", 44)],
)
def test_a_table_is_reproduced_by_as_many_runs_as_it_has_cells(stubbed, protocol, count):
    stubbed("reproduce.sh", "CoOp", protocol, SEEDS="1")
    calls = stubbed.calls()
    assert len(calls) == len(set(stubbed.folders())) == count
    for call in calls:
        for key in ("--config-file", "--dataset-config-file"):
            assert (ROOT / value(call, key)).is_file()


def test_reproducing_again_after_a_stop_runs_what_is_missing(stubbed):
    stubbed("base2new_train.sh", "CoOp", "dtd", "1", "OPTIM.LR", "0.1")
    stubbed("reproduce.sh", "CoOp", "base2new", "OPTIM.LR", "0.1", SEEDS="1", DATASETS="dtd ucf101")
    assert len(stubbed.calls()) == 4
    assert stubbed.calls()[-1][-2:] == ["OPTIM.LR", "0.1"]


def test_the_backbone_is_appended_to_the_output_once(stubbed):
    settings = {"SEEDS": "1", "DATASETS": "dtd", "BACKBONE": "vit_b32"}
    stubbed("reproduce.sh", "CoOp", "base2new", **settings)
    assert all(folder.startswith("vit_b32/base2new/") for folder in stubbed.folders())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dry_run_prints_commands_that_can_be_run_and_runs_none(protocol, tmp_path, capsys):
    words = ["reproduce", "ZeroshotCLIP", protocol, "OPTIM.LR", "0.1", "--dry-run"]
    assert scripts.main(words, {"OUTPUT": str(tmp_path / "out")}) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if not line.startswith("# ")]
    assert all(line.startswith("causalclip train --") for line in commands)
    for line in commands:
        flags.parser().parse_args(shlex.split(line)[2:])
    assert summary.startswith("causalclip summarize ")
    assert "--against" in summary
    assert not (tmp_path / "out").exists()


# Real runs


def draw(folder: Path, name: str, index: int) -> str:
    """Write one small picture; return its path below `folder`."""
    path = folder / name / f"{index}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path.relative_to(folder))


@pytest.fixture(scope="module")
def small_data(tmp_path_factory) -> Path:
    """Four classes of noise in the layout of Caltech101, and two in that of ImageNet-A."""
    root = tmp_path_factory.mktemp("small")
    split = {part: [] for part in ("train", "val", "test")}
    for label, name in enumerate(["ant", "bass", "chair", "emu"]):
        for index, part in enumerate(["train", "train", "train", "val", "test", "test"]):
            path = draw(root / "caltech-101" / "101_ObjectCategories", name, index)
            split[part].append([path, label, name])
    (root / "caltech-101" / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    (root / "imagenet").mkdir()
    (root / "imagenet" / "classnames.txt").write_text("n01 tench\nn02 crane bird\n")
    for name in ("n01", "n02"):
        for index in range(2):
            draw(root / "imagenet-adversarial" / "imagenet-a", name, index)
    return root


@pytest.fixture(scope="module")
def for_real(small_data, random_clip, tmp_path_factory) -> SimpleNamespace:
    """The small data with a small random CLIP and one epoch: environment, options, results."""
    output = tmp_path_factory.mktemp("output")
    settings = {
        "DATA": str(small_data),
        "OUTPUT": str(output),
        "CFG": "tiny",
        "SOURCE": "caltech101",
        "SHOTS": "1",
        "SEEDS": "1",
    }
    options = ["MODEL.BACKBONE.NAME", random_clip, "USE_CUDA", "False"]
    options += ["OPTIM.MAX_EPOCH", "1", "OPTIM.WARMUP_EPOCH", "0"]

    def results(folder):
        return json.loads((output / folder / "results.json").read_text())

    return SimpleNamespace(settings=settings, options=options, results=results)


@pytest.fixture
def done_here(for_real, runs_here, monkeypatch, capfd):
    """A function like `run`, but in this process; it returns the output."""

    def call(script, *arguments, **environment):
        words = [script.removesuffix(".sh"), *arguments, *for_real.options]
        status = scripts.main(words, {**for_real.settings, **environment})
        printed = capfd.readouterr()
        assert status == 0, printed.out + printed.err
        return printed.out

    return call


@pytest.mark.slow
def test_a_source_is_trained_and_tested_on_another_set_and_on_a_variant(for_real, done_here):
    done_here("xd_train.sh", "CoOp", "1")
    name = "tiny,BACKBONE=random,MAX_EPOCH=1,WARMUP_EPOCH=0"
    trained = for_real.results(f"caltech101/CoOp/{name}_1shots/seed1")
    assert (trained["config_name"], trained["shots"], trained["trained_on"]) == ("tiny", 1, None)
    done_here("dg_test.sh", "CoOp", "imagenet_a", "1")
    tested = for_real.results(f"evaluation/from_caltech101/CoOp/{name}_1shots/imagenet_a/seed1")
    assert tested["classnames"] == ["tench", "crane bird"]
    assert tested["trained_on"]["dataset"] == "Caltech101"
    assert tested["training"] is None


@pytest.mark.slow
def test_base_to_new_is_reproduced_up_to_the_table_beside_the_published_figures(done_here):
    printed = done_here("reproduce.sh", "CoOp", "base2new", DATASETS="caltech101")
    assert "Base-to-novel: Caltech101, 1 shot (" in printed
    row = next(line for line in printed.splitlines() if re.match(r"\| Caltech101 +\| +base", line))
    ours, published, difference = (float(cell) for cell in row.split("|")[-4:-1])
    assert published == 98
    assert difference == pytest.approx(ours - published)
    assert "NOT THE SAME SETTING" in printed


@pytest.mark.slow
def test_few_shot_ends_in_its_table(for_real, done_here, tmp_path):
    """A call through the shell from another folder; the run itself is finished already."""
    printed = done_here("fewshot.sh", "CoOp", "caltech101", "1")
    data = os.path.relpath(for_real.settings["DATA"], tmp_path)  # relative to the caller's folder
    settings = {**for_real.settings, "DATA": data, "OMP_NUM_THREADS": "1"}
    line = ["fewshot.sh", "CoOp", "caltech101", "1", *for_real.options]
    done = run(*line, cwd=tmp_path, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    header = next(line for line in done.stdout.splitlines() if line.startswith("| method"))
    assert [cell.strip() for cell in header.split("|")[2:-1]] == ["seeds", "1 shot"]
    assert re.search(r"\| CoOp .*", done.stdout)[0] == re.search(r"\| CoOp .*", printed)[0]
    assert done.stdout.startswith("1 runs: 1 finished before\n")
