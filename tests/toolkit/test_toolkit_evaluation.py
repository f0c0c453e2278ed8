"""The evaluator's lines and numbers, against scikit-learn and by hand."""

from __future__ import annotations

import pytest
import torch
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy
from sklearn.metrics import f1_score

LABELS = [0, 0, 0, 1, 1, 3]
PREDICTIONS = [0, 0, 1, 1, 2, 0]


def evaluator(toy, *overrides, batches=2):
    built = build_evaluator(toy.cfg(*overrides), lab2cname={0: "a", 1: "b", 2: "c", 3: "d"})
    scores = torch.nn.functional.one_hot(torch.tensor(PREDICTIONS), 4).float()
    for part in torch.arange(6).chunk(batches):
        built.process(scores[part], torch.tensor(LABELS)[part])
    return built


@pytest.mark.parametrize("batches", [1, 2, 6])
def test_results_are_accuracy_error_and_macro_f1(toy, batches):
    results = evaluator(toy, batches=batches).evaluate()
    assert list(results) == ["accuracy", "error_rate", "macro_f1"]
    f1 = 100 * f1_score(LABELS, PREDICTIONS, average="macro", labels=[0, 1, 3], zero_division=0)
    assert list(results.values()) == pytest.approx([50.0, 50.0, f1])


def test_the_printed_lines_are_those_that_parsers_read(toy, capsys):
    built = evaluator(toy, "TEST.PER_CLASS_RESULT", True)
    capsys.readouterr()
    results = built.evaluate()
    assert capsys.readouterr().out == (
        "=> result\n"
        "* total: 6\n"
        "* correct: 3\n"
        "* accuracy: 50.0%\n"
        "* error: 50.0%\n"
        "* macro_f1: 38.9%\n"
        "=> per-class result\n"
        "* class: 0 (a)\ttotal: 3\tcorrect: 2\tacc: 66.7%\n"
        "* class: 1 (b)\ttotal: 2\tcorrect: 1\tacc: 50.0%\n"
        "* class: 3 (d)\ttotal: 1\tcorrect: 0\tacc: 0.0%\n"
        "* average: 38.9%\n"
    )
    assert results["perclass_accuracy"] == pytest.approx((200 / 3 + 50) / 3)


def test_reset_forgets_earlier_batches(toy):
    built = evaluator(toy)
    built.reset()
    built.process(torch.eye(4), torch.arange(4))
    assert built.evaluate()["accuracy"] == 100.0


def test_the_confusion_matrix_holds_the_shares_of_each_row(toy, is_minidassl):
    toy.output.mkdir()
    evaluator(toy, "TEST.COMPUTE_CMAT", True).evaluate()
    matrix = torch.load(toy.output / "cmat.pt", weights_only=is_minidassl)
    assert torch.as_tensor(matrix)[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0])


@pytest.mark.minidassl
def test_outputs_that_are_not_numbers_and_empty_evaluations_are_errors(toy):
    built = evaluator(toy)
    with pytest.raises(FloatingPointError, match="output holds NaN"):
        built.process(torch.full((1, 4), float("nan")), torch.tensor([0]))
    built.reset()
    with pytest.raises(ValueError, match="nothing to evaluate"):
        built.evaluate()


SCORES = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.9, 0.06, 0.04]])
TARGETS = torch.tensor([2, 0, 0, 2])


def test_accuracy_is_a_percentage_of_the_batch():
    (accuracy,) = compute_accuracy(SCORES, TARGETS)
    assert (accuracy.shape, accuracy.item()) == ((1,), 25.0)
    assert compute_accuracy((SCORES, "other"), TARGETS)[0].item() == 25.0


@pytest.mark.minidassl
def test_top_k_accuracy_counts_targets_among_the_k_largest():
    accuracies = compute_accuracy(SCORES, TARGETS, topk=(1, 2, 3))
    assert [accuracy.item() for accuracy in accuracies] == [25.0, 50.0, 100.0]
