"""The Python that runs tests in a sandbox: an environment that is seen there and cannot be written.

What is installed is asked of that Python itself, inside the sandbox.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swe_scaffold.errors import UsageError
from swe_scaffold.sandbox import Sandbox
from swe_scaffold.terminal import show

_SYSTEM = ("/", "/usr")
_SECONDS = 60.0
_ASK = """
import importlib.metadata, json, platform
found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
names = {str(name): str(version) for name, version in found.items() if name}
print(json.dumps({"python": platform.python_version(), "packages": dict(sorted(names.items()))}))
"""
_HINT = "--environment FOLDER names a virtual environment that has pytest and what the tests import"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The folder that goes first on PATH, and what must be seen for its Python to run."""

    programs: Path
    readable: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Installed:
    """A version of Python, and of each package by name."""

    python: str
    packages: Mapping[str, str]


def find_interpreter(environment: Path | None) -> Interpreter:
    """Return the Python of an environment; without one, of that which this program runs in.

    Raises:
        UsageError: The folder has no Python.
    """
    folder = Path(sys.prefix) if environment is None else environment.absolute()
    python = folder / "bin" / "python"
    if not python.exists():
        raise UsageError("has no bin/python", where=str(folder), hint=_HINT)
    # A link may lead over names that it needs as well as where it ends.
    homes = [_home(folder), python.resolve().parent]
    needed = [folder, *(home.parent for home in homes if home is not None)]
    seen = [path for path in dict.fromkeys(needed) if not _is_system(path)]
    return Interpreter(folder / "bin", tuple(seen))


def ask_versions(sandbox: Sandbox) -> Installed:
    """Ask the Python that a sandbox finds what is installed.

    Raises:
        UsageError: There is none that runs, or it has no pytest.
        EnvironmentFailure: The sandbox cannot be started.
    """
    done = sandbox.run(["python", "-I", "-c", _ASK], seconds=_SECONDS)
    line = done.stdout.decode("utf-8", "replace").strip().rpartition("\n")[2]
    try:
        if not done.ok:
            raise ValueError(line)
        told = json.loads(line)
        found = Installed(
            str(told["python"]), {str(k): str(v) for k, v in told["packages"].items()}
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        said = f": {show(line, width=160)}" if line else ""
        raise UsageError(f"no Python runs in the sandbox{said}", hint=_HINT) from None
    if "pytest" not in {name.lower() for name in found.packages}:
        raise UsageError("pytest is not installed where tests would run", hint=_HINT)
    return found


def _home(folder: Path) -> Path | None:
    """Return where a virtual environment says that its Python was."""
    try:
        lines = (folder / "pyvenv.cfg").read_text("utf-8").split("\n")
    except (OSError, ValueError):
        return None
    named = [
        line.partition("=")[2].strip() for line in lines if line.split("=")[0].strip() == "home"
    ]
    return Path(named[0]) if named and Path(named[0]).is_absolute() else None


def _is_system(path: Path) -> bool:
    return str(path) in _SYSTEM or path.is_relative_to("/usr")
