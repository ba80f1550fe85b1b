"""What every command promises: exit codes, one error line, one JSON document, quiet endings."""

from __future__ import annotations

import gc
import os
import resource
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import HOSTILE, ROOT, Run, python_command, task, write_rows

CONTROLS = {chr(code) for code in (*range(32), 127, *range(128, 160), 0x202E, 0x200B)} - {
    "\n",
    "\t",
}


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["biuld"], "swe-scaffold: no such command: biuld", "did you mean build?"),
        (["tasks", "synthesise"], "swe-scaffold tasks: no such command", "mean synthesize?"),
        (["build", "--limt", "3"], "swe-scaffold build: no such option: --limt", "mean --limit?"),
        (["--json", "x"], "no such option: --json", "options follow the command"),
        (["build", "--limit", "many"], "swe-scaffold build: --limit: ", "build --help"),
        (["build", "--limit", "-1"], "swe-scaffold build: --limit: ", "build --help"),
        (["build", "--output"], "'--output' requires an argument", "--help"),
        (["train"], "swe-scaffold train: [CONFIG] DATA: is missing", "train --help"),
        (["summarize", "a", "b"], "swe-scaffold summarize: ", "summarize --help"),
        (["build", "--config", "no.json"], "no.json: no such file", "configs/speedrun.json"),
        (["build", "--set", "dataset.sead=3"], "--set: dataset.sead: unknown key", "dataset.seed?"),
        (["build", "--split-by", "rpo"], "--split-by: dataset.split_by", 'did you mean "repo"?'),
        (["tasks", "synthesize", ".", "--output", "t", "--context", "all"], "--context", ""),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], error: str, hint: str
) -> None:
    done = run(*arguments)
    as_json = "--json" in arguments
    assert done.code == 2
    assert (done.err == "") is as_json
    if as_json:
        assert error in done.value["error"]
        assert hint in done.value["hint"]
        return
    first, *rest = done.err.rstrip("\n").split("\n")
    assert first.startswith("error: ")
    assert error in first
    assert len(rest) <= 1
    assert hint in "".join(rest)
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "where"),
    [
        (["summarize", "nothing.jsonl"], 3, "nothing.jsonl"),
        (["audit", "nothing.jsonl"], 3, "nothing.jsonl"),
        (["show", "nothing.jsonl"], 3, "nothing.jsonl"),
        (["build", "--dataset", "nothing.jsonl"], 3, "nothing.jsonl"),
        (["build", "--dataset", "owner/name", "--offline"], 4, ""),
        (["tasks", "synthesize", "nothing", "--output", "t.jsonl"], 3, "nothing"),
        (["train", "nothing.json", "rows.jsonl"], 2, "nothing.json"),
        (["evaluate", "nothing", "rows.jsonl", "--set", "evaluation.alpha=2"], 2, "--set: "),
        (["summarize"], 2, "swe-scaffold summarize: FILE"),
    ],
)
def test_with_json_an_error_is_the_one_document(
    run: Run, arguments: list[str], code: int, where: str
) -> None:
    done = run(*arguments, "--json")
    assert done.code == code
    assert done.value["exit_code"] == code
    assert done.value["error"]
    assert done.value["where"].startswith(where)
    assert "error" not in done.err


@pytest.mark.parametrize("arguments", [[], ["tasks"]])
def test_no_command_shows_help_as_an_error(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: swe-scaffold")
    assert "\\n" not in done.err


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(
    run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("swe_scaffold.cli.inspecting.facts", broken)
    done = run("summarize", rows)
    assert done.code == 1
    assert done.err.split("\n")[0] == "error: RuntimeError: two\\nlines"
    assert "--debug" in done.err
    assert "Traceback" not in done.err
    done = run("summarize", rows, "--debug")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "RuntimeError" in run("summarize", rows, "--json").value["error"]


@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (MemoryError(), 7, "out of memory"),
        (ModuleNotFoundError("x", name="pyarrow"), 4, "pyarrow is not installed"),
        (ModuleNotFoundError("x", name="torch"), 4, "[train]"),
        (ModuleNotFoundError("x", name="swe_scaffold.gone"), 1, "ModuleNotFoundError"),
        (PermissionError(13, "Permission denied", "place"), 4, "place: permission denied"),
    ],
)
def test_failures_that_are_not_ours_get_their_code(
    run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, code: int, text: str
) -> None:
    def broken(*_: object) -> str:
        raise failure

    monkeypatch.setattr("swe_scaffold.cli.inspecting.facts", broken)
    done = run("summarize", rows)
    assert done.code == code
    assert text in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_with_its_code(
    run: Run, rows: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def interrupted(*_: object) -> str:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        except Exception:  # noqa: BLE001 a library that swallows whatever it can
            return "swallowed"
        return "not reached"

    monkeypatch.setattr("swe_scaffold.cli.inspecting.facts", interrupted)
    before = signal.getsignal(number)
    done = run("summarize", rows)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: stopped")
    assert done.err.count("\n") == 1
    assert signal.getsignal(number) is before


def test_foreign_text_reaches_no_terminal_unchanged(run: Run, folder: Path) -> None:
    changes = {"instance_id": f"id{HOSTILE}", "repo": f"owner/{HOSTILE}", "group": HOSTILE}
    hostile = task(1, problem_statement=HOSTILE, change_summary=HOSTILE, **changes)
    bad = {HOSTILE: HOSTILE}
    tasks = write_rows(folder / "tasks.jsonl", [hostile, task(2), bad])
    output = "rows\x1b[31m.jsonl"
    results = [
        run("build", "--dataset", tasks, "--output", output, "--set", "dataset.dev_split=1"),
        run("summarize", output),
        run("audit", output),
        run("show", output),
        run("show", output, HOSTILE),
        run("summarize", "gone\x1b[31m.jsonl"),
        run("build", "--dataset", "gone\x1b[31m.jsonl"),
        run("build", "--dataset", tasks, "--on-bad-row", "stop"),
        run("build", f"--{HOSTILE}"),
        run(HOSTILE),
    ]
    assert [done.code for done in results] == [0, 0, 0, 0, 3, 3, 2, 3, 2, 2]
    for done in results:
        assert not CONTROLS & set(done.out + done.err)
    assert "\\x1b[31mred" in results[3].out


def test_quiet_says_nothing_and_verbose_says_more(run: Run, tasks: Path) -> None:
    quiet = run("build", "--dataset", tasks, "--output", "a.jsonl", "-q")
    verbose = run("build", "--dataset", tasks, "--output", "b.jsonl", "-v", "--json")
    assert quiet.err == ""
    assert "rows read" in quiet.out
    assert "configuration: " in verbose.err
    assert " MiB of memory" in verbose.err
    assert verbose.value["counts"]["read"] == 20


def test_what_follows_a_double_dash_is_no_flag(run: Run, rows: Path) -> None:
    done = run("show", rows, "--", "--json")
    assert done.code == 3
    assert done.err.startswith("error: ")


def run_shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of `$run COMMAND` lines in bash."""
    command = shlex.join(python_command())
    return subprocess.run(
        ["bash", "-c", f'run() {{ {command} "$@"; }}\n{script}'],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        # Empty: buffered, so that what a stream still holds at exit is part of the test.
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
        timeout=60,
        check=False,
    )


def test_a_closed_pipe_is_no_failure(folder: Path) -> None:
    many = [{"prompt": f"{number} " + "long text " * 400, "response": "x"} for number in range(60)]
    path = write_rows(folder / "many.jsonl", many)
    done = run_shell(
        f"run show {path} --limit 60 | head -1; echo ${{PIPESTATUS[0]}}; "
        f"run audit {write_rows(folder / 'bad.jsonl', [{'a': 1}])} | true; echo ${{PIPESTATUS[0]}}"
    )
    assert done.stderr == ""
    first, *codes = done.stdout.rstrip("\n").split("\n")
    assert first.startswith("row-")
    # The verdict of the second does not depend on who reads it.
    assert codes == ["0", "9"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_one_line(rows: Path) -> None:
    done = run_shell(
        f"run summarize {rows} >/dev/full; echo $?\n"
        f"run summarize {rows} --json >/dev/full; echo $?\n"
        "run --help >/dev/full; echo $?"
    )
    # The interpreter would end with 120 and complain if it found unwritten text.
    assert done.stdout == "4\n4\n4\n"
    lines = done.stderr.rstrip("\n").split("\n")
    assert len(lines) == 3
    assert all(line.endswith("no space left on device") for line in lines)


def test_closed_streams_and_poor_encodings(rows: Path, folder: Path) -> None:
    path = write_rows(folder / "accents.jsonl", [{"prompt": "é 漢", "response": "ü"}])
    done = run_shell(
        f"run build --dataset {rows} --output closed.jsonl >&- 2>&-; echo $?\n"
        f"run show {path}; echo $?",
        **{"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        PYTHONIOENCODING="ascii",
    )
    assert done.stderr == ""
    assert done.stdout.startswith("0\n")
    assert done.stdout.endswith("\n0\n")
    assert "\\xe9 \\u6f22" in done.stdout
    assert (folder / "closed.jsonl.manifest.json").is_file()


def cpu_seconds(*arguments: str) -> float:
    """The least processor time of three runs: a busy machine makes no difference to it."""
    costs = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(python_command(*arguments), capture_output=True, check=False, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        costs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(costs)


@pytest.mark.parametrize("arguments", [["--help"], ["summarize", "no-file"]])
def test_a_command_leaves_the_garbage_collector_as_it_was(run: Run, arguments: list[str]) -> None:
    before = gc.get_threshold()
    run(*arguments)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_help_and_a_typo_are_answered_at_once() -> None:
    assert cpu_seconds("--help") < 1
    assert cpu_seconds("train", "configs.json", "rows.jsonl", "--set", "trainin.seed=1") < 1


def test_help_reads_no_configuration_and_no_heavy_package() -> None:
    code = (
        "import sys; from swe_scaffold.cli import main; main(['build', '--help']); "
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow', 'numpy', 'rich', "
        "'swe_scaffold.config') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("\n[]\n")


DOORS: dict[str, list[Any]] = {
    "scripts/build_speedrun_dataset.py": ["--dataset", "tasks.jsonl"],
    "scripts/summarize_dataset.py": ["data/processed/swe-speedrun.jsonl"],
    "training/train_qwen_speedrun.py": ["no.json", "data/processed/swe-speedrun.jsonl"],
    "training/evaluate_qwen_speedrun.py": ["no/run", "no.jsonl"],
}


def test_doors_are_commands_under_their_own_name(
    folder: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    codes = []
    for door, arguments in DOORS.items():
        script = ROOT / door
        for given in (["--help"], [*arguments, "--offline"]):
            monkeypatch.setattr(sys, "argv", [str(script), *given])
            with pytest.raises(SystemExit) as leaving:
                runpy.run_path(str(script), run_name="__main__")
            printed = capsys.readouterr()
            if given == ["--help"]:
                assert printed.out.startswith(f"Usage: {script.name} [OPTIONS]")
            else:
                codes.append(leaving.value.code)
    assert codes == [0, 0, 2, 3]
    assert (folder / "data/processed/swe-speedrun.skipped.jsonl").is_file()


def test_a_door_finds_the_package_from_any_folder(rows: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/summarize_dataset.py", rows, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"rows": ' in done.stdout


@pytest.mark.parametrize("processes", ["1", "2"])
def test_one_of_several_processes_ends_without_what_may_fail_at_exit(processes: str) -> None:
    """FSDP leaves threads behind that abort an interpreter now and then, its work long done."""
    code = (
        "import atexit, sys; from swe_scaffold.cli import run; "
        "atexit.register(print, 'at exit', file=sys.stderr); run(sys.argv[1:])"
    )
    for arguments, expected in [(["--version"], 0), (["no-such-command"], 2)]:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "WORLD_SIZE": processes},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected
        assert ("swe-scaffold" in done.stdout) == (expected == 0)
        assert ("error: " in done.stderr) == (expected == 2)
        assert ("at exit" in done.stderr) == (processes == "1")
