"""Help: complete, in order, within 100 columns, with defaults that are true."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from swe_scaffold.cli.app import NAME, application
from swe_scaffold.cli.help import CONFIG, EXAMPLES, ORDER, did_you_mean, entries, walk
from swe_scaffold.config import TrainingConfig, describe_config
from tests.cli.conftest import Run


def group() -> Any:
    return typer.main.get_command(application())


def commands() -> Iterator[tuple[Any, Any]]:
    root = group()
    names = {"help_option_names": ["-h", "--help"]}
    yield from walk(root, root.context_class(root, info_name=NAME, **names))


def paths() -> list[list[str]]:
    return [context.command_path.split()[1:] for _, context in commands()]


def parse(line: str) -> None:
    """Parse a command line as written in the docs, without running it."""
    command, words = group(), shlex.split(line)[1:]
    context = command.context_class(command, info_name=NAME)
    while hasattr(command, "commands"):
        context = command.make_context(context.info_name, words, parent=context.parent)
        rest = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, rest)
        if hasattr(command, "commands"):
            context = command.context_class(command, info_name=name, parent=context)
    command.make_context(name, words, parent=context)


def test_the_list_of_commands_is_in_the_order_of_the_pipeline(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    listed = done.out.partition("Commands:\n")[2].partition("\n\n")[0].split("\n")
    assert tuple(line.split()[0] for line in listed if line[2:3] != " ") == ORDER
    assert "..." not in done.out.replace("[ARGS]...", "")


@pytest.mark.parametrize("words", paths(), ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("columns", [80, 100, 200])
def test_help_of_a_command_fits_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], flag: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = run(*words, flag)
    assert (done.code, done.err) == (0, "")
    text, _, examples = done.out.partition("Examples:\n")
    assert max(map(len, text.split("\n"))) <= min(columns, 100)
    assert max(map(len, examples.split("\n"))) <= 100
    assert text.startswith(f"Usage: swe-scaffold {' '.join(words)} [OPTIONS]")


@pytest.mark.parametrize("words", paths(), ids=" ".join)
def test_every_argument_and_option_is_explained(words: list[str]) -> None:
    command, context = next(
        pair for pair in commands() if pair[1].command_path.split()[1:] == words
    )
    found = entries(command, context)
    assert [entry.spelling for entry in found if entry.kind == "common"] == [
        "--json",
        "--offline",
        "-q, --quiet",
        "-v, --verbose",
        "--debug",
        "-h, --help",
    ]
    for entry in found:
        assert entry.text.endswith("."), entry
        assert entry.spelling in command.get_help(context).replace("\n", " "), entry
    required = {p.name for p in command.params if p.required}
    assert len([entry for entry in found if entry.default == "required"]) == len(required)


def test_defaults_that_come_from_the_configuration_are_its_defaults() -> None:
    known = {key: json.loads(default) for key, _, default, _ in describe_config()}
    checked = 0
    for command, context in commands():
        for entry in entries(command, context):
            if entry.default.startswith(CONFIG):
                key, _, value = entry.default.removeprefix(CONFIG).partition(" = ")
                default = known[key]
                assert value in (default, "" if default is None else json.dumps(default)), entry
                checked += 1
    assert checked >= 10


def test_lengths_of_audit_and_show_are_those_of_training() -> None:
    training = TrainingConfig()
    for command, context in commands():
        if context.command_path.split()[-1] in ("audit", "show"):
            defaults = {parameter.name: parameter.default for parameter in command.params}
            assert defaults["max_length"] == training.max_length
            assert defaults["min_prompt_tokens"] == training.min_prompt_tokens


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_of_help_parse(line: str) -> None:
    parse(line.partition("   ")[0].removesuffix(" --help"))


@pytest.mark.parametrize("line", ["swe-scaffold build --limt 3", "swe-scaffold train"])
def test_a_wrong_example_would_not_parse(line: str) -> None:
    with pytest.raises(Exception, match=r"(?i)no such option|missing"):
        parse(line)


def test_version(run: Run) -> None:
    done = run("--version")
    assert done.code == 0
    assert done.out.startswith("swe-scaffold ")
    assert done.out.count("\n") == 1


def test_did_you_mean_stays_silent_where_nothing_is_near() -> None:
    assert did_you_mean("buid", ["build", "show"]) == "did you mean build?"
    assert did_you_mean("xyz", ["build", "show"]) == ""
