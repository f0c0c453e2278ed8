"""Seeds are averaged over one setting: what differs otherwise is a row of its own, by name."""

from __future__ import annotations

import pytest

from causalclip.report import summarize
from causalclip.report.results import Result
from causalclip.report.runs import load_runs
from causalclip.report.settings import IGNORED, settings_of
from causalclip.report.tables import scores


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


def rows_of(root) -> dict[str, float]:
    """The mean of the first quantity by method, of the only table."""
    ((_, table),) = summarize.tables(scores(load_runs(root)))
    return dict(zip(table["method"], table.iloc[:, 2], strict=True))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("TRAINER__CDC__N_TEMPLATES", 2, ("N_TEMPLATES=4", "N_TEMPLATES=2")),
        ("OPTIM__LR", 0.5, ("OPTIM.LR=0.1", "OPTIM.LR=0.5")),
        ("OPTIM__MAX_EPOCH", 5, ("OPTIM.MAX_EPOCH=-", "OPTIM.MAX_EPOCH=5")),
        ("TEST__SPLIT", "val", ("TEST.SPLIT=-", "TEST.SPLIT=val")),
        ("TRAINER__CDC__VIEWS", ["crop"], ("VIEWS=-", "VIEWS=['crop']")),
    ],
)
def test_seeds_of_other_settings_are_rows_that_name_what_differs(
    tmp_path, write_run, key, value, said
):
    write_run("one", 80.0, seed=1, config=config())
    write_run("one", 70.0, seed=2, config=config())
    write_run("two", 10.0, seed=3, config=config(**{key: value}))
    assert rows_of(tmp_path) == {f"CDC ({said[0]})": 75, f"CDC ({said[1]})": 10}


def test_several_settings_that_differ_are_named_together(tmp_path, write_run):
    write_run("one", 80.0, config=config())
    write_run("two", 10.0, config=config(TRAINER__CDC__N_TEMPLATES=2, OPTIM__LR=0.5))
    assert list(rows_of(tmp_path)) == [
        "CDC (N_TEMPLATES=4, OPTIM.LR=0.1)",
        "CDC (N_TEMPLATES=2, OPTIM.LR=0.5)",
    ]


@pytest.mark.parametrize("key", IGNORED)
def test_settings_that_shape_no_figure_leave_the_seeds_together(tmp_path, write_run, key):
    for seed, value in ((1, 1), (2, "two")):
        write_run("one", 10.0 * seed, seed=seed, config=config(**{key.replace(".", "__"): value}))
    assert rows_of(tmp_path) == {"CDC": 15}


def test_other_trainers_settings_leave_the_seeds_together(tmp_path, write_run):
    write_run("one", 10.0, seed=1, config=config())
    write_run("one", 20.0, seed=2, config=config(TRAINER__COOP__N_CTX=4))
    assert rows_of(tmp_path) == {"CDC": 15}


def test_a_trainer_whose_node_has_another_name_is_told_apart_by_every_node():
    record = {"backbone": "tiny", "dataset": "Set", "seed": 1, "shots": 1, "metrics": {}}
    hosts = Result(trainer="TheirMethod", config=config(), **record)
    assert {"TRAINER.CDC.N_TEMPLATES", "TRAINER.COOP.N_CTX"} <= set(settings_of(hosts))
    ours = Result(
        trainer="CLIPAdapter", config={"TRAINER": {"CLIP_ADAPTER": {"RATIO": 1}}}, **record
    )
    assert settings_of(ours) == {"TRAINER.CLIP_ADAPTER.RATIO": 1}


def test_a_setting_that_an_earlier_version_did_not_know_counts_as_off(tmp_path, write_run):
    write_run("one", 10.0, seed=1, config=config())
    write_run("one", 20.0, seed=2, config=config(DATASET__TEMPLATE=""))
    assert rows_of(tmp_path) == {"CDC": 15}


def test_files_that_each_seed_has_its_own_of_leave_the_seeds_together(tmp_path, write_run):
    for seed in (1, 2):
        path = f"out/icm/seed{seed}/projection.safetensors"
        more = config(TRAINER__CDC__PROJECTION=path)
        write_run("one", 10.0 * seed, seed=seed, config=more)
    assert rows_of(tmp_path) == {"CDC": 15}


def test_files_that_each_left_out_domain_has_its_own_of_are_of_one_method():
    of = {}
    for domain in ("ink", "neon"):
        more = config(TRAINER__CDC__PROJECTION=f"out/{domain}/seed1/projection.safetensors")
        more = {**more, "DATASET": {"TARGET_DOMAINS": [domain]}}
        record = {"backbone": "tiny", "dataset": "Set", "seed": 1, "shots": 1, "metrics": {}}
        of[domain] = settings_of(Result(trainer="CDC", config=more, **record))
    assert of["ink"] == of["neon"]
    assert of["ink"]["TRAINER.CDC.PROJECTION"] == "out/*/seed*/projection.safetensors"


def test_two_backbones_are_two_rows(tmp_path, write_run):
    for seed, backbone in ((1, "tiny"), (2, "ViT-B/16")):
        more = config(MODEL__BACKBONE__NAME=backbone)
        write_run(backbone, 10.0 * seed, seed=seed, backbone=backbone, config=more)
    assert rows_of(tmp_path) == {
        "CDC (MODEL.BACKBONE.NAME=tiny)": 10,
        "CDC (MODEL.BACKBONE.NAME=ViT-B/16)": 20,
    }


def test_a_sweep_with_several_configurations_names_both(tmp_path, write_run):
    for place, name, templates in [("a", "m4", 4), ("b", "m4", 2), ("c", "long", 4)]:
        more = config(TRAINER__CDC__N_TEMPLATES=templates)
        write_run(place, 50.0, config_name=name, config=more)
    assert set(rows_of(tmp_path)) == {
        "CDC (m4, N_TEMPLATES=4)",
        "CDC (m4, N_TEMPLATES=2)",
        "CDC (long)",
    }


# Base-to-novel


def test_each_base_half_is_paired_with_the_new_half_of_its_setting(tmp_path, write_pair):
    for base, templates in ((90.0, 4), (60.0, 2)):
        more = config(TRAINER__CDC__N_TEMPLATES=templates)
        write_pair(base, base / 2, dataset="Set", config_name="m4", config=more, place=templates)
    assert rows_of(tmp_path) == {"CDC (N_TEMPLATES=4)": 90, "CDC (N_TEMPLATES=2)": 60}


def test_halves_of_two_models_make_no_harmonic_mean(tmp_path, write_run, capsys):
    for half, templates in (("base", 4), ("new", 2)):
        more = config(TRAINER__CDC__N_TEMPLATES=templates)
        write_run(half, 50.0, subsample=half, config=more)
    assert summarize.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no finished runs" in said
    assert "no result on the new classes beside it with N_TEMPLATES=4" in said
    assert "no result on the base classes beside it with N_TEMPLATES=2" in said


def test_what_only_a_training_reads_may_be_left_out_of_the_test(tmp_path, write_run):
    write_run("base", 90.0, subsample="base", config=config(OPTIM__LR=0.5))
    trained_on = {
        "dataset": "Set",
        "shots": 16,
        "seed": 1,
        "subsample_classes": "base",
        "source_domains": [],
        "classnames": [],
    }
    write_run("new", 60.0, subsample="new", config=config(), trained_on=trained_on)
    assert rows_of(tmp_path) == {"CDC": 90}


# Other tables


def test_targets_of_two_models_make_no_average(tmp_path, write_run, write_target):
    write_run("source", 70.0, dataset="ImageNet", config=config())
    write_target("UCF101", 60.0, config=config())
    write_target("Food101", 80.0, config=config(TRAINER__CDC__N_TEMPLATES=2))
    ((_, table),) = summarize.tables(scores(load_runs(tmp_path)))
    assert list(table["method"]) == ["CDC (N_TEMPLATES=4)", "CDC (N_TEMPLATES=2)"]
    assert "average" not in table  # neither model has been tested on both
    assert table["ImageNet (source)"].notna().tolist() == [True, False]


def test_settings_of_the_data_sets_leave_one_model_together(tmp_path, write_run, write_target):
    write_run("source", 70.0, dataset="ImageNet", config=config())
    for dataset, table in (("UCF101", "a.csv"), ("Food101", "b.csv")):
        write_target(dataset, 60.0, config=config(DATASET__TABLE=table))
    ((_, table),) = summarize.tables(scores(load_runs(tmp_path)))
    assert (list(table["method"]), list(table["average"])) == (["CDC"], [60])


def test_readings_of_a_sweep_are_named_beside_it(tmp_path, write_run):
    for place, templates in (("a", 4), ("b", 2)):
        more = config(TRAINER__CDC__N_TEMPLATES=templates)
        write_run(place, 50.0, config=more, variants={"averaging": {"accuracy": 40.0}})
    assert rows_of(tmp_path)["CDC, averaging (N_TEMPLATES=2)"] == 40


def test_a_sweep_is_no_collapsed_seed_and_no_run_counted_twice(tmp_path, write_run, capsys):
    write_run("a", 90.0, config=config())
    write_run("b", 20.0, config=config(TRAINER__CDC__N_TEMPLATES=2))
    summarize.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert "collapsed?" not in printed
    assert "another run" not in printed


def test_seeds_with_other_class_lists_are_an_error_that_names_both(tmp_path, write_run, capsys):
    one = write_run("a", 90.0, seed=1, classnames=["cat", "dog"])
    two = write_run("a", 90.0, seed=2, classnames=["cat", "wolf"])
    assert summarize.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{one}/results.json and {two}/results.json" in said
    assert "dog against wolf" in said


def test_a_protocol_that_is_said_is_not_inferred(tmp_path, write_run):
    write_run("source", 70.0, dataset="ImageNet", protocol="xd", config=config())
    assert rows_of(tmp_path) == {"CDC": 70}
    ((title, _),) = summarize.tables(scores(load_runs(tmp_path)))
    assert title == "Cross-dataset: from ImageNet, 16 shots"
