"""The error tree; every error people can meet has an exit code and, where one exists, a next step.

    ScaffoldError                        1   our bug, unless a child says otherwise
    ├── UsageError (ValueError)          2   wrong flags or arguments
    │   └── ConfigError                  2   a configuration key or value
    ├── DataError (ValueError)           3   input data that cannot be used
    ├── EnvironmentFailure (OSError)     4   disk, permission, network
    ├── MissingExtra (ImportError)       4   an optional package is not installed
    ├── IntegrityError                   5   a hash, fingerprint or format does not match: refused
    ├── DivergedError (ArithmeticError)  6   loss or gradient is not finite
    ├── OutOfMemory (MemoryError)        7   the work does not fit
    ├── LockedError                      8   another run holds the folder
    ├── CheckFailed                      9   the check that was asked for says no
    └── Stopped                          128 + signal: 130 SIGINT, 143 SIGTERM, 129 SIGHUP

`cli` prints `error: WHERE: WHAT` and `hint: NEXT STEP`; nothing else formats errors.
"""

from __future__ import annotations


class ScaffoldError(Exception):
    """Base of every error shown to people.

    Args:
        message: What is wrong, without a trailing period.
        where: `path`, `path:line` or `file: key.path`; empty when there is no place.
        hint: What to do next; empty when there is nothing sensible to say.
    """

    exit_code = 1
    # Whether another process has said it to people.
    said = False

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message, self.where, self.hint = message, where, hint

    def as_dict(self) -> dict[str, object]:
        """The same error for `--json`; every text can be encoded as UTF-8."""
        return {
            "error": _encodable(self.message),
            "where": _encodable(self.where),
            "hint": _encodable(self.hint),
            "exit_code": self.exit_code,
        }


class UsageError(ScaffoldError, ValueError):
    """Wrong flags or arguments."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file, key or value that cannot be accepted."""


class DataError(ScaffoldError, ValueError):
    """Input data that cannot be used."""

    exit_code = 3


class EnvironmentFailure(ScaffoldError, OSError):
    """Disk, permission or network in the way."""

    exit_code = 4


class MissingExtra(ScaffoldError, ImportError):
    """An optional package is not installed; the hint is the install line."""

    exit_code = 4

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed", hint=f"pip install 'swe-speedrun-scaffold[{extra}]'"
        )
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[object, ...]:
        # How it was made, so that it passes from a worker process whole.
        return type(self), (self.package, self.extra), self.__dict__


class IntegrityError(ScaffoldError):
    """Bytes, fingerprints or formats that do not match what was recorded; refused."""

    exit_code = 5


class DivergedError(ScaffoldError, ArithmeticError):
    """A loss, gradient norm or weight that is not finite."""

    exit_code = 6


class OutOfMemory(ScaffoldError, MemoryError):
    """The work does not fit into memory."""

    exit_code = 7


class LockedError(ScaffoldError):
    """Another run holds the output folder."""

    exit_code = 8


class CheckFailed(ScaffoldError):
    """The check that was asked for says no."""

    exit_code = 9


class Stopped(ScaffoldError):
    """SIGINT, SIGTERM or SIGHUP arrived and everything worth keeping was saved."""

    def __init__(self, signal_number: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.signal_number, self.message), self.__dict__


def _encodable(text: str) -> str:
    """Spell out lone surrogates, which stand for bytes of file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
