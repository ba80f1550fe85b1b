"""Experiment trackers named in `training.report_to`, through accelerate; our logs need none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_scaffold.errors import ConfigError
from swe_scaffold.terminal import show


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be had, before any work is done.

    Raises:
        ConfigError: A name that accelerate does not know or whose package is not installed.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    known = {str(name) for name in LOGGER_TYPE_TO_CLASS}
    # What a user registered with accelerate is there by definition.
    ready = {str(name) for name in get_available_trackers()} | (known - set(map(str, LoggerType)))
    for name in names:
        if name not in ready:
            problem = "is not installed" if name in known else "is not a tracker"
            listed = ", ".join(sorted(ready)) or "none"
            raise ConfigError(
                f"{show(name)} {problem}",
                where="training.report_to",
                hint=f"installed: {listed}; known: {', '.join(sorted(known))}",
            )


class Trackers:
    """The trackers of one run; without names it does nothing and imports nothing.

    Raises:
        ConfigError: As `require_trackers`.
    """

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> None:
        self._trackers: list[Any] = []
        require_trackers(names)
        for name in dict.fromkeys(names):
            from accelerate.tracking import LOGGER_TYPE_TO_CLASS

            make = LOGGER_TYPE_TO_CLASS[name]
            options = {"logging_dir": str(folder)} if make.requires_logging_directory else {}
            tracker = make("swe-speedrun", **options)
            tracker.start()
            self._trackers.append(tracker)
            tracker.store_init_configuration(dict(_flatten(config)))

    def log(self, values: Mapping[str, float | None], step: int) -> None:
        """Send numbers to every tracker."""
        numbers = {name: value for name, value in values.items() if value is not None}
        for tracker in self._trackers:
            tracker.log(numbers, step=step)

    def finish(self) -> None:
        """Let every tracker write what it holds; later calls do nothing."""
        while self._trackers:
            self._trackers.pop().finish()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", value if isinstance(value, int | float) else str(value)))
    return flat
