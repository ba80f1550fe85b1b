"""Options that several commands share, and the configuration they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import Session
from swe_scaffold.errors import UsageError
from swe_scaffold.files import require_different, require_writable
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.config import SpeedrunConfig
    from swe_scaffold.scoring import Keep

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
ApiBase = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Ask an OpenAI-compatible server, as http://127.0.0.1:8000/v1."
    ),
]
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="VARIABLE", help="Environment variable that holds the server's key."),
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="Longest wait for one answer of a server.")
]
Base = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Base of an adapter, where its manifest names none."),
]
Temperature = Annotated[
    float,
    typer.Option(metavar="T", help="0 takes the likeliest token, more draws.", show_default="0"),
]


def require_page(path: Path, inputs: list[Path]) -> None:
    """Refuse a page in the place of anything that is read, before any work is done.

    Raises:
        UsageError: Its name is not a page's, or it is an input.
        EnvironmentFailure: It cannot be written there.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise UsageError("is no name of a page", where=show(path), hint="call it page.html")
    require_different(path, inputs)
    require_writable(path.parent)


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


def keep_option(expression: str | None, rows: Path | None, *, example: str) -> Keep | None:
    """Return what --keep and --rows mean together.

    Raises:
        UsageError: One is there without the other.
    """
    if expression is None and rows is None:
        return None
    if expression is None or rows is None:
        raise UsageError(
            "--keep and --rows go together", hint=f"--keep '{example}' --rows kept.jsonl"
        )
    from swe_scaffold.scoring import Keep

    return Keep(expression, rows)
