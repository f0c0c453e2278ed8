"""Evidence and fusion, against Dempster's rule over focal sets and its pairwise form."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from causalclip.cdc.evidence import (
    MAX_EXPONENT,
    Opinion,
    conflict,
    evidence_from_logits,
    evidence_of,
    fit_discount,
    fuse,
    opinion,
    probabilities,
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


def fuse_pair(first, second):
    """TMC's two-view rule in opinions, as printed in the paper, with its double loop."""
    n_classes = len(first.belief)
    clash = sum(
        first.belief[i] * second.belief[j]
        for i in range(n_classes)
        for j in range(n_classes)
        if i != j
    )
    belief = (
        first.belief * second.belief
        + first.belief * second.uncertainty
        + second.belief * first.uncertainty
    ) / (1 - clash)
    return Opinion(belief, first.uncertainty * second.uncertainty / (1 - clash))


@settings(max_examples=40, deadline=None)
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


def test_fusion_is_the_pairwise_rule_applied_in_turn():
    evidence = random_evidence(5, 7)
    fused = opinion(evidence[0])
    for row in evidence[1:]:
        fused = fuse_pair(fused, opinion(row))
    ours = opinion(fuse(evidence))
    torch.testing.assert_close(ours.belief, fused.belief, **FP64)
    torch.testing.assert_close(ours.uncertainty, fused.uncertainty, **FP64)


def test_any_batch_shape_gives_each_samples_own_fusion():
    evidence = random_evidence(2, 3, 4, 6)
    fused, clash = fuse(evidence), conflict(evidence)
    assert fused.shape == (2, 3, 6) and clash.shape == (2, 3)
    for index in itertools.product(range(2), range(3)):
        torch.testing.assert_close(fused[index], fuse(evidence[index]), **FP64)
        torch.testing.assert_close(clash[index], conflict(evidence[index]), **FP64)


def test_the_vacuous_opinion_is_the_identity():
    evidence = random_evidence(1, 6)
    with_vacuous = torch.cat([evidence, torch.zeros_like(evidence)])
    torch.testing.assert_close(fuse(with_vacuous), evidence[0], **FP64)
    assert conflict(with_vacuous).item() == pytest.approx(0, abs=1e-12)


def test_fusion_is_commutative_and_associative():
    evidence = random_evidence(4, 6)
    whole = fuse(evidence)
    torch.testing.assert_close(fuse(evidence[[2, 0, 3, 1]]), whole, **FP64)
    grouped = torch.stack([fuse(evidence[:2]), fuse(evidence[2:])])
    torch.testing.assert_close(fuse(grouped), whole, **FP64)
    shuffled = evidence[[2, 0, 3, 1]]
    torch.testing.assert_close(conflict(shuffled), conflict(evidence), **FP64)


def test_relabelling_the_classes_relabels_the_fusion():
    evidence, order = random_evidence(3, 5), [4, 2, 0, 1, 3]
    torch.testing.assert_close(fuse(evidence[:, order]), fuse(evidence)[order], **FP64)


def test_agreeing_witnesses_have_little_conflict_and_contradicting_ones_much():
    agree = torch.tensor([[1e6, 0.0], [1e6, 0.0]])
    contradict = torch.tensor([[1e6, 0.0], [0.0, 1e6]])
    assert conflict(agree) == 0
    assert conflict(contradict) > 0.999


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


def test_the_smallest_discount_is_the_geometric_average():
    evidence = random_evidence(4, 6)
    expected = 6 * ((1 + evidence / 6).prod(0) ** (1 / 4) - 1)
    torch.testing.assert_close(fuse(evidence, discount=1 / 4), expected, **FP64)
    same = evidence[:1].expand(4, 6)
    torch.testing.assert_close(fuse(same, discount=1 / 4), evidence[0], **FP64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), discount=st.floats(1 / 3, 1))
def test_no_discount_changes_the_predicted_class(seed, discount):
    evidence = random_evidence(8, 3, 5, seed=seed)
    assert torch.equal(fuse(evidence, discount=discount).argmax(-1), fuse(evidence).argmax(-1))


def test_opinions_add_up_to_one_and_return_their_evidence():
    evidence = random_evidence(4, 6)
    view = opinion(evidence)
    torch.testing.assert_close(view.belief.sum(-1) + view.uncertainty, torch.ones(4).double())
    torch.testing.assert_close(evidence_of(view), evidence, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(view.uncertainty, uncertainty(evidence), **FP64)


def test_probabilities_are_the_dirichlets_mean():
    evidence = random_evidence(4, 6)
    expected = torch.distributions.Dirichlet(evidence + 1).mean
    torch.testing.assert_close(probabilities(evidence), expected, **FP64)


def test_no_evidence_is_full_uncertainty_and_even_odds():
    evidence = torch.zeros(3, 5)
    assert uncertainty(fuse(evidence)) == 1
    torch.testing.assert_close(probabilities(fuse(evidence)), torch.full((5,), 0.2))


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


def test_small_evidence_is_not_lost_to_rounding():
    evidence = torch.full((2, 3), 1e-6)
    # To first order the fused evidence of small ones is their sum.
    torch.testing.assert_close(fuse(evidence), torch.full((3,), 2e-6), rtol=1e-5, atol=0)


@pytest.mark.parametrize("options", [{}, {"discount": 0.5}, {"rule": "averaging"}])
def test_fusion_passes_gradcheck(options):
    evidence = random_evidence(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: fuse(e, **options), evidence)
    assert torch.autograd.gradcheck(lambda e: probabilities(fuse(e, **options)), evidence)
    assert torch.autograd.gradcheck(lambda e: uncertainty(fuse(e, **options)), evidence)


@pytest.mark.parametrize("kind", ["exp", "softplus"])
def test_evidence_from_logits_passes_gradcheck(kind):
    logits = torch.linspace(-2, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: evidence_from_logits(x, 0.5, kind=kind), logits)


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


def test_the_fitted_discount_undoes_counting_one_witness_four_times():
    evidence, labels = overconfident_split()
    assert fit_discount(evidence, labels) == pytest.approx(0.25, abs=0.06)


def test_the_fitted_discount_has_the_best_likelihood_of_a_fine_grid():
    evidence, labels = overconfident_split(seed=3)
    independent = random_evidence(400, 4, 3, seed=1)
    mixed = torch.where(torch.arange(4)[:, None] < 2, evidence, independent)

    def loss(discount):
        log_p = probabilities(fuse(mixed, discount=discount)).log()
        return torch.nn.functional.nll_loss(log_p, labels).item()

    best = min(loss(discount) for discount in torch.linspace(0.25, 1, 301).tolist())
    assert loss(fit_discount(mixed, labels)) <= best + 1e-6


def test_the_fitted_discount_of_certain_right_answers_is_dempsters():
    evidence = torch.tensor([50.0, 0.1, 0.1]).expand(20, 4, 3)
    assert fit_discount(evidence, torch.zeros(20, dtype=torch.long)) == 1.0


def test_a_single_template_leaves_no_discount_to_fit():
    assert fit_discount(random_evidence(5, 1, 3), torch.zeros(5, dtype=torch.long)) == 1.0


@pytest.mark.parametrize("discount", [0.2, 1.01, -1.0, float("nan")])
def test_a_discount_out_of_range_is_refused(discount):
    with pytest.raises(ValueError, match=r"discount must be in \[1 / templates, 1\] = \[0.25, 1\]"):
        fuse(torch.ones(4, 3), discount=discount)


def test_the_smallest_discount_may_have_been_stored_in_single_precision():
    for n_templates in range(2, 64):
        stored = torch.tensor(1 / n_templates).item()
        assert fuse(torch.ones(n_templates, 3), discount=stored).isfinite().all()


def test_a_discount_for_the_averaging_rule_is_refused():
    with pytest.raises(ValueError, match="'averaging' takes no discount, got 0.5"):
        fuse(torch.ones(4, 3), rule="averaging", discount=0.5)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="rule must be 'dempster' or 'averaging', got 'murphy'"):
        fuse(torch.ones(2, 3), rule="murphy")
    with pytest.raises(ValueError, match="kind must be 'exp', 'softplus' or 'relu', got 'elu'"):
        evidence_from_logits(torch.ones(3), kind="elu")


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0)])
def test_evidence_without_templates_or_classes_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(\.\.\., templates, classes\)"):
        fuse(torch.ones(shape))
    with pytest.raises(ValueError, match=r"shape \(\.\.\., templates, classes\)"):
        conflict(torch.ones(shape))


def test_fitting_refuses_what_it_cannot_fit():
    evidence, labels = torch.ones(4, 2, 3), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"at least one sample, got \(0, 2, 3\)"):
        fit_discount(evidence[:0], labels[:0])
    with pytest.raises(ValueError, match=r"labels \(samples,\)"):
        fit_discount(evidence, labels[:3])
    with pytest.raises(ValueError, match="evidence must be finite"):
        fit_discount(evidence * float("inf"), labels)
    with pytest.raises(ValueError, match="discount must be in"):
        fit_discount(evidence, labels, bounds=(0.1, 1))
    with pytest.raises(ValueError, match="bounds must be increasing"):
        fit_discount(evidence, labels, bounds=(0.9, 0.6))
