"""Costs of trainings and tests against sums by hand, and the Pareto line."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from causalclip.plots.study_plots import cost_panels
from causalclip.report import summarize
from causalclip.report.costs import run_costs
from causalclip.report.runs import load_runs

TRAINED = {"seconds": 20.0, "epochs": 5, "images": 80, "learnable_parameters": 512}
TRAINED |= {"peak_memory_mb": 300.0, "step_flops": 3_000_000_000}


def test_costs_are_means_over_trainings_and_rates_over_tests(write_run, tmp_path, capsys):
    write_run("a", 80.0, seed=1, training=TRAINED, evaluation={"seconds": 2.0, "images": 100})
    write_run("a", 82.0, seed=2, training=TRAINED | {"seconds": 40.0})
    write_run("a", 70.0, trainer="ZeroshotCLIP", training=None)
    costs = run_costs(load_runs(tmp_path)).set_index("method")
    means = costs.loc["CDC"].drop(columns="protocol").mean().to_dict()
    assert means == pytest.approx(
        {"learnable": 512, "training s": 30, "trained images/s": 15, "memory MiB": 300}
        | {"GFLOPs a step": 3, "tested images/s": 50}
    )
    assert all(math.isnan(v) for v in costs.loc["ZeroshotCLIP"][1:])
    assert summarize.main([str(tmp_path), "--cost"]) == 0
    rows = [line.split("|")[-7:-1] for line in capsys.readouterr().out.splitlines() if "|" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    head = "learnable,training s,trained images/s,memory MiB,GFLOPs a step,tested images/s"
    assert cells[0] == head.split(",")
    assert ["512", "30.0", "15.0", "300", "3.0", "50.0"] in cells
    assert ["-"] * 6 in cells


def test_the_line_passes_the_methods_that_no_other_beats():
    rng = np.random.default_rng(0)
    names = list("abcdefgh")
    x, y = pd.Series(rng.uniform(1, 9, 8), names), pd.Series(rng.uniform(50, 90, 8), names)
    (panel,) = cost_panels(x, y, dict(zip(names, range(8), strict=True)))
    guide = panel.curves[0]
    corners = set(zip(np.asarray(guide.x)[::2], np.asarray(guide.y)[::2], strict=True))
    unbeaten = {(x[a], y[a]) for a in names if not any(x[b] < x[a] and y[b] >= y[a] for b in names)}
    assert corners == unbeaten
