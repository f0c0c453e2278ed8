"""Groups of rows under keys of a known type; pandas' annotations allow any scalar as a key."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd


def by_name(rows: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each name in a column, in the order in which the names come."""
    for name, part in rows.groupby(column, sort=False):
        yield str(name), part
