"""Seeds of one setting are averaged; another setting is another row, named after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from causalclip.records.results import Result
from causalclip.report import summarize
from causalclip.report.runs import load_runs, protocol_of, relevant_settings, run_table
from causalclip.report.tables import result_tables, scores
from causalclip.settings.check import separates_methods
from causalclip.settings.table import SETTINGS

RECORD = {"backbone": "t", "dataset": "S", "seed": 1, "shots": 1, "metrics": {"accuracy": 50.0}}


def config(**settings):
    """A nested configuration from KEY__SUB=value."""
    nested = {"TRAINER": {"CDC": {"N_TEMPLATES": 4}, "COOP": {"N_CTX": 16}}, "OPTIM": {"LR": 0.1}}
    for key, value in settings.items():
        node = nested
        *parents, name = key.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return nested


TWO_TEMPLATES = config(TRAINER__CDC__N_TEMPLATES=2)


def only_table(root):
    ((_, table),) = result_tables(scores(load_runs(root)))
    return table


def rows_of(root) -> dict[str, float]:
    """The mean of the first quantity by method, of the only table."""
    table = only_table(root)
    return dict(zip(table["method"], table.iloc[:, 2], strict=True))


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"TRAINER__CDC__N_TEMPLATES": 2}, ("N_TEMPLATES=4", "N_TEMPLATES=2")),
        ({"OPTIM__LR": 0.5}, ("OPTIM.LR=0.1", "OPTIM.LR=0.5")),
        ({"OPTIM__MAX_EPOCH": 5}, ("OPTIM.MAX_EPOCH=-", "OPTIM.MAX_EPOCH=5")),
        ({"TEST__SPLIT": "val"}, ("TEST.SPLIT=-", "TEST.SPLIT=val")),
        ({"TRAINER__CDC__VIEWS": ["crop"]}, ("VIEWS=-", "VIEWS=['crop']")),
        (
            {"TRAINER__CDC__N_TEMPLATES": 2, "OPTIM__LR": 0.5},
            ("N_TEMPLATES=4, OPTIM.LR=0.1", "N_TEMPLATES=2, OPTIM.LR=0.5"),
        ),
    ],
)
def test_seeds_of_other_settings_are_rows_that_name_what_differs(tmp_path, write_run, other, names):
    write_run("one", 80.0, seed=1, config=config())
    write_run("one", 70.0, seed=2, config=config())
    write_run("two", 10.0, seed=3, config=config(**other))
    assert rows_of(tmp_path) == {f"CDC ({names[0]})": 75, f"CDC ({names[1]})": 10}


PATH = "out/icm/seed{}/projection.safetensors"
UNSEPARATING = [key.replace(".", "__") for key in SETTINGS if not separates_methods(key)]


@pytest.mark.parametrize(
    "settings",
    [
        *([{key: 1}, {key: "two"}] for key in UNSEPARATING),
        [{}, {"TRAINER__COOP__N_CTX": 4}],  # of another trainer
        [{}, {"DATASET__TEMPLATE": ""}],  # not recorded, or off
        [{"TRAINER__CDC__PROJECTION": PATH.format(seed)} for seed in (1, 2)],  # a file per seed
    ],
)
def test_settings_without_influence_leave_the_seeds_together(tmp_path, write_run, settings):
    for seed, more in enumerate(settings, start=1):
        write_run("one", 10.0 * seed, seed=seed, config=config(**more))
    assert rows_of(tmp_path) == {"CDC": 15}


def test_files_that_each_left_out_domain_has_its_own_of_are_of_one_method():
    results = {}
    for domain in ("ink", "neon"):
        settings = config(TRAINER__CDC__PROJECTION=f"out/{domain}/seed1/projection.safetensors")
        more = {"config": settings, "target_domains": [domain], **RECORD}
        results[Path(domain)] = Result(trainer="CDC", **more)
    assert list(run_table(results)["method"]) == ["CDC", "CDC"]


def test_a_trainer_whose_node_has_another_name_is_told_apart_by_every_node():
    hosts = relevant_settings(Result(trainer="TheirMethod", config=config(), **RECORD))
    assert {"TRAINER.CDC.N_TEMPLATES", "TRAINER.COOP.N_CTX"} <= set(hosts)
    node = {"TRAINER": {"CLIP_ADAPTER": {"RATIO": 1}}}
    ours = relevant_settings(Result(trainer="CLIPAdapter", config=node, **RECORD))
    assert ours == {"TRAINER.CLIP_ADAPTER.RATIO": 1}


def test_backbones_and_configurations_are_rows_of_their_own(tmp_path, write_run):
    write_run("a", 10.0, config_name="m4", config=config())
    write_run("b", 20.0, config_name="m4", config=TWO_TEMPLATES)
    write_run("c", 30.0, config_name="long", config=config())
    for accuracy, name in ((40.0, "tiny"), (50.0, "ViT-B/16")):
        more = {"trainer": "CoOp", "backbone": name, "config": config(MODEL__BACKBONE__NAME=name)}
        write_run(name, accuracy, **more)
    assert rows_of(tmp_path) == {
        "CDC (m4, N_TEMPLATES=4)": 10,
        "CDC (m4, N_TEMPLATES=2)": 20,
        "CDC (long)": 30,
        "CoOp (MODEL.BACKBONE.NAME=tiny)": 40,
        "CoOp (MODEL.BACKBONE.NAME=ViT-B/16)": 50,
    }


def test_each_base_half_is_paired_with_the_new_half_of_its_setting(tmp_path, write_pair):
    write_pair(90.0, 45.0, config=config(), place=4)
    write_pair(60.0, 30.0, config=TWO_TEMPLATES, place=2)
    assert rows_of(tmp_path) == {"CDC (N_TEMPLATES=4)": 90, "CDC (N_TEMPLATES=2)": 60}


def test_halves_of_two_models_make_no_harmonic_mean(tmp_path, write_run, capsys):
    write_run("base", 50.0, subsample="base", config=config())
    write_run("new", 50.0, subsample="new", config=TWO_TEMPLATES)
    assert summarize.main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "no finished runs" in message
    assert "no result on the new classes with N_TEMPLATES=4" in message
    assert "no result on the base classes with N_TEMPLATES=2" in message


def test_what_only_a_training_reads_may_be_left_out_of_the_test(tmp_path, write_run, write_target):
    write_run("base", 90.0, subsample="base", config=config(OPTIM__LR=0.5))
    more = {"subsample": "new", "config": config()}
    write_target("Set", 60.0, source="Set", classes="base", **more)
    assert rows_of(tmp_path) == {"CDC": 90}


def test_one_model_may_have_settings_for_each_data_set_and_two_make_no_average(
    tmp_path, write_run, write_target
):
    write_run("source", 70.0, dataset="ImageNet", config=config())
    write_target("UCF101", 60.0, config=config(DATASET__TABLE="a.csv"))
    write_target("Food101", 80.0, config=config(DATASET__TABLE="b.csv"))
    table = only_table(tmp_path)
    assert (list(table["method"]), list(table["average"])) == (["CDC"], [70])
    write_target("Food101", 80.0, config=TWO_TEMPLATES)  # another model
    table = only_table(tmp_path)
    assert list(table["method"]) == ["CDC (N_TEMPLATES=4)", "CDC (N_TEMPLATES=2)"]
    assert "average" not in table  # neither model has been tested on both
    assert table["ImageNet (source)"].notna().tolist() == [True, False]


def test_readings_of_a_sweep_are_named_and_no_run_of_it_is_suspect(tmp_path, write_run, capsys):
    for place, settings, accuracy in (("a", config(), 90.0), ("b", TWO_TEMPLATES, 20.0)):
        write_run(place, accuracy, config=settings, variants={"averaging": {"accuracy": 40.0}})
    assert rows_of(tmp_path)["CDC, averaging (N_TEMPLATES=2)"] == 40
    summarize.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert "collapsed?" not in printed
    assert "another run" not in printed


def test_seeds_with_other_class_lists_are_an_error_that_names_both(tmp_path, write_run, capsys):
    one = write_run("a", 90.0, seed=1, classnames=["cat", "dog"])
    two = write_run("a", 90.0, seed=2, classnames=["cat", "wolf"])
    assert summarize.main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"{one}/results.json and {two}/results.json" in message
    assert "dog against wolf" in message


def test_a_protocol_that_is_recorded_is_not_inferred(tmp_path, write_run):
    write_run("source", 70.0, dataset="ImageNet", protocol="xd", config=config())
    ((title, table),) = result_tables(scores(load_runs(tmp_path)))
    assert title == "Cross-dataset: from ImageNet, 16 shots"
    assert list(table["ImageNet (source)"]) == [70]


TRAINED_ON = {"dataset": "S", "shots": 4, "seed": 1, "subsample_classes": "all"}
TRAINED_ON |= {"source_domains": [], "classnames": []}


@pytest.mark.parametrize(
    ("more", "protocol"),
    [
        ({}, "fewshot"),
        ({"subsample_classes": "base"}, "base2new"),
        ({"target_domains": ["ink"]}, "lodo"),
        ({"target_domains": ["ink"], "subsample_classes": "base"}, ""),
        ({"target_domains": ["ink"], "parts": {"open": {"accuracy": 1.0}}}, "openclass"),
        ({"trained_on": TRAINED_ON}, ""),
        ({"trained_on": {**TRAINED_ON, "dataset": "Other"}}, "xd"),
        ({"trained_on": TRAINED_ON, "dataset": "ImageNetA"}, "dg"),
        ({"protocol": "ablation"}, "ablation"),
        ({"protocol": "dg"}, "fewshot"),  # the source of dg, whoever asked for it
    ],
)
def test_a_result_belongs_to_the_protocol_that_its_data_and_training_fit(more, protocol):
    assert protocol_of(Result(trainer="CDC", **{**RECORD, **more})) == protocol
