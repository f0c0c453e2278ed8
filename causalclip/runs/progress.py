"""What of a run is shown: everything, one line an epoch, or nothing but its end."""

from __future__ import annotations

import io
from typing import TextIO


class Epochs:
    """The last line of each epoch, as it was printed, and the result."""

    def __init__(self) -> None:
        self.last = ""

    def shown(self, line: str) -> list[str]:
        """The lines that this one makes known to be worth showing."""
        if line.startswith("epoch ["):
            # Up to the slash stands the epoch: another one has begun.
            over = self.last and line.partition("/")[0] != self.last.partition("/")[0]
            before, self.last = self.last, line
            return [before] if over else []
        if line.startswith("* accuracy"):
            return [*self.rest(), line]
        return []

    def rest(self) -> list[str]:
        """The line that is still held back."""
        held, self.last = self.last, ""
        return [held] if held else []


class BriefStream(io.TextIOBase):
    """A stdout that shows one line an epoch."""

    def __init__(self, console: TextIO) -> None:
        self.console, self.epochs, self.part = console, Epochs(), ""

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, text: str) -> int:
        """Take in text; every whole line is shown as `Epochs` says."""
        *lines, self.part = (self.part + text).split("\n")
        for line in lines:
            self._show(self.epochs.shown(line))
        return len(text)

    def finish(self) -> None:
        """Show what was held back."""
        self._show(self.epochs.rest())

    def _show(self, lines: list[str]) -> None:
        for line in lines:
            print(line, file=self.console, flush=True)
