"""One arm of bench_walkthrough, in a process of its own.

python walkthrough_arms.py commands|once|warm|observe ARM TREE MATERIAL FOLDER

MATERIAL is a JSON file: the commands, the typed calls that do the same, how often each is done, and
the task of the guide. What was measured goes to FOLDER/inside.json, what was seen to found.json.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_SUBREAPER = 36
ARMS = {
    "mini, local": ("local", ""),
    "mini, bubblewrap": ("bubblewrap", ""),
    "ours, bwrap": ("ours", "bwrap"),
    "ours, landlock": ("ours", "landlock"),
    "typed, bwrap": ("typed", "bwrap"),
    "typed, landlock": ("typed", "landlock"),
}


def open_environment(arm: str, tree: Path) -> Any:
    """Return the environment of an arm, as it comes, its folder aside."""
    kind, backend = ARMS[arm]
    if kind == "local":
        from minisweagent.environments.local import LocalEnvironment

        return LocalEnvironment(cwd=str(tree))
    if kind == "bubblewrap":
        from minisweagent.environments.extra.bubblewrap import BubblewrapEnvironment

        return BubblewrapEnvironment(cwd=str(tree))
    from swe_scaffold.walkthrough.environment import ReadOnlyEnvironment

    return ReadOnlyEnvironment(repo=str(tree), backend=backend, allow_bash=kind == "ours")


def actions(arm: str, material: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is executed, by name: shell commands, or the calls of tools that do the same."""
    if ARMS[arm][0] == "typed":
        calls: dict[str, dict[str, Any]] = material["calls"]
        return calls
    return {name: {"command": command} for name, command in material["commands"].items()}


def commands(arm: str, tree: Path, material: Mapping[str, Any]) -> dict[str, float]:
    """Time each command: the median of all times it is done, after one that does not count."""
    clock = Clock()
    environment = open_environment(arm, tree)
    found = {"open_ms": clock.wall() * 1000}
    for name, action in actions(arm, material).items():
        environment.execute(action)
        times, clock = [], Clock()
        for _ in range(material["times"][name]):
            start = time.perf_counter()
            environment.execute(action)
            times.append(time.perf_counter() - start)
        found[f"{name}_ms"] = statistics.median(times) * 1000
        found[f"{name}_cpu_ms"] = clock.processor() / len(times) * 1000
    return found


def once(arm: str, tree: Path, material: Mapping[str, Any]) -> dict[str, float]:
    """Run one session of mini's agent; its time is that of the whole process."""
    scripted(arm, tree, material, Path(sys.argv[-1]) / "session")
    return {}


def warm(arm: str, tree: Path, material: Mapping[str, Any]) -> dict[str, float]:
    """Time sessions after a first one that does not count: medians of what each took."""
    folder = Path(sys.argv[-1])
    run = guided if ARMS[arm][0] == "typed" else scripted
    run(arm, tree, material, folder / "first")
    rows: list[dict[str, float]] = []
    for number in range(material["warm"]):
        clock = Clock()
        apart = run(arm, tree, material, folder / f"warm-{number}")
        rows.append({"warm_s": clock.wall(), "warm_cpu_s": clock.processor(), "checks_s": apart})
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def scripted(arm: str, tree: Path, material: Mapping[str, Any], folder: Path) -> float:
    """Run mini's agent over the script; return the seconds of checks that others have not."""
    from minisweagent.agents.default import DefaultAgent
    from minisweagent.models.test_models import DeterministicModel, make_output

    start = time.perf_counter()
    environment = open_environment(arm, tree)
    opened = time.perf_counter() - start
    said = [
        make_output("Next.", [{"command": command}], cost=0.0) for command in material["script"]
    ]
    agent = DefaultAgent(
        DeterministicModel(outputs=said, cost_per_call=0.0),
        environment,
        system_template="You look through a repository.",
        instance_template="{{task}}",
        step_limit=len(said),
        cost_limit=0.0,
        output_path=folder / "session.traj.json",
    )
    ended = agent.run(material["task"])
    assert ended["exit_status"] == "LimitsExceeded", ended
    if ARMS[arm][0] != "ours":
        return 0.0
    start = time.perf_counter()
    environment.finish()
    assert environment.unchanged
    return opened + time.perf_counter() - start


def guided(arm: str, tree: Path, material: Mapping[str, Any], folder: Path) -> float:
    """Run a whole walkthrough of the scripted guide; its checks are part of it."""
    from swe_scaffold.walkthrough import Subject, explore
    from swe_scaffold.walkthrough.guide import ScriptedGuide

    folder.mkdir()
    walked = explore(
        Subject(tree, material["task"]), ScriptedGuide, folder / "walk", backend=ARMS[arm][1]
    )
    assert walked.ok
    (folder.parent / "steps").write_text(str(walked.steps), "ascii")
    return 0.0


def observe(arm: str, tree: Path, material: Mapping[str, Any]) -> dict[str, float]:
    """Write down what each command shows."""
    environment = open_environment(arm, tree)
    shown = {name: environment.execute(a)["output"] for name, a in actions(arm, material).items()}
    if ARMS[arm][0] != "typed":
        for command in material["script"]:
            shown[command] = environment.execute({"command": command})["output"]
    (Path(sys.argv[-1]) / "found.json").write_text(json.dumps(shown), "ascii")
    return {}


class Clock:
    """Wall and processor seconds from here on, those of children that still run included."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), _processor()

    def wall(self) -> float:
        """Return seconds on the clock."""
        return time.perf_counter() - self._wall

    def processor(self) -> float:
        """Return processor seconds of this process and all below it."""
        return _processor() - self._processor


def _processor() -> float:
    _reap()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(_running(pid) for pid in _below(os.getpid()))
    return time.process_time() + ended.ru_utime + ended.ru_stime + running


def _reap() -> None:
    """Wait for what bubblewrap leaves behind: only then is its time this process's."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                return
        except ChildProcessError:
            return


def _below(pid: int) -> list[str]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
        found += [child, *_below(int(child))]
    return found


def _running(pid: str) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e9


def main() -> None:
    """Run what the command line names."""
    what, arm, tree, material, folder = sys.argv[1:]
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    does: dict[str, Callable[[str, Path, Mapping[str, Any]], dict[str, float]]] = {
        "commands": commands,
        "once": once,
        "warm": warm,
        "observe": observe,
    }
    inside = does[what](arm, Path(tree), json.loads(Path(material).read_bytes()))
    _reap()
    (Path(folder) / "inside.json").write_text(json.dumps(inside), "ascii")


if __name__ == "__main__":
    main()
