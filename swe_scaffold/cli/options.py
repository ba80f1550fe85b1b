"""Options that several commands share, and the configuration they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import Session

if TYPE_CHECKING:
    from swe_scaffold.config import SpeedrunConfig

Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Configuration (JSON); else the defaults.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a configuration key; repeatable."),
]
TrustTemplate = Annotated[
    bool, typer.Option("--trust-template", help="Accept a chat template that is not a known one.")
]


def load_resolved(
    session: Session,
    config: Path | None,
    overrides: list[str] | None,
    flags: dict[str, Any],
    *,
    part: str = "training",
) -> SpeedrunConfig:
    """Return the configuration: defaults, file, `--set`, flags; and tell it under -v."""
    from swe_scaffold.config import dump_config, load_config

    resolved = load_config(config, overrides=overrides or (), flags=flags)
    session.say_config({part: dump_config(resolved)[part]})
    return resolved
