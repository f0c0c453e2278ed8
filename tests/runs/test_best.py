"""The best run so far, as a long study's progress says it."""

from __future__ import annotations

from causalclip.report.results import Result
from causalclip.runs.best import Best


def test_the_best_is_kept_for_each_half_and_a_broken_result_is_none(tmp_path):
    def run(name, trainer, accuracy, half):
        made = {"schema": 2, "trainer": trainer, "backbone": "tiny", "dataset": "Set", "seed": 1}
        made |= {"shots": 16, "subsample_classes": half, "metrics": {"accuracy": accuracy}}
        Result.of_record(made).write(tmp_path / name)
        return tmp_path / name

    best = Best()
    assert best.add(run("a", "CoOp", 80.0, "base")) == "best of Set base: CoOp 80.0"
    assert best.add(run("b", "CDC", 70.0, "base")) == "best of Set base: CoOp 80.0"
    assert best.add(run("c", "CDC", 60.0, "new")) == "best of Set new: CDC 60.0"
    assert best.add(tmp_path / "nothing") == ""
