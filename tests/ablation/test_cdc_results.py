"""CDC's tables and figures from results whose numbers are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from causalclip.ablation import cdc
from causalclip.ablation.cdc import quantities
from causalclip.ablation.reporting import Report
from causalclip.ablation.tables import Ablation
from causalclip.report.runs import load_runs

CDC = Ablation.of("CDC")


def test_the_quantities_of_a_row(made_row):
    found = quantities(made_row("row", 90.0, 60.0).runs, "", "val")
    assert (found["base"], found["new"], found["ECE base"], found["ECE new"]) == (90, 60, 9, 6)
    assert found["HM"] == pytest.approx(2 * 90 * 60 / 150)
    # Of 9 pairs of a base and a new image, only (0.4, 0.3) is in the wrong order.
    assert found["AUROC"] == pytest.approx(100 * 8 / 9)
    assert found["parameters (1000)"] == 5 and found["ms a step"] == 20
    assert found["images/s"] == 60 and found["memory MB"] == 300


def test_a_reading_and_a_member_have_figures_of_their_own(made_row):
    runs = made_row("row", 90.0, 60.0).runs
    assert quantities(runs, "dempster", "val")["ECE base"] == 50
    first = quantities(runs, "template/0", "val")
    assert first["base"] == 10 and first["AUROC"] == pytest.approx(100 / 9)  # turned round
    assert quantities(runs, "template/1", "val")["base"] == 90


def test_a_table_is_the_mean_over_seeds_under_its_heading(made_row, tmp_path, capsys):
    rows = [made_row("plain", 80.0, 80.0)]
    one, two = made_row("more", 90.0, 60.0), made_row("more", 80.0, 70.0, seed=2)
    rows.append(type(one)(one.variant, one.runs + two.runs))
    report = Report(CDC, "CDC on set", "val", tmp_path / "report")
    assert report.table("components", rows)
    printed = capsys.readouterr().out
    assert "Components: CDC on set, validation split (all validation images" in printed
    assert "85.0 ± 5.0" in printed and "65.0 ± 5.0" in printed
    assert (tmp_path / "report" / "components.md").read_text().strip() == printed.strip()
    (table,) = json.loads((tmp_path / "report" / "components.json").read_text())
    plain, more = table["rows"]
    assert (plain["variant"], plain["seeds"], plain["HM"]) == ("plain", 1, 80)
    assert more["HM"] == pytest.approx((2 * 90 * 60 / 150 + 2 * 80 * 70 / 150) / 2)


def test_a_row_without_its_results_is_left_out_and_said(made_row, tmp_path, capsys):
    rows = [made_row("there", 80.0, 80.0), made_row("gone", 90.0, 60.0)]
    (rows[1].runs[2].folder / "results.json").unlink()
    report = Report(CDC, "CDC on set", "val", tmp_path / "report")
    assert not report.table("losses", rows)
    assert "Losses: no result of gone" in capsys.readouterr().out


def test_an_ablation_is_in_no_table_of_a_protocol(made_row, tmp_path):
    made_row("row", 90.0, 60.0)
    assert load_runs(tmp_path).empty


# Figures


def test_lines_over_epochs_are_those_of_the_results(made_row):
    rows = [made_row(f"e{e}", 80.0 + e, 60.0 - e, epoch=str(e)) for e in (1, 2, 3)]
    figure = cdc.over_epochs(rows, "val")["epochs"]
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["base classes"], [[1, 81], [2, 82], [3, 83]])
    np.testing.assert_allclose(lines["new classes"], [[1, 59], [2, 58], [3, 57]])


def test_cosines_over_epochs_are_those_of_every_pair(made_row):
    cosines = np.eye(3) + np.array([[0, 0.1, 0.2], [0.1, 0, 0.6], [0.2, 0.6, 0]])
    rows = [made_row(f"e{e}", 80.0, 60.0, epoch=str(e), cosines=e * cosines) for e in (1, 2)]
    figure = cdc.cosines_over_epochs(rows, "val")["cosines"]
    *pairs, mean = [line.get_ydata() for line in figure.axes[0].lines]
    np.testing.assert_allclose(pairs, [[0.1, 0.2], [0.2, 0.4], [0.6, 1.2]])
    np.testing.assert_allclose(mean, [0.3, 0.6])


def test_uncertainties_are_told_apart_by_what_became_of_the_image(made_row):
    groups = cdc.uncertainty_groups(made_row("row", 90.0, 60.0), "val")
    assert {name: values.tolist() for name, values in groups.items()} == {
        "base, right": [0.1, 0.2],
        "base, wrong": [0.4],
        "new classes": [0.3, 0.5, 0.9],
    }


def test_figures_are_written_as_png_and_svg(made_row, tmp_path):
    report = Report(CDC, "CDC on set", "val", tmp_path / "report")
    assert report.table("uncertainty", [made_row("the method", 90.0, 60.0)])
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["uncertainty.png", "uncertainty.svg"]
