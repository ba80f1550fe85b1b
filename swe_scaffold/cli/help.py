"""What help says of a command: one account of its arguments and options, for terminal and docs.

Names, defaults and order are decided here, not by the width of a terminal or the release of Typer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from swe_scaffold.errors import UsageError
from swe_scaffold.terminal import show

ORDER = (
    "quickstart",
    "tasks",
    "build",
    "audit",
    "summarize",
    "show",
    "train",
    "evaluate",
    "compare",
    "predict",
    "score",
    "export",
    "walkthrough",
    "sweagent",
)
COMMON = ("json_output", "offline", "quiet", "verbose", "debug", "help")
COMMON_SPELLINGS = ("--json", "--offline", "-q", "--quiet", "-v", "--verbose", "--debug")
CONFIG = "config: "
EXAMPLES: dict[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Entry:
    """One argument or option; `default` says what holds without it, empty where nothing does."""

    kind: Literal["argument", "option", "common"]
    spelling: str
    text: str
    default: str = ""


def from_config(key: str, default: Any, text: str, *spellings: str, **options: Any) -> Any:
    """Return an option whose default is a configuration key's; a test keeps the two equal."""
    value = default if isinstance(default, str) else json.dumps(default, allow_nan=False)
    shown = f"{CONFIG}{key}" if default is None else f"{CONFIG}{key} = {value}"
    return typer.Option(*spellings, help=text, show_default=shown, **options)


def entries(command: Any, context: Any) -> list[Entry]:
    """Describe every parameter of a command: arguments first, common options last."""
    found = [_entry(parameter) for parameter in command.get_params(context)]
    return sorted(found, key=lambda entry: ("argument", "option", "common").index(entry.kind))


def usage_pieces(command: Any, context: Any) -> list[str]:
    """Return what follows a command's name in its usage line."""
    arguments = [
        parameter
        for parameter in command.get_params(context)
        if parameter.param_type_name == "argument"
    ]
    names = [_name(argument) for argument in arguments]
    pairs = zip(names, arguments, strict=True)
    return ["[OPTIONS]", *(name if a.required else f"[{name}]" for name, a in pairs)]


def _entry(parameter: Any) -> Entry:
    text = " ".join((parameter.help or "").split())
    if parameter.param_type_name == "argument":
        return Entry("argument", _name(parameter), text, _default(parameter))
    names = ", ".join(sorted(parameter.opts, key=len))
    takes = "" if parameter.is_flag or parameter.name == "help" else f" {_name(parameter)}"
    kind: Literal["option", "common"] = "common" if parameter.name in COMMON else "option"
    return Entry(kind, f"{names}{takes}", text, _default(parameter))


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _default(parameter: Any) -> str:
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown if shown.startswith(CONFIG) else f"default: {shown}"
    if parameter.required:
        return "required"
    if parameter.default in (None, False, ()) or callable(parameter.default):
        return ""
    return f"default: {parameter.default}"


class Command(TyperCommand):
    """A command whose help lists arguments, options, common options and examples."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name the arguments as their metavars say."""
        return usage_pieces(self, ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections."""
        found = entries(self, ctx)
        for kind, title in (
            ("argument", "Arguments"),
            ("option", "Options"),
            ("common", "Common options"),
        ):
            rows = [(entry.spelling, _with_default(entry)) for entry in found if entry.kind == kind]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=26)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one a line whatever the width."""
        _write_lines(formatter, "Examples", EXAMPLES.get(str(self.name), ()))


class Group(TyperGroup):
    """Commands in the order of the pipeline; a mistyped one is answered with the nearest."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in order."""
        return sorted(self.commands, key=lambda name: (*ORDER, name).index(name))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument names.

        Raises:
            UsageError: There is none; the hint offers the nearest name.
        """
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        raise UsageError(
            f"no such command: {show(args[0], width=60)}",
            where=ctx.command_path,
            hint=did_you_mean(args[0], self.list_commands(ctx)) or f"see {ctx.command_path} --help",
        )

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the commands to begin with."""
        _write_lines(formatter, "Begin with", EXAMPLES.get(str(self.name), ()))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `did you mean X?` for the nearest of some names, empty where none is near."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _with_default(entry: Entry) -> str:
    return f"{entry.text} [{entry.default}]" if entry.default else entry.text


def _write_lines(formatter: Any, title: str, lines: Sequence[str]) -> None:
    if lines:
        with formatter.section(title):
            for line in lines:
                formatter.write(f"  {line}\n")


def walk(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each command below a group with its context, in order."""
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        inner = type(context)(child, info_name=name, parent=context)
        if hasattr(child, "commands"):
            yield from walk(child, inner)
        else:
            yield child, inner
