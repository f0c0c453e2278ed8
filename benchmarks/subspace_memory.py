"""CLIP-ICM's fit: its memory does not grow with the images, its time is two matrix products.

    python benchmarks/subspace_memory.py [--dim 512] [--batch 500]

Prints two ratios, each of measurements within this run: peak memory of a fit on 100,000 synthetic
feature pairs over one on 1,000 (expected below 1.05), and the time of `update` over that of the two
float64 products z'z and d'd that no implementation can avoid (expected below 1.5).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from tabulate import tabulate

from causalclip.icm.subspace import InterventionMoments


def fit(n_pairs: int, dim: int, batch: int) -> None:
    """Stream synthetic pairs through the moments and solve, as a pass over a data set would."""
    moments = InterventionMoments(dim)
    generator = torch.Generator().manual_seed(0)
    for start in range(0, n_pairs, batch):
        z = torch.randn(min(batch, n_pairs - start), dim, generator=generator)
        moments.update(z, z + 0.1 * torch.randn(z.shape, generator=generator))
    moments.solve(min(dim, 64))


def peak_memory(n_pairs: int, args: argparse.Namespace) -> float:
    """Peak resident memory in MiB of a fresh process that fits `n_pairs` pairs."""
    command = [sys.executable, __file__, "--fit", str(n_pairs)]
    command += ["--dim", str(args.dim), "--batch", str(args.batch)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def update_over_products(dim: int, batch: int, repeats: int) -> tuple[float, float]:
    """Median seconds of one update and of its two matrix products, measured in turn."""
    generator = torch.Generator().manual_seed(0)
    z, z_do = (torch.randn(batch, dim, generator=generator) for _ in range(2))
    moments = InterventionMoments(dim)
    before, change = z.double(), (z - z_do).double()

    def products() -> tuple[torch.Tensor, torch.Tensor]:
        return before.T @ before, change.T @ change

    pairs = [(seconds(lambda: moments.update(z, z_do)), seconds(products)) for _ in range(repeats)]
    updates, plain = zip(*pairs[2:], strict=True)  # the first two warm caches and threads up
    return statistics.median(updates), statistics.median(plain)


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measure both ratios and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--fit", type=int, help="only fit this many pairs, print peak memory")
    args = parser.parse_args()
    if args.fit:
        fit(args.fit, args.dim, args.batch)
        # Kilobytes on Linux, bytes on macOS.
        unit = 2**20 if sys.platform == "darwin" else 2**10
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
        return
    small, large = peak_memory(1_000, args), peak_memory(100_000, args)
    update, plain = update_over_products(args.dim, args.batch, args.repeats)
    rows = [
        ["peak memory, MiB: 100,000 / 1,000 pairs", large, small, large / small, 1.05],
        ["time, ms: update / its two products", 1e3 * update, 1e3 * plain, update / plain, 1.5],
    ]
    print(tabulate(rows, headers=["", "this", "that", "ratio", "at most"], floatfmt=".4g"))


if __name__ == "__main__":
    main()
