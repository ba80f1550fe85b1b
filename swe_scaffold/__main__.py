"""`python -m swe_scaffold` is the command `swe-scaffold`."""

import sys

from swe_scaffold.cli import main

if __name__ == "__main__":
    sys.exit(main())
