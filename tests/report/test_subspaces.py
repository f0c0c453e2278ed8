"""What a table of CLIP-ICM's runs says of their subspaces."""

from __future__ import annotations

import pytest

from causalclip.report import summarize


def head(dim_inv: int, angle: float | None = None, *, gain: float | None = None) -> dict:
    """What details.heads of a run with four dimensions hold, as far as tables read it."""
    said: dict = {"choice": {"dim_inv": dim_inv}, "spectrum": [4.0, 3.0, 2.0, 1.0]}
    if gain is not None:
        said["gain"] = {"points": gain, "standard_error": 1.0}
    if angle is not None:
        said["certainty"] = {"angle_95": angle, "determined": angle < 45}
    return said


@pytest.fixture
def write_domain(write_run):
    def write(domain, **heads):
        return write_run(
            f"lodo/{domain}",
            50.0,
            trainer="CLIP_ICM",
            protocol="lodo",
            target=[domain],
            variants={"zeroshot": {"accuracy": 40.0}},
            details={"heads": heads},
        )

    return write


def notes(tmp_path, capsys) -> list[str]:
    assert summarize.main([str(tmp_path)]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if " on Set, " in line]


def test_the_widest_angle_of_the_runs_stands_below_the_table(tmp_path, write_domain, capsys):
    write_domain("ink", zeroshot=head(2, 8.2))
    write_domain("neon", zeroshot=head(3, 12.6))
    (line,) = notes(tmp_path, capsys)
    said, more = line.rsplit(", ", 1)
    assert said == "CLIP_ICM on Set, zeroshot: k = 2 to 3: 95 % of angles below 13 degrees"
    assert more == "the widest of 2 runs"


def test_a_single_run_is_said_as_it_is(tmp_path, write_domain, capsys):
    write_domain("ink", linear_probe=head(1, 8.2))
    said = "CLIP_ICM on Set, linear_probe: k = 1: 95 % of angles below 8 degrees"
    assert notes(tmp_path, capsys) == [said]


def test_a_subspace_that_is_not_determined_is_warned_of_by_its_folder(
    tmp_path, write_domain, capsys
):
    folder = write_domain("ink", zeroshot=head(2, 88.0))
    write_domain("neon", zeroshot=head(2, 8.0))
    *_, warning = notes(tmp_path, capsys)
    assert warning.endswith(f"warning: the subspace is not determined in {folder}")


def test_plain_features_that_stayed_are_counted_and_have_no_angle(tmp_path, write_domain, capsys):
    write_domain("ink", zeroshot=head(4, 0.0, gain=0.1), linear_probe=head(2, gain=5.0))
    write_domain("neon", zeroshot=head(2, gain=3.0), linear_probe=head(2, gain=4.0))
    said = ["CLIP_ICM on Set, zeroshot: plain features stay in 1 of 2 runs"]
    assert notes(tmp_path, capsys) == said


def test_runs_that_asked_for_neither_say_nothing(tmp_path, write_domain, capsys):
    write_domain("ink", zeroshot=head(4), linear_probe=head(2))
    assert notes(tmp_path, capsys) == []
