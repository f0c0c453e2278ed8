"""The sets that are drawn below the root on first use, without a download."""

from __future__ import annotations

from dataclasses import replace

from causalclip.data.catalogue.facts import Facts

LOOKS = ("ink", "chalk", "neon", "noisy_paper")

SCANS = Facts(
    name="HandwrittenDigits",
    config="handwritten_digits",
    folder="handwritten_digits",
    layout="drawn",
    template="a photo of the number {}.",
    split_file="split_causalclip_HandwrittenDigits.json",
    domains=LOOKS,
    looks=("scan", *LOOKS),
    classes=10,
    images=1797,
    pictures=1797,
    licence="CC BY 4.0",
    page="https://archive.ics.uci.edu/dataset/80",
    by_hand="Nothing to do: built below the root on first use.",
)

BUNDLED = (
    SCANS,
    replace(
        SCANS,
        name="ColouredDigits",
        config="coloured_digits",
        folder="coloured_digits",
        split_file="",
        looks=LOOKS,
        images=7188,
    ),
    Facts(
        name="CausalShapes",
        config="causal_shapes",
        folder="causal_shapes",
        layout="drawn",
        split_file="factors.json",
        classes=10,
        domains=("flat", "sketch", "neon", "watercolour"),
        looks=("flat", "sketch", "neon", "watercolour"),
        pictures=2400,
        licence="MIT, drawn by this repository",
        page="docs/datasets.md",
        by_hand=SCANS.by_hand,
    ),
)
