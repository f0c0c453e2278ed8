"""Notes on the subspaces of CLIP-ICM's runs below a table."""

from __future__ import annotations

import pytest

from causalclip.report.notes import subspace_notes
from causalclip.report.runs import load_runs


def head(dim_inv: int, angle: float | None = None, *, gain: float | None = None) -> dict:
    """Return the `details.heads` of a subspace of four dimensions that notes read."""
    facts: dict = {"choice": {"dim_inv": dim_inv}, "spectrum": [4.0, 3.0, 2.0, 1.0]}
    if gain is not None:
        facts["gain"] = {"points": gain, "standard_error": 1.0}
    if angle is not None:
        facts["certainty"] = {"angle_95": angle, "determined": angle < 45}
    return facts


@pytest.mark.parametrize(
    ("ink", "neon", "notes"),
    [
        (
            {"zeroshot": head(2, 8.2)},
            {"zeroshot": head(3, 12.6)},
            ["zeroshot: k = 2 to 3: 95 % of angles below 13 degrees, the widest of 2 runs"],
        ),
        (
            {"linear_probe": head(1, 8.2)},
            None,
            ["linear_probe: k = 1: 95 % of angles below 8 degrees"],
        ),
        (
            {"zeroshot": head(4, 0.0, gain=0.1), "linear_probe": head(2, gain=5.0)},
            {"zeroshot": head(2, gain=3.0), "linear_probe": head(2, gain=4.0)},
            ["zeroshot: plain features stay in 1 of 2 runs"],
        ),
        ({"zeroshot": head(4), "linear_probe": head(2)}, None, []),  # neither gain nor bootstrap
        (
            {"zeroshot": head(2, 88.0)},
            {"zeroshot": head(2, 8.0)},
            [
                "zeroshot: k = 2: 95 % of angles below 88 degrees, the widest of 2 runs",
                "zeroshot: warning: the subspace is not determined in {ink}",
            ],
        ),
    ],
)
def test_notes_on_subspaces(tmp_path, write_run, ink, neon, notes):
    more = {"trainer": "CLIP_ICM", "variants": {"zeroshot": {"accuracy": 40.0}}}
    folders = {
        domain: write_run(f"lodo/{domain}", 50.0, target=[domain], details={"heads": heads}, **more)
        for domain, heads in {"ink": ink, "neon": neon}.items()
        if heads
    }
    expected = [f"CLIP_ICM on Set, {note.format(**folders)}" for note in notes]
    assert subspace_notes(load_runs(tmp_path)) == expected


def test_details_of_another_form_are_no_subspaces(write_run, tmp_path):
    for seed, heads in enumerate([[1], "x", {"a": 5}, {"a": {"choice": 1, "spectrum": []}}]):
        write_run(f"a/{seed}", 50.0, seed=seed, details={"heads": heads})
    assert subspace_notes(load_runs(tmp_path)) == []
