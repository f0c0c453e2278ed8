"""search.json: the trials of `causalclip tune`, next to the recipe that it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict, cast

from causalclip.files.atomic import replacing
from causalclip.files.caches import NotJSONError, parse_json
from causalclip.files.reading import read_bounded
from causalclip.records.json_types import fits, nulls_for_not_finite

SEARCH_FILE = "search.json"
MOST_SEARCH_BYTES = 10_000_000


class Trial(TypedDict):
    """One trial of a search."""

    number: int
    end: str
    """How the trial ended: complete, pruned, or the error."""
    score: float | None
    """Mean over data sets and seeds, in per cent; for a pruned trial, the last known score."""
    seconds: float | None
    settings: dict[str, Any]
    """Settings of the trial by key; empty if they are those of the recipe."""


class SearchRecord(TypedDict):
    """A search: its method and protocol, the data that it used, and its trials."""

    method: str
    protocol: str
    command: str
    recipe: str
    """Name of the recipe that the search started from."""
    result: str
    """File of the recipe that the search wrote."""
    seeds: list[int]
    data: dict[str, dict[str, str]]
    """Data set -> part -> sha256 of the images on which trials were compared."""
    best: int
    """Number of the best trial."""
    trials: list[Trial]


def write_search(folder: Path, record: SearchRecord) -> None:
    """Write search.json into a folder atomically."""
    text = json.dumps(nulls_for_not_finite(record), indent=1, allow_nan=False)
    with replacing(folder / SEARCH_FILE) as part:
        part.write_text(text, encoding="utf-8")


def read_search(path: Path) -> SearchRecord:
    """Return the record in a search.json.

    Raises:
        ValueError: another file, or a damaged one; names it.
    """
    try:
        record = parse_json(read_bounded(path, most=MOST_SEARCH_BYTES))
    except NotJSONError as error:
        raise ValueError(f"{path}: cut or damaged, not JSON: {error}") from error
    if not fits(record, SearchRecord):
        raise ValueError(f"{path} must be the record of a search by causalclip tune")
    return cast(SearchRecord, record)
