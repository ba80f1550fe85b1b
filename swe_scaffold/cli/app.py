"""The Typer applications, the options that every command has, and the way results leave."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from swe_scaffold.cli import STDOUT
from swe_scaffold.cli.help import EXAMPLES, Command, Group
from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.terminal import Reporter
from swe_scaffold.version import VERSION

if TYPE_CHECKING:
    from swe_scaffold.cache import Cache

NAME = "swe-scaffold"
APP = typer.Typer(
    name=NAME,
    cls=Group,
    help="From software-engineering data to a small coding model, with a record anyone can verify.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
TASKS = typer.Typer(
    help="Make SWE-bench-style tasks.", cls=Group, no_args_is_help=True, rich_markup_mode=None
)
APP.add_typer(TASKS, name="tasks")
EXAMPLES[NAME] = (
    f"{NAME} quickstart             the whole pipeline on embedded data",
    f"{NAME} build --help           your own data",
)


NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Make everything anew; SWE_SCAFFOLD_CACHE=off does so always."),
]


@dataclass(frozen=True, slots=True)
class Session:
    """How this command talks: `json` for machines, `reporter` for people, `offline` for neither."""

    json: bool
    offline: bool
    reporter: Reporter

    def result(self, value: Any, text: str) -> None:
        """Print the result on stdout: one JSON document, or text."""
        if self.json:
            text = json.dumps(value, allow_nan=False, ensure_ascii=True)
        write_out(text.rstrip("\n") + "\n")

    def cache(self, *, off: bool) -> Cache | None:
        """Return the user's cache, unless it is off."""
        from swe_scaffold.cache import user_cache

        return None if off else user_cache()

    def say_config(self, resolved: Mapping[str, Any]) -> None:
        """Tell the resolved configuration where `-v` asks for it."""
        text = json.dumps(resolved, allow_nan=False, ensure_ascii=True)
        self.reporter.say(f"configuration: {text}", level=1)


def write_out(text: str) -> None:
    """Write text to stdout, all of it and now; a reader that has left (`| head`) is no failure.

    Raises:
        EnvironmentFailure: It cannot be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        abandon(sys.stdout)
    except OSError as error:
        message = (error.strerror or str(error)).lower()
        raise EnvironmentFailure(message, where=STDOUT) from error


def abandon(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere, or the interpreter complains of it at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def application() -> typer.Typer:
    """Return the application with every command registered."""
    from swe_scaffold.cli import (  # noqa: F401 registration is their import
        data,
        evaluating,
        exporting,
        inspecting,
        mining,
        model,
        predicting,
        quickstart,
        scoring,
        showing,
        sweagent,
        synthesis,
        walking,
    )

    return APP


def command(
    app: typer.Typer, name: str, *, examples: tuple[str, ...] = ()
) -> Callable[[Callable[..., int | None]], Any]:
    """Register a command; its first parameter is the Session made of the common options."""

    def register(function: Callable[..., int | None]) -> Any:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @functools.wraps(function)
        def run(**values: Any) -> int | None:
            quiet, verbose = values.pop("quiet"), values.pop("verbose")
            values.pop("debug")
            session = Session(
                json=values.pop("json_output"),
                offline=values.pop("offline"),
                reporter=Reporter(-1 if quiet else int(verbose)),
            )
            with _measured(session.reporter):
                return function(session, **values)

        run.__signature__ = inspect.Signature([*own, *_common()])  # type: ignore[attr-defined]
        run.__annotations__ = {
            parameter.name: parameter.annotation for parameter in [*own, *_common()]
        }
        EXAMPLES[name] = examples
        summary = (function.__doc__ or "").strip().split("\n")[0]
        return app.command(name, cls=Command, short_help=summary)(run)

    return register


@contextlib.contextmanager
def _measured(reporter: Reporter) -> Iterator[None]:
    """Tell under `-v` what a command cost."""
    import resource

    start = time.monotonic()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mebibytes = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    seconds = time.monotonic() - start
    reporter.say(f"took {seconds:.1f} s, at most {mebibytes:.0f} MiB of memory", level=1)


def _common() -> list[inspect.Parameter]:
    def flag(name: str, text: str, *spellings: str) -> inspect.Parameter:
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option(*spellings, help=text)],
        )

    return [
        flag("json_output", "Print the result, or the error, as one JSON document.", "--json"),
        flag("offline", "Never ask the network; use what is on this machine.", "--offline"),
        flag("quiet", "No messages and no progress.", "-q", "--quiet"),
        flag("verbose", "Tell the resolved configuration, time and memory too.", "-v", "--verbose"),
        flag("debug", "Show the traceback of an error.", "--debug"),
    ]


def _version(value: bool) -> None:
    if value:
        write_out(f"{NAME} {VERSION}\n")
        raise typer.Exit


@APP.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From software-engineering data to a small coding model, with a record anyone can verify."""
