"""The domains of a data set, one a line."""

import sys

from causalclip.data.domain_names import main

if __name__ == "__main__":
    sys.exit(main())
