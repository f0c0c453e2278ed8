"""The best run so far of each thing that is measured, for the progress of a long study."""

from __future__ import annotations

from pathlib import Path

from causalclip.report.results import RESULTS_FILE, Result


class Best:
    """Remembers the highest accuracy on each data set, half and domain."""

    def __init__(self) -> None:
        self._best: dict[str, tuple[float, str]] = {}

    def add(self, folder: Path) -> str:
        """Take in a run that has ended; what is now the best in its place, empty without a result.

        A result that cannot be read is no reason to end a study: the table at its end names it.
        """
        try:
            result = Result.read(folder / RESULTS_FILE)
        except (OSError, ValueError):
            return ""
        half = "" if result.subsample_classes == "all" else result.subsample_classes
        place = " ".join(filter(None, [result.dataset, half, *result.target_domains]))
        found = (result.metrics["accuracy"], result.trainer)
        self._best[place] = max(self._best.get(place, found), found)
        accuracy, method = self._best[place]
        return f"best of {place}: {method} {accuracy:.1f}"
