"""A read-only walkthrough by SWE-agent 1.1: the whole of it in a sandbox, with our tools.

SWE-agent is a checkout with a Python that has its dependencies; it is started, never imported. It
sees the repository read-only, a folder for what it writes, our configuration and tools, and a port
that leads to the model's server. The task is a field of this run's configuration, for the prompt
alone: what SWE-agent takes for the problem statement it types into a shell. Who reads what it wrote
trusts none of it: the folder was its own.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.dataset.atif import example_to_atif
from swe_scaffold.dataset.trajectories import trajectory_to_example
from swe_scaffold.errors import DataError, EnvironmentFailure, IntegrityError, UsageError
from swe_scaffold.files import folder_lock, require_writable, write_bytes, write_json, write_text
from swe_scaffold.git.program import git_environment
from swe_scaffold.prediction.http import Endpoint
from swe_scaffold.process import MIB, Finished, run_program
from swe_scaffold.sandbox import Limits, Mount, Sandbox, open_sandbox, take_snapshot
from swe_scaffold.sources.swe_agent import SCRIPTED_REPLAY
from swe_scaffold.strict_json import Malformed, parse
from swe_scaffold.terminal import SILENT, Reporter, show
from swe_scaffold.walkthrough import (
    ATIF,
    PAGE,
    SUMMARY,
    SWE_AGENT,
    Subject,
    clear_room,
    relay,
    require_outside,
    swe_agent_tool,
    toolbox,
)
from swe_scaffold.walkthrough.environment import tree_facts
from swe_scaffold.walkthrough.session import Walk, name_of
from swe_scaffold.walkthrough.summary import summary
from swe_scaffold.walkthrough.swe_agent_run import as_trajectory, as_walkthrough

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CONFIG = "scaffold_readonly.yaml"
LOG = "sweagent.log"
PORT = 8000
# As the configuration has it.
CALL_SECONDS = 30.0
_ROOM = "/walkthrough"
_VERSION = re.compile(r"""^__version__ = ["'](1\.1(?:\.\d+)?)["']""", re.MULTILINE)
_ABOUT = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.base_exec_prefix]))"
_NOT_PLAIN = re.compile(r"[^ -~]")
_UNSAFE = re.compile(r"[^\w.@+-]")
_MOST_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class SweAgent:
    """A checkout of SWE-agent, the Python that runs it, and the folders that this needs.

    `arguments` are further ones for `sweagent run`; `seconds` is the most time for all of it.
    """

    checkout: Path
    python: Path
    folders: tuple[Path, ...]
    version: str
    arguments: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Answers:
    """Who chooses the steps: a model behind a server, or answers that stand in a replay file.

    `scripted` says that no model gave those; `max_steps` is the most answers of a model.
    """

    name: str = ""
    endpoint: Endpoint | None = None
    replay: str = ""
    scripted: bool = False
    max_steps: int = 40


def find_swe_agent(
    checkout: Path, python: Path, arguments: Sequence[str] = (), *, seconds: float = 3600.0
) -> SweAgent:
    """Look at a checkout and a Python, without running anything of the checkout.

    Raises:
        UsageError: It is no checkout of SWE-agent 1.1.
        EnvironmentFailure: The Python does not run, or our own configuration is not there.
    """
    if not (CONFIGS / CONFIG).is_file():
        raise EnvironmentFailure(
            "is not there",
            where=str(CONFIGS / CONFIG),
            hint="SWE-agent's configuration is in a clone of the project: pip install -e . there",
        )
    checkout = checkout.resolve()
    try:
        text = (checkout / "sweagent" / "__init__.py").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    if not (version := _VERSION.search(text)):
        raise UsageError(
            "is no checkout of SWE-agent 1.1",
            where=f"--checkout {checkout}",
            hint="git clone https://github.com/SWE-agent/SWE-agent, and pip install -e . in it",
        )
    # Not resolved: in a virtual environment it is a link, and where it lies decides what it has.
    python = Path(os.path.abspath(python))  # noqa: PTH100
    done = run_program([str(python), "-I", "-c", _ABOUT], seconds=60, output_bytes=MIB)
    if not done.ok:
        raise EnvironmentFailure("does not run", where=f"--python {python}")
    prefixes = [Path(prefix) for prefix in json.loads(done.stdout)]
    folders = [path for path in dict.fromkeys([*prefixes, checkout]) if not _is_system(path)]
    return SweAgent(checkout, python, tuple(folders), version[1], tuple(arguments), seconds)


def replaying(data: bytes, where: str) -> Answers:
    """Return who says again what a replay file of SWE-agent's, or a trajectory of ours, holds.

    Raises:
        DataError: It is neither.
    """
    try:
        first = parse(data.strip().split(b"\n", 1)[0])
    except Malformed:
        first = {}
    if (
        isinstance(first, dict)
        and first
        and all(isinstance(turns, list) for turns in first.values())
    ):
        return Answers(replay=data.decode("utf-8", "replace"))
    try:
        document = parse(data)
        scripted = "ScriptedGuide" in document["info"]["config"]["model_type"]
        turns = [
            {"message": message.get("content") or "", "tool_calls": message["tool_calls"][:1]}
            for message in document["messages"]
            if message["role"] == "assistant" and message.get("tool_calls")
        ]
    except (Malformed, KeyError, TypeError, AttributeError):
        raise DataError(
            "is neither a replay file of SWE-agent nor a walkthrough.traj.json", where=where
        ) from None
    # SWE-agent cuts at every character that some take for the end of a line.
    text = json.dumps({"walkthrough": turns}, ensure_ascii=True, allow_nan=False) + "\n"
    return Answers(replay=text, scripted=scripted)


def explore_with_swe_agent(
    subject: Subject,
    agent: SweAgent,
    guide: Answers,
    output: Path,
    *,
    page: Callable[[Mapping[str, Any]], str] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Walk:
    """Have SWE-agent walk through a repository, and write what came of it into a folder.

    Args:
        subject: The repository and the task.
        agent: Where SWE-agent is.
        guide: Who chooses the steps.
        output: Folder for the pages; what SWE-agent writes is in SWE_AGENT in it.
        page: Makes an HTML page of the trajectory, which is written too.
        overwrite: Whether an earlier walkthrough in this folder goes.
        reporter: Where it is told what happens.

    Raises:
        UsageError: There is no such folder, or the output lies within it, or has a walkthrough.
        LockedError: Another walkthrough is being written there.
        EnvironmentFailure: There is no bubblewrap, or SWE-agent ended without a trajectory.
        IntegrityError: The sandbox let a write through, or the repository is not what it was.
    """
    require_outside(output, subject.repo)
    require_writable(output)
    with folder_lock(output):
        clear_room(output, overwrite=overwrite)
        require_writable(output / SWE_AGENT)
        repo = subject.repo.resolve()
        before = take_snapshot(repo)
        given = subject.instance_id or name_of(repo.name, before, subject.task)
        name = _UNSAFE.sub("_", given).lstrip(".") or "walkthrough"
        start = time.monotonic()
        with _furnished(subject, guide, name) as mounts:
            out = Mount("/out", (output / SWE_AGENT).resolve(), writable=True)
            sandbox = _sandbox(repo, agent, [*mounts, out])
            # Somebody outside may be at the other end.
            sandbox = sandbox.hiding([*map(os.fsdecode, (*before.pipes, *before.sockets))])
            reporter.say(f"SWE-agent {agent.version} runs; it writes to {output / SWE_AGENT}")
            done = sandbox.run(_command(agent, guide), seconds=agent.seconds)
        took = round(time.monotonic() - start, 3)
        write_bytes(output / LOG, done.stdout)
        tree = tree_facts(before, take_snapshot(repo))
        document = _written(output / SWE_AGENT, name)
        if document is None:
            raise _failure(done, tree, output)
        facts = sandbox.facts()
        facts["limits"]["seconds"] = CALL_SECONDS
        about = {
            "instance_id": name,
            "task": subject.task,
            "seconds": took,
            "sandbox": facts,
            "repository": tree,
            "config": {
                "environment": {"repo": repo.name},
                "model": {"model_name": guide.name or "replay"},
            },
        }
        walked = as_walkthrough(document, about, fault=_fault(done))
        write_text(output / SUMMARY, summary(walked.trajectory))
        if walked.steps:
            example = trajectory_to_example(as_trajectory(document, f"{name}.traj"))
            write_json(output / ATIF, example_to_atif(example))
        if page is not None:
            write_text(output / PAGE, page(walked.trajectory))
    return walked


@contextmanager
def _furnished(subject: Subject, guide: Answers, name: str) -> Iterator[list[Mount]]:
    """Yield what lies in the sandbox for SWE-agent to read, and the way to the model's server."""
    replay = SCRIPTED_REPLAY if guide.scripted else "replay.jsonl"
    model: dict[str, Any] = {"name": "replay", "replay_path": f"{_ROOM}/{replay}"}
    # Written down even where pydantic leaves the path out, as 2.14 does.
    if guide.scripted:
        model["api_version"] = SCRIPTED_REPLAY
    files = {"task.txt": "The task is in the prompt.\n", "empty.env": ""}
    with tempfile.TemporaryDirectory(prefix="swe-scaffold-") as folder, ExitStack() as stack:
        if guide.endpoint is None:
            files[replay] = guide.replay
        else:
            model = _served(guide.name, guide.endpoint, guide.max_steps)
            stack.enter_context(_way_out(guide.endpoint, f"{folder}/model.sock"))
        files["run.yaml"] = _as_yaml(
            {
                "agent": {"model": model},
                "problem_statement": {"id": name, "extra_fields": {"task": subject.task}},
                "output_dir": "/out",
                # Else it reads the `.env` of the folder it runs in, or of its checkout.
                "env_var_path": f"{_ROOM}/empty.env",
            }
        )
        for file, text in files.items():
            write_text(Path(folder, file), text)
        programs = [Path(str(module.__file__)) for module in (toolbox, swe_agent_tool, relay)]
        named = {path.name: path for path in [*programs, *Path(folder).iterdir()]}
        yield [
            Mount("/root"),
            Mount(f"{_ROOM}/configs", CONFIGS),
            *(Mount(f"{_ROOM}/{file}", path.resolve()) for file, path in named.items()),
        ]


def _served(name: str, endpoint: Endpoint, max_steps: int) -> dict[str, Any]:
    return {
        "name": f"openai/{name}",
        "api_base": f"http://127.0.0.1:{PORT}{endpoint.path}",
        # A server that asks for none gets one all the same: the client insists.
        "api_key": endpoint.key or "none",
        "per_instance_call_limit": max_steps,
    }


@contextmanager
def _way_out(endpoint: Endpoint, path: str) -> Iterator[None]:
    if endpoint.scheme != "http":
        raise UsageError(
            "only http can be passed into the sandbox",
            where=f"--api-base {endpoint.shown}",
            hint="put a proxy on this machine before it, such as: litellm --model NAME",
        )
    with relay.passing_to(path, endpoint.host, endpoint.port or 80):
        yield


def _as_yaml(value: object) -> str:
    """Return a JSON text that is YAML too: that knows no pairs of surrogates, and folds lines."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _NOT_PLAIN.sub(_escaped, text) + "\n"


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _sandbox(repo: Path, agent: SweAgent, mounts: Sequence[Mount]) -> Sandbox:
    path = f"{agent.python.parent}:/usr/local/bin:/usr/bin:/bin"
    return open_sandbox(
        repo,
        backend="bwrap",
        limits=Limits(
            memory_bytes=16_384 * MIB, processes=512, file_bytes=_MOST_BYTES, output_bytes=64 * MIB
        ),
        environment={
            **git_environment("safe.directory=*", "log.showSignature=false"),
            "PATH": path,
            "LC_ALL": "C.UTF-8",
            "HOME": "/root",
            "USER": "walkthrough",
            "COLUMNS": "160",
            "PYTHONPATH": str(agent.checkout),
            "PYTHONSAFEPATH": "1",
            "SWE_AGENT_CONFIG_ROOT": f"{_ROOM}/configs/swe_agent",
            "SWE_AGENT_TRAJECTORY_DIR": "/out",
            # Else its client asks the network for a list of prices.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        # After /root: a Python of pyenv lies there.
        mounts=[*mounts, *(Mount(str(folder), folder) for folder in agent.folders)],
        # For the way to the model's server, and for the shell that SWE-ReX types into.
        interactive=True,
    )


def _command(agent: SweAgent, guide: Answers) -> list[str]:
    python = str(agent.python)
    way_out = [python, "-I", "-S", f"{_ROOM}/relay.py", str(PORT), f"{_ROOM}/model.sock"]
    configs = ["--config", f"{_ROOM}/configs/{CONFIG}", "--config", f"{_ROOM}/run.yaml"]
    # Not in the repository: Python and SWE-agent read files of the folder they are started in.
    line = ["/bin/sh", "-c", 'cd /out && exec "$@"', "sh"]
    line += way_out if guide.endpoint else []
    return [*line, python, "-m", "sweagent", "run", *configs, *agent.arguments]


def _is_system(path: Path) -> bool:
    return path == Path("/usr") or Path("/usr") in path.parents


def _written(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the trajectory that lies where it should, and is a file and no link to one."""
    place = folder.resolve() / name / f"{name}.traj"
    try:
        if place.resolve(strict=True) != place or not place.is_file():
            return None
        if place.stat().st_size > _MOST_BYTES:
            return None
        document = parse(place.read_bytes())
    except (OSError, Malformed):
        return None
    return document if isinstance(document, dict) else None


def _fault(done: Finished) -> str:
    """Return how SWE-agent ended, or nothing where it did by itself and well."""
    if done.timed_out:
        return "took too long"
    return "" if done.ok else f"ended with {done.returncode}"


def _failure(
    done: Finished, tree: dict[str, Any], output: Path
) -> EnvironmentFailure | IntegrityError:
    if not tree["unchanged"]:
        names = ", ".join(map(show, tree["changed"][:5]))
        return IntegrityError(f"the repository is not what it was: {names}")
    lines = done.stdout.decode("utf-8", "replace").strip().split("\n")
    said = show(lines[-1].strip(), width=200)
    return EnvironmentFailure(
        f"SWE-agent {_fault(done) or 'ended'}, without a trajectory: {said}",
        hint=f"what it said is in {output / LOG}",
    )
