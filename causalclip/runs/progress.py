"""What of a run is shown: everything, or one line an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def brief(lines: Iterable[str]) -> Iterator[str]:
    """The last line of each epoch, as it was printed, and the result."""
    last = ""
    for line in lines:
        if line.startswith("epoch ["):
            # Up to the slash stands the epoch: another one has begun.
            if last and line.partition("/")[0] != last.partition("/")[0]:
                yield last
            last = line
        elif line.startswith("* accuracy"):
            if last:
                yield last
            last = ""
            yield line
    if last:
        yield last
