"""The peers' environments, each from its locked file in benchmarks/peers/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def make(name: str, folder: Path) -> None:
    """Make the environment of one peer, where there is none yet."""
    target = folder / name
    if (target / "done").is_file():
        return
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", target], check=True)
    install = [target / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "-r", HERE / "peers" / f"{name}.txt"], check=True)
    (target / "done").write_text("")


def python(name: str, folder: Path) -> Path:
    """Return the interpreter of a peer's environment."""
    return folder / name / "bin" / "python"
