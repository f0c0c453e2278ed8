"""Tables from the results.json files below a folder: `causalclip summarize`."""

from __future__ import annotations

import sys

from causalclip.report.summarize import main

if __name__ == "__main__":
    sys.exit(main())
