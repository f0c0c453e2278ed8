"""KEY VALUE pairs for the configuration among the words of a command line."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Sequence

from causalclip.runs.plan import PlanError

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|USE_CUDA|VERBOSE")
"""A key of the configuration: CDC is a method, TRAINER.CDC.M a key."""


def parse(arguments: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read a command line; KEY VALUE pairs may stand anywhere, no list takes them for its own.

    Raises:
        PlanError: a key without its value, or a word that belongs to nothing.
    """
    words, pairs = divided(arguments)
    args = parser.parse_args(words)
    if args.settings:
        raise PlanError(f"KEY VALUE pairs begin with a key, got {' '.join(args.settings)}")
    args.settings = pairs
    return args


def divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line and its KEY VALUE pairs, wherever they stand.

    Raises:
        PlanError: a key without its value.
    """
    words, pairs, rest = [], [], iter(arguments)
    for word in rest:
        (pairs if KEY.fullmatch(word) else words).append(word)
        if word == "--grid":  # a key behind it is a grid without values, and no pair
            words.extend(itertools.islice(rest, 1))
        if KEY.fullmatch(word):
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise PlanError(f"options must come as KEY VALUE pairs, got {word} alone")
            pairs.append(value)
    return words, pairs
