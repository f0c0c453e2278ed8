"""`python -m causalclip` is the command `causalclip`."""

import sys

from causalclip.cli import main

if __name__ == "__main__":
    sys.exit(main())
