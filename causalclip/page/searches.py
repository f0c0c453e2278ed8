"""The searches of `causalclip tune` on the page: a table of trials for each search."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from causalclip.page.tables import PageCell, PageTable, plain_table
from causalclip.records.results import PROTOCOL_TITLES
from causalclip.records.searches import SEARCH_FILE, SearchRecord, read_search


def search_tables(root: Path) -> tuple[list[PageTable], list[str]]:
    """Return a table for each search below a folder, and a message for each unreadable file."""
    tables, problems = [], []
    for path in sorted(root.rglob(SEARCH_FILE)):
        try:
            tables.append(search_table(read_search(path)))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    return tables, problems


def search_table(search: SearchRecord) -> PageTable:
    """Return the trials of a search, the best one marked, with a note on its recipe and data."""
    keys = list(dict.fromkeys(key for trial in search["trials"] for key in trial["settings"]))
    rows = []
    for trial in search["trials"]:
        score = math.nan if trial["score"] is None else trial["score"]
        best = trial["number"] == search["best"]
        tried = [trial["settings"].get(key, "as the recipe") for key in keys]
        cell = PageCell("-" if math.isnan(score) else f"{score:.2f}", float(score), best=best)
        rows.append([trial["number"], cell, trial["end"], *tried, f"{trial['seconds'] or 0:.0f}"])
    protocol = PROTOCOL_TITLES.get(search["protocol"], search["protocol"])
    title = f"{search['method']} on {', '.join(search['data'])}, {protocol.lower()}"
    table = plain_table(title, ["trial", "score", "end", *keys, "s"], rows)
    digests = (
        f"{name} ({', '.join(f'{part} {digest[:16]}' for part, digest in parts.items())})"
        for name, parts in search["data"].items()
    )
    return replace(
        table,
        note=f"Score: mean over data sets and the seeds {', '.join(map(str, search['seeds']))}, on "
        "validation images; no test image was read. The best trial (★) is the recipe "
        f"{search['result']}. The search started from {search['recipe']}. Images (sha256): "
        f"{'; '.join(digests)}. Command: {search['command']}",
    )
