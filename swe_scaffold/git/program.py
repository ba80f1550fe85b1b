"""git itself, with the settings that keep what a stranger wrote from running anything."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.process import MIB, Finished, run_program

MAX_BLOB_BYTES = 1 << 20

_MEMORY_BYTES = 4096 * MIB
_SETTINGS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "protocol.allow=never",
    "protocol.ext.allow=never",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
    # A form that tells signatures runs a program; so does a submodule's difference.
    "format.pretty=medium",
    "log.showSignature=false",
    "diff.submodule=short",
    "advice.graftFileDeprecated=false",
    # A commit-graph file could tell other parents than the commits themselves.
    "core.commitGraph=false",
    # Packs are mapped in windows, so that the limit on memory holds for large clones too.
    "core.packedGitWindowSize=32m",
    "core.packedGitLimit=512m",
    # What is larger counts as binary and is not compared.
    f"core.bigFileThreshold={MAX_BLOB_BYTES}",
    "core.quotePath=false",
    "diff.suppressBlankEmpty=false",
)
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # A partial clone is not completed from wherever its configuration points to.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    # Commits as they were made, not as refs/replace or a graft file would have them.
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": "/dev/null",
}


def run_git(
    command: Sequence[str],
    *,
    cwd: Path,
    seconds: float,
    stdin: bytes = b"",
    output_bytes: int = 64 * MIB,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run git, as `find_git` named it, with nothing of this machine's or the user's settings.

    Args:
        command: git, options that say where, the subcommand and its arguments.
        cwd: Where it runs.
        seconds: Most time on the clock.
        stdin: What it reads.
        output_bytes: Most bytes of each stream.
        environment: More variables.

    Raises:
        EnvironmentFailure: It cannot be started.
    """
    git, *arguments = command
    return run_program(
        [git, "--no-pager", *arguments],
        seconds=seconds,
        cwd=cwd,
        environment={**git_environment(), **(environment or {})},
        stdin=stdin,
        output_bytes=output_bytes,
        memory_bytes=_MEMORY_BYTES,
    )


def git_environment(*more: str) -> dict[str, str]:
    """Return the variables that keep git from running anything; `more` are settings, NAME=VALUE."""
    settings = [setting.partition("=") for setting in (*_SETTINGS, *more)]
    named = {f"GIT_CONFIG_KEY_{index}": name for index, (name, _, _) in enumerate(settings)}
    values = {f"GIT_CONFIG_VALUE_{index}": value for index, (_, _, value) in enumerate(settings)}
    return {**_ENVIRONMENT, "GIT_CONFIG_COUNT": str(len(settings)), **named, **values}


def find_git() -> str:
    """Return the path of git.

    Raises:
        EnvironmentFailure: It is not installed.
    """
    found = shutil.which("git")
    # A relative entry of PATH would name a program of whatever folder this is.
    if found is None or not Path(found).is_absolute():
        raise EnvironmentFailure("git is not installed", hint="install git 2.30 or later")
    return found
