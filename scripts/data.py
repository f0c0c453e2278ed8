"""Lists, checks and downloads data sets: `causalclip data`."""

from __future__ import annotations

import sys

from causalclip.data.command import main

if __name__ == "__main__":
    sys.exit(main())
