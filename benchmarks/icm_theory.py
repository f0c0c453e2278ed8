"""Draw the figures of docs/theory.md: CLIP-ICM's error in planted worlds, by assumption.

    python benchmarks/icm_theory.py [--out docs/figures] [--seeds 3]

Every point is the mean over seeds of the largest principal angle between the estimated and the
planted subspace (by default 64 dimensions, 16 invariant, 4,000 pairs). Takes about a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from planted import World, explained

LAMS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
EPS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
PAIRS = (100, 200, 500, 1000, 2000, 5000, 10_000)
BROKEN = (0.0, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
ESTIMATORS: dict[str, dict[str, Any]] = {
    "difference, lambda 1000": {"lam": 1000.0},
    "generalized, eps 0.01": {"eps": 0.01},
}

Curve = tuple[Sequence[float], list[float]]


def curve(values: Sequence[float], measured: Callable[[float, int], float], seeds: int) -> Curve:
    """Return the mean of `measured(value, seed)` over seeds, for each value."""
    means = [sum(measured(value, seed) for seed in range(seeds)) / seeds for value in values]
    return values, means


def strengths(seeds: int) -> dict[str, Curve]:
    """Return the angle over lambda and eps, for raw and for normalised features."""
    curves = {}
    for name, normalize in (("raw", False), ("normalised", True)):
        curves[f"lambda, {name}"] = curve(
            LAMS, lambda lam, seed, n=normalize: World(seed=seed).error(lam=lam, normalize=n), seeds
        )
        curves[f"1 / eps, {name}"] = curve(
            [1 / eps for eps in EPS],
            lambda inverse, seed, n=normalize: World(seed=seed).error(eps=1 / inverse, normalize=n),
            seeds,
        )
    return curves


def over(field: str, values: Sequence[float], seeds: int, **world: Any) -> dict[str, Curve]:
    """Return the angle of both estimators over one field of the world."""
    return {
        name: curve(
            values,
            lambda value, seed, o=options: World(seed=seed, **{**world, field: value}).error(**o),
            seeds,
        )
        for name, options in ESTIMATORS.items()
    }


def rank(seeds: int) -> dict[str, Curve]:
    """Return R squared of the factors inside the subspace, by number of moved variant factors."""
    moved = (8, 16, 24, 32, 40, 44, 48)

    def r2(count: float, seed: int, part: slice) -> float:
        world = World(seed=seed, moved=int(count))
        fresh = world.but(confounding=0.0)
        inside = fresh.features()[0] @ world.estimate(eps=1e-3).basis
        return explained(fresh.factors()[0], inside)[part].mean().item()

    k = World().dim_inv
    parts = {"invariant factors": slice(None, k), "variant factors": slice(k, None)}
    return {
        name: curve(moved, lambda count, seed, p=part: r2(count, seed, p), seeds)
        for name, part in parts.items()
    }


def draw(
    curves: dict[str, Curve], file: Path, *, x: str, y: str = "angle to the planted span, degrees"
) -> None:
    """Write one figure; axes over several decades are logarithmic."""
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name, (values, means) in curves.items():
        axes.plot(values, means, marker="o", label=name)
        print(f"{file.stem}: {name}: " + ", ".join(f"{m:.3g}" for m in means))
    wide = max(max(values) for values, _ in curves.values())
    if wide > 100:
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Draw all figures."""
    parser = argparse.ArgumentParser(description="Draws the figures of docs/theory.md.")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    plt.switch_backend("Agg")  # no display is needed to write files
    plt.rcParams["svg.hashsalt"] = "causalclip"  # the same file from every run
    given.out.mkdir(parents=True, exist_ok=True)
    seeds, out = given.seeds, given.out
    draw(strengths(seeds), out / "theory_strength.svg", x="lambda, or 1 / eps")
    pairs = over("n_pairs", PAIRS, seeds, noise=0.1)
    draw(pairs, out / "theory_pairs.svg", x="pairs (noise 0.1 on features)")
    noise = over("noise", BROKEN, seeds)
    draw(noise, out / "theory_noise.svg", x="noise on features")
    leak = over("leak", BROKEN, seeds)
    draw(leak, out / "theory_leak.svg", x="how much interventions move invariant factors")
    of_48, r2 = "variant factors moved, of 48", "mean R squared inside the subspace"
    draw(rank(seeds), out / "theory_rank.svg", x=of_48, y=r2)


if __name__ == "__main__":
    main()
