"""Converts a checkpoint of a published trainer: `causalclip convert`."""

from __future__ import annotations

import sys

from causalclip.runs.convert import main

if __name__ == "__main__":
    sys.exit(main())
