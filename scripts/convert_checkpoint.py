"""Converts a checkpoint of a published trainer: `causalclip convert`."""

import sys

from causalclip.runs.convert import main

if __name__ == "__main__":
    sys.exit(main())
