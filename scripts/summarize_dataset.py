"""Summarize a dataset: the same as `swe-scaffold summarize`, from a bare clone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from swe_scaffold.cli import run

if __name__ == "__main__":
    run(["summarize", *sys.argv[1:]], prog=Path(__file__).name)
