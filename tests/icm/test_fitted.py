"""The result of a fit comes back from its tensors and facts, and its probes are scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from causalclip.icm.comparison import angles, compared, kept
from causalclip.icm.fitted import Chosen, FittedICM, probes_of
from causalclip.icm.folds import Fold
from causalclip.icm.selection import Choice, Scored
from causalclip.icm.subspace import InterventionMoments

DIM = 6


def world(seed: int = 0) -> tuple[InterventionMoments, Fold]:
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(np.arange(90) % 3)
    z = torch.from_numpy(np.eye(3, DIM)[labels] * 2 + rng.normal(size=(90, DIM))).float()
    z_do = z + torch.from_numpy(rng.normal(size=(90, DIM)) * np.arange(DIM)).float()
    moments = InterventionMoments(DIM).update(z, z_do)
    return moments, Fold("ink", moments, None, z, labels, z, labels)


def chosen(dim_inv: int = 3) -> Chosen:
    choice = Choice("generalized", 0.1, dim_inv)
    cells = (Scored(Choice("difference", 1.0, 2), (40.0, 60.0)), Scored(choice, (70.0, 75.0)))
    return Chosen(choice, choice.solve(world()[0]), cells)


def fitted() -> FittedICM:
    zeroshot, probe = chosen(2), chosen(3)
    facts = {"heads": {"zeroshot": zeroshot.record(), "linear_probe": probe.record()}}
    probes = probes_of([world()[1]], probe.projection, 3)
    projections = {"zeroshot": zeroshot.projection, "linear_probe": probe.projection}
    return FittedICM(projections, probes, facts)


def test_tensors_and_facts_that_went_through_json_give_the_fit_again():
    fit = fitted()
    again = FittedICM.from_state(fit.state(), json.loads(json.dumps(fit.facts)))
    assert again.facts == fit.facts and list(again.state()) == list(fit.state())
    assert all(torch.equal(tensor, again.state()[name]) for name, tensor in fit.state().items())
    for head, projection in fit.projections.items():
        assert again.projections[head].settings == projection.settings


def test_where_all_dimensions_stay_the_probe_inside_says_what_the_plain_one_says():
    moments, fold = world()
    turned = Choice("difference", 0.0, DIM).solve(moments)
    probes = probes_of([fold], turned, 3)
    inside = probes["icm"].logits(turned(fold.features))
    torch.testing.assert_close(inside, probes["plain"].logits(fold.features))
    scaled = Choice("generalized", 0.1, DIM, orthonormal=False).solve(moments)
    assert not scaled.turns_only  # lengths change, and with them what the penalty is about


def test_the_names_of_a_checkpoint_stay():
    projection = ["basis", "spectrum", "intervention_energy", "feature_energy"]
    names = [f"{head}_{name}" for head in ("zeroshot", "linear_probe") for name in projection]
    probes = [f"probe_{name}_{part}" for name in ("plain", "icm") for part in ("weight", "bias")]
    assert list(fitted().state()) == names + probes


def test_a_missing_tensor_is_named():
    fit = fitted()
    state = fit.state()
    del state["probe_icm_bias"]
    with pytest.raises(KeyError, match="probe_icm_bias"):
        FittedICM.from_state(state, fit.facts)


def test_a_fit_without_probes_has_none():
    only = fitted().projections["zeroshot"]
    fit = FittedICM({"zeroshot": only}, facts={"heads": {"zeroshot": chosen(2).record()}})
    assert not FittedICM.from_state(fit.state(), fit.facts).probes


def test_each_reading_has_logits_of_its_own_subspace():
    fit, z, text = fitted(), world()[1].features[:5], torch.eye(3, DIM)
    inside = fit.projections["zeroshot"].basis.float()
    logits = fit.zeroshot_logits(z, text, 7.0)["zeroshot_icm"]
    cosine = torch.cosine_similarity((z @ inside)[:, None], text @ inside, dim=-1)
    torch.testing.assert_close(logits, 7 * cosine)
    raw = fit.zeroshot_logits(z, text, 7.0, normalize=False)["zeroshot_icm"]
    torch.testing.assert_close(raw, 7 * (z @ inside) @ (text @ inside).T)

    probed = fit.probe_logits(z)
    inside = z @ fit.projections["linear_probe"].basis.float()
    for name, x, probe in (("linear_probe", z, "plain"), ("linear_probe_icm", inside, "icm")):
        weight, bias = fit.probes[probe].weight.float(), fit.probes[probe].bias.float()
        torch.testing.assert_close(probed[name].float(), x @ weight.T + bias)


def test_a_choice_is_recorded_with_its_grid_and_said_in_a_line():
    found = chosen()
    record = found.record()
    assert record["choice"]["dim_inv"] == 3 and len(record["grid"]) == 2
    assert record["source_accuracy"] == 72.5
    assert Chosen(found.choice, found.projection).record()["source_accuracy"] is None
    assert str(found).startswith("generalized, strength 0.1, 3 of 6 dimensions; keeps ")


def test_probes_are_scikit_learns_on_features_and_on_projected_ones():
    fold, projection = world()[1], chosen().projection
    half = [slice(None, 40), slice(40, None)]
    parts = [
        Fold("", None, None, fold.features[h], fold.labels[h], fold.features[h], fold.labels[h])
        for h in half
    ]
    probes = probes_of(parts, projection, 3, c=0.5)
    for name, x in (("plain", fold.features), ("icm", fold.features @ projection.basis.float())):
        model = LogisticRegression(C=0.5, max_iter=1000).fit(x.numpy(), fold.labels.numpy())
        found = probes[name].logits(x).softmax(-1)
        np.testing.assert_allclose(found, model.predict_proba(x.numpy()), atol=1e-4)


def test_a_subspace_compared_with_its_own_pairs_is_the_same():
    found, (moments, _) = chosen(), world()
    result = compared(found, moments)
    assert result["largest_angle"] == pytest.approx(0, abs=1e-5)
    assert result["overlap"] == pytest.approx(1) and result["chance"] == 0.5
    expected = found.projection.intervention_energy_kept
    assert result["intervention_energy_kept"] == pytest.approx(expected)


def test_angles_and_kept_shares_of_a_known_turn():
    turn = np.deg2rad(30)
    plane = torch.eye(4, dtype=torch.float64)[:, :2]
    turned = plane.clone()
    turned[:, 1] = torch.tensor([0, np.cos(turn), np.sin(turn), 0])
    found = angles(plane, turned)
    assert found["largest_angle"] == pytest.approx(30) and found["mean_angle"] == pytest.approx(15)
    assert found["overlap"] == pytest.approx((1 + np.cos(turn) ** 2) / 2)
    moment = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    assert kept(3 * plane, moment) == pytest.approx(3 / 10)
