"""`python -m causalclip` is the command `causalclip`."""

from __future__ import annotations

import sys

from causalclip.cli import main

if __name__ == "__main__":
    sys.exit(main())
