"""The command line: parse, call one verb, print its result, return its exit code.

- `__init__.py`: `main`, from arguments to exit code, and `run`, which ends the process with it;
  errors as `error:` and `hint:`.
- `app.py`: the Typer applications, the options every command has, results on stdout.
- `help.py`: what help says of a command, for the terminal and for the docs.
- `quickstart.py`: quickstart.
- `mining.py`: tasks mine.  `synthesis.py`: tasks synthesize.
- `data.py`: build.  `inspecting.py`: audit, summarize.  `model.py`: train.
- `evaluating.py`: evaluate, compare.  `evaluation_text.py`, `comparison_text.py`: what they say.
- `options.py`: options that several commands share.
- `predicting.py`: predict.  `walking.py`: walkthrough.  `sweagent.py`: sweagent.
- `showing.py`: show.  `show_text.py`: the path of a row.  `rows.py`: a row and its tokens.
- `tables.py`: numbers and tables for people.
- `docs.py`: docs/cli.md and docs/configuration.md.

Importing this loads no torch; commands import what they need when called.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from swe_scaffold.errors import (
    EnvironmentFailure,
    MissingExtra,
    OutOfMemory,
    ScaffoldError,
    Stopped,
    UsageError,
)
from swe_scaffold.signals import stop_by_exception
from swe_scaffold.start_up import starting
from swe_scaffold.terminal import show, show_block

STDOUT = "standard output"
BUG = "this is a bug of swe-scaffold; run again with --debug and report the traceback"
_EXTRAS = {
    "datasets": "data",
    "pyarrow": "data",
    "rensa": "data",
    "detect_secrets": "data",
    "bm25s": "retrieval",
    "ray": "ray",
    "minisweagent": "agent",
} | dict.fromkeys(
    ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "huggingface_hub"),
    "train",
)


def main(argv: Sequence[str] | None = None, *, prog: str = "swe-scaffold") -> int:
    """Run one command and return its exit code; nothing but `--debug` shows a traceback.

    Args:
        argv: Arguments without the program's name; None takes the process's.
        prog: Name shown in help and errors. Any other than the default stands for the command that
            `argv` begins with (`scripts/`, `training/`).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    flags = set(itertools.takewhile(lambda argument: argument != "--", arguments))
    debug = "--debug" in flags
    _prepare_streams()
    _calm_libraries(debug, offline="--offline" in flags)
    try:
        with stop_by_exception(), starting():
            code = _dispatch(arguments, prog)
            sys.stdout.flush()
    except BrokenPipeError:
        code = 0
    except Exception as error:  # noqa: BLE001 the one place where everything becomes an exit code
        if debug:
            import traceback

            traceback.print_exc()
        code = _report(_as_ours(error), as_json="--json" in flags)
    _settle()
    return code


def run(argv: Sequence[str] | None = None, *, prog: str = "swe-scaffold") -> NoReturn:
    """Be the command: as `main`, and end the process with its exit code."""
    code = main(argv, prog=prog)
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        # FSDP keeps what the processes were joined by, whose threads end an interpreter that
        # shuts down with SIGABRT now and then: a launcher takes that for a failed run.
        os._exit(code)
    sys.exit(code)


def _dispatch(arguments: list[str], prog: str) -> int:
    import typer

    from swe_scaffold.cli.app import NAME, application

    # Typer may carry click inside, under another name: these are the roots of its errors.
    usage_error: Any = typer.BadParameter.__mro__[1]
    click_error: Any = typer.BadParameter.__mro__[2]
    command: Any = typer.main.get_command(application())
    if prog != NAME:
        command, arguments = command.commands[arguments[0]], arguments[1:]
    try:
        # Not `command.main`, which has its own opinion on closed pipes and interrupts.
        with command.make_context(prog, arguments, **_SETTINGS) as context:
            result = command.invoke(context)
    except typer.Exit as leave:
        return int(leave.exit_code)
    except typer.Abort:
        raise Stopped(2, "stopped") from None
    except usage_error as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error.format_message()}\n")
            return UsageError.exit_code
        raise _usage(error, prog) from None
    except click_error as error:
        raise UsageError(error.format_message(), where=prog) from None
    return result if isinstance(result, int) else 0


# What a command that is run on its own (a door) would inherit from the application.
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _usage(error: Any, prog: str) -> UsageError:
    """Say what Typer found wrong in our words: the command, the option, the nearest name."""
    where = error.ctx.command_path if error.ctx else prog
    hint = f"see {where} --help"
    message = error.format_message().rstrip(".")
    unknown, parameter = getattr(error, "option_name", None), getattr(error, "param", None)
    if unknown and type(error).__name__ == "NoSuchOption":
        message = f"no such option: {unknown}"
        hint = _option_hint(unknown, error.ctx.command) or hint
    elif parameter:
        name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
        where = f"{where}: {name}"
        message = error.message or "is missing"
    return UsageError(message[:1].lower() + message[1:], where=where, hint=hint)


def _option_hint(unknown: str, command: Any) -> str:
    from swe_scaffold.cli.help import COMMON_SPELLINGS, did_you_mean

    if hasattr(command, "commands") and unknown in COMMON_SPELLINGS:
        return f"options follow the command, as in swe-scaffold build {unknown}"
    known = [name for parameter in command.params for name in parameter.opts]
    return did_you_mean(unknown, [name for name in known if name.startswith("--")])


def _as_ours(error: Exception) -> ScaffoldError:
    if isinstance(error, ScaffoldError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("out of memory")
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        return MissingExtra(error.name, _EXTRAS[error.name])
    if isinstance(error, OSError) and error.errno is not None:
        where = str(error.filename or "")
        return EnvironmentFailure((error.strerror or str(error)).lower(), where=where)
    return ScaffoldError(f"{type(error).__name__}: {error}", hint=BUG)


def _report(error: ScaffoldError, *, as_json: bool) -> int:
    if error.said:
        return error.exit_code
    if as_json and error.where != STDOUT:
        try:
            sys.stdout.write(json.dumps(error.as_dict(), allow_nan=False, ensure_ascii=True) + "\n")
            sys.stdout.flush()
            return error.exit_code
        except OSError:
            pass  # It is said on stderr instead.
    where = f"{show(error.where)}: " if error.where else ""
    lines = f"error: {where}{show(error.message, width=1000)}\n"
    lines += f"hint: {show_block(error.hint)}\n" if error.hint else ""
    try:
        sys.stderr.write(lines)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    return error.exit_code


def _prepare_streams() -> None:
    """Spell out what a stream's encoding lacks, and write to nowhere where a stream is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _settle() -> None:
    """Leave nothing in the streams that the interpreter could fail on at exit."""
    from swe_scaffold.cli.app import abandon

    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            abandon(stream)


def _calm_libraries(debug: bool, *, offline: bool) -> None:
    """Keep libraries off the terminal, and off the network, before any of them is imported."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Threads that sleep at once are woken too often, those that spin on are fatal on busy cores:
    # they spin for some hundreds of microseconds. Whoever chose a policy has it.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "8000")
    # Other packages' plugins for pydantic would be imported and run.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        warnings.simplefilter("ignore")
