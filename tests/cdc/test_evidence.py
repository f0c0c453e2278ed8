"""Evidence and fusion, against Dempster's rule over focal sets and its pairwise form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from causalclip.cdc.evidence import (
    FUSIONS,
    MAX_EXPONENT,
    conflict,
    evidence_from_logits,
    fit_discount,
    fuse,
    opinion,
    opinion_answer,
    probabilities,
    softmax_answer,
    uncertainty,
)

FP64 = {"rtol": 1e-12, "atol": 1e-12}


def random_evidence(*shape, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.exp(spread * torch.randn(*shape, generator=generator, dtype=torch.float64))


def dempster_over_sets(evidence):
    """Dempster's rule on masses over sets, from its definition: evidence and conflict."""
    _, n_classes = evidence.shape
    everything = frozenset(range(n_classes))
    combined, agreement = {everything: 1.0}, 1.0
    for row in evidence.tolist():
        strength = sum(row) + n_classes
        mass = {frozenset([k]): e / strength for k, e in enumerate(row)}
        mass[everything] = n_classes / strength
        products = {}
        for (a, x), (b, y) in itertools.product(combined.items(), mass.items()):
            products[a & b] = products.get(a & b, 0.0) + x * y
        kept = 1 - products.pop(frozenset(), 0.0)
        agreement *= kept
        combined = {focal: m / kept for focal, m in products.items()}
    belief = [combined[frozenset([k])] for k in range(n_classes)]
    belief = torch.tensor(belief, dtype=torch.float64)
    return n_classes * belief / combined[everything], 1 - agreement


@settings(max_examples=40)
@given(
    n_templates=st.integers(1, 5),
    n_classes=st.integers(2, 6),
    seed=st.integers(0, 10**6),
    spread=st.floats(0, 4),
)
def test_fusion_is_dempsters_rule_over_focal_sets(n_templates, n_classes, seed, spread):
    evidence = random_evidence(n_templates, n_classes, seed=seed, spread=spread)
    expected, total_conflict = dempster_over_sets(evidence)
    torch.testing.assert_close(fuse(evidence), expected, rtol=1e-9, atol=1e-9)
    assert conflict(evidence).item() == pytest.approx(total_conflict, abs=1e-9)


def test_fusion_has_an_identity_and_any_order_grouping_and_labelling():
    evidence = random_evidence(4, 6)
    whole, clash = fuse(evidence), conflict(evidence)
    vacuous = torch.cat([evidence, torch.zeros(1, 6)])
    for other in (evidence[[2, 0, 3, 1]], vacuous):
        torch.testing.assert_close(fuse(other), whole, **FP64)
        torch.testing.assert_close(conflict(other), clash, **FP64)
    grouped = torch.stack([fuse(evidence[:2]), fuse(evidence[2:])])
    torch.testing.assert_close(fuse(grouped), whole, **FP64)
    classes = [4, 2, 0, 1, 3, 5]
    torch.testing.assert_close(fuse(evidence[:, classes]), whole[classes], **FP64)


@pytest.mark.parametrize("n_templates", [2, 3, 5])
def test_averaging_is_averaging_belief_fusion(n_templates):
    evidence = random_evidence(n_templates, 6)
    views = opinion(evidence)
    # Josang, Subjective Logic (2016): weights are the products of the others' uncertainties.
    weight = views.uncertainty.prod() / views.uncertainty
    belief = (weight[:, None] * views.belief).sum(0) / weight.sum()
    ours = opinion(fuse(evidence, rule="averaging"))
    torch.testing.assert_close(ours.belief, belief, **FP64)
    expected = n_templates * views.uncertainty.prod() / weight.sum()
    torch.testing.assert_close(ours.uncertainty, expected, **FP64)


def test_one_witness_heard_four_times_counts_once_under_the_smallest_discount():
    same = random_evidence(1, 6).expand(4, 6)
    torch.testing.assert_close(fuse(same, discount=1 / 4), same[0], **FP64)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), discount=st.floats(1 / 3, 1))
def test_no_discount_changes_the_predicted_class(seed, discount):
    evidence = random_evidence(8, 3, 5, seed=seed)
    assert torch.equal(fuse(evidence, discount=discount).argmax(-1), fuse(evidence).argmax(-1))


def test_probabilities_are_the_dirichlets_mean():
    evidence = random_evidence(4, 6)
    expected = torch.distributions.Dirichlet(evidence + 1).mean
    torch.testing.assert_close(probabilities(evidence), expected, **FP64)


@pytest.mark.parametrize("n_classes", [2, 1000])
def test_the_largest_evidence_stays_finite_in_single_precision(n_classes):
    logits = torch.linspace(-20, 2 * MAX_EXPONENT, 8 * n_classes).view(8, n_classes)
    evidence = evidence_from_logits(logits).requires_grad_()
    fused = fuse(evidence)
    assert fused.isfinite().all() and (fused >= 0).all() and fused.sum().isfinite()
    exact = fuse(evidence.detach().double())
    assert exact.isfinite().all() and exact.sum() > torch.finfo(torch.float32).max
    single = probabilities(fused)
    torch.testing.assert_close(single.double(), probabilities(exact), rtol=1e-4, atol=1e-6)
    assert 0 < uncertainty(fused) < 1e-34
    single[0].backward()
    assert evidence.grad.isfinite().all()


def test_a_confidently_wrong_sample_keeps_its_gradient_beyond_the_number_format():
    exponents = torch.tensor([[0.0, 70.0], [0.0, 70.0]], requires_grad=True)
    fused = fuse(exponents.exp())
    assert 0 <= fused[0] < 1e-6  # scaled down with the other class, and not below zero
    loss = torch.digamma((fused + 1).sum()) - torch.digamma(fused[0] + 1)
    loss.backward()
    # log S grows by one for each exponent, and nothing else depends on them.
    torch.testing.assert_close(exponents.grad[:, 1], torch.ones(2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"discount": 0.5}, {"rule": "averaging"}])
def test_fusion_passes_gradcheck(options):
    evidence = random_evidence(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: fuse(e, **options), evidence)
    assert torch.autograd.gradcheck(lambda e: probabilities(fuse(e, **options)), evidence)
    assert torch.autograd.gradcheck(lambda e: uncertainty(fuse(e, **options)), evidence)


def test_each_kind_of_evidence_follows_its_formula():
    logits = torch.tensor([-1.0, 0.0, 2.0])
    shifted = [x - 0.5 for x in logits.tolist()]
    expected = {
        "exp": [math.exp(x) for x in shifted],
        "softplus": [math.log1p(math.exp(x)) for x in shifted],
        "relu": [max(x, 0) for x in shifted],
    }
    for kind, values in expected.items():
        evidence = evidence_from_logits(logits, 0.5, kind=kind)
        torch.testing.assert_close(evidence, torch.tensor(values))
    capped = evidence_from_logits(logits, max_exponent=1.0)
    assert capped[2].item() == pytest.approx(math.e)


def test_evidence_is_never_held_in_half_precision():
    evidence = evidence_from_logits(torch.tensor([20.0], dtype=torch.float16))
    assert evidence.dtype == torch.float32
    assert evidence.item() == pytest.approx(math.exp(20), rel=1e-6)


def overconfident_split(n=400, seed=0):
    """Labels from known probabilities and four identical witnesses that each state them."""
    generator = torch.Generator().manual_seed(seed)
    evidence = 3 * torch.exp(torch.randn(n, 1, 3, generator=generator, dtype=torch.float64))
    labels = torch.multinomial(probabilities(evidence[:, 0]), 1, generator=generator).squeeze(-1)
    return evidence.expand(n, 4, 3), labels


def test_the_fitted_discount_has_the_best_likelihood_of_a_fine_grid():
    evidence, labels = overconfident_split(seed=3)
    independent = random_evidence(400, 4, 3, seed=1)
    mixed = torch.where(torch.arange(4)[:, None] < 2, evidence, independent)

    def loss(discount):
        log_p = probabilities(fuse(mixed, discount=discount)).log()
        return torch.nn.functional.nll_loss(log_p, labels).item()

    best = min(loss(discount) for discount in torch.linspace(0.25, 1, 301).tolist())
    assert loss(fit_discount(mixed, labels)) <= best + 1e-6


# -- the table of fusion rules -------------------------------------------------------------------


def dirichlet_mean(evidence):
    return (evidence + 1) / (evidence + 1).sum(-1, keepdims=True)


def answers(logits, templates, discount):
    return {
        name: fusion.answer(logits, logits.exp(), templates, discount)
        for name, fusion in FUSIONS.items()
    }


def test_every_rule_is_its_definition_in_numpy():
    logits = 3 * torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    evidence, each = logits.exp().numpy(), opinion_answer(logits.exp())[0]
    geometric = 5 * (np.prod(1 + evidence / 5, axis=1) ** (1 / 4) - 1)
    softmax = np.exp(logits.numpy().mean(1))
    expected = {
        "dempster": dirichlet_mean(5 * (np.prod(1 + evidence / 5, axis=1) - 1)),
        "discounted": dirichlet_mean(geometric),
        "averaging": dirichlet_mean(evidence.mean(1)),
        "probabilities": dirichlet_mean(evidence).mean(1),
        "logits": softmax / softmax.sum(-1, keepdims=True),
    }
    found = answers(logits, each, 1 / 4)
    assert list(found) == list(expected)
    for name, (p, u) in found.items():
        np.testing.assert_allclose(p, expected[name], rtol=1e-9)
        if FUSIONS[name].evidence is None:
            np.testing.assert_allclose(u, 1 - p.numpy().max(-1))
    np.testing.assert_allclose(found["discounted"][1], 5 / (geometric.sum(-1) + 5), rtol=1e-9)


def test_one_template_gives_the_same_fused_and_alone():
    logits = torch.randn(6, 1, 5, generator=torch.Generator().manual_seed(0)).double()
    softmax = softmax_answer(logits)
    for name, answer in answers(logits, softmax[0], 1.0).items():
        alone = softmax if FUSIONS[name].evidence is None else opinion_answer(logits.exp())
        for found, expected in zip(answer, alone, strict=True):
            torch.testing.assert_close(found, expected.squeeze(1))


# -- bad input -----------------------------------------------------------------------------------


def test_the_smallest_discount_may_have_been_stored_in_single_precision():
    for n_templates in range(2, 64):
        stored = torch.tensor(1 / n_templates).item()
        assert fuse(torch.ones(n_templates, 3), discount=stored).isfinite().all()


EVIDENCE, LABELS = torch.ones(4, 2, 3), torch.zeros(4, dtype=torch.long)
RANGE = r"discount must be in \[1 / templates, 1\] = \[0.25, 1\], got"
SHAPE = r"shape \(\.\.\., templates, classes\)"


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        *(
            (lambda eta=eta: fuse(torch.ones(4, 3), discount=eta), RANGE)
            for eta in (0.2, 1.01, -1.0, math.nan)
        ),
        (
            lambda: fuse(torch.ones(4, 3), rule="averaging", discount=0.5),
            "'averaging' takes no discount, got 0.5",
        ),
        (
            lambda: fuse(torch.ones(2, 3), rule="murphy"),
            "rule must be 'dempster' or 'averaging', got 'murphy'",
        ),
        (
            lambda: evidence_from_logits(torch.ones(3), kind="elu"),
            "kind must be 'exp', 'softplus' or 'relu', got 'elu'",
        ),
        *((lambda shape=shape: fuse(torch.ones(shape)), SHAPE) for shape in ((3,), (0, 3), (3, 0))),
        (lambda: conflict(torch.ones(3)), SHAPE),
        (lambda: fit_discount(EVIDENCE[:0], LABELS[:0]), r"at least one sample, got \(0, 2, 3\)"),
        (lambda: fit_discount(EVIDENCE, LABELS[:3]), r"labels \(samples,\)"),
        (lambda: fit_discount(EVIDENCE * math.inf, LABELS), "evidence must be finite"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(refused, message):
    with pytest.raises(ValueError, match=message):
        refused()
