"""`python -m swe_scaffold` is the command `swe-scaffold`."""

from swe_scaffold.cli import run

if __name__ == "__main__":
    run()
