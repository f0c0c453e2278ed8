"""Train and evaluate: the command line of CoOp's train.py, for every trainer and data set here."""

from __future__ import annotations

import sys

from causalclip.runs.train import main

if __name__ == "__main__":
    sys.exit(main())
