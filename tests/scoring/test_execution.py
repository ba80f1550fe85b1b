"""Tests of tasks, really run in the sandbox on predictions, honest ones and others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.cache import Cache
from swe_scaffold.errors import EnvironmentFailure, UsageError
from swe_scaffold.metrics.clustered import Settings
from swe_scaffold.sandbox import bubblewrap, confine, landlock, open_sandbox, take_snapshot
from swe_scaffold.scoring import Execution, Keep, Options, score_predictions
from swe_scaffold.scoring.harness import read_report, resolved_rates
from swe_scaffold.scoring.named_tests import read_named_tests
from tests.cli.conftest import command, python_command
from tests.scoring.benches import (
    CALC,
    COMMAND,
    FIXED,
    MORE_TESTS,
    REPO,
    TESTS,
    calc,
    diff,
    execute,
    fates,
    make_history,
    predict,
)
from tests.scoring.conftest import write_lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
SUM, MORE, DIVIDE, MULTIPLY = "sum", "more", "divide", "multiply"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


class Mined:
    """Tasks that `tasks mine` made of the history, by what they are about."""

    def __init__(self, folder: Path) -> None:
        self.repos, self.path = folder / "repos", folder / "tasks.jsonl"
        self.history = make_history(self.repos / "owner__name")
        flags = ["--repo", REPO, "--output", self.path, "-q"]
        assert command("tasks", "mine", self.history.folder, *flags).code == 0
        about = (MORE, DIVIDE, MULTIPLY, SUM)
        self.rows = dict(zip(about, lines(self.path), strict=True))
        self.cache = Cache(folder / "cache")

    def name(self, about: str) -> str:
        return str(self.rows[about]["instance_id"])

    def gold(self, about: str) -> str:
        return str(self.rows[about]["patch"])


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Mined:
    return Mined(tmp_path_factory.mktemp("mined"))


@pytest.fixture(params=["bwrap", "landlock"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    refusal = {"bwrap": bubblewrap, "landlock": landlock}[request.param].refusal()
    if refusal:
        pytest.skip(f"{request.param}: {refusal}")
    try:
        open_sandbox(tmp_path_factory.mktemp("probe"), backend=request.param)
    except EnvironmentFailure as error:
        pytest.skip(error.message)
    return str(request.param)


@pytest.mark.slow
def test_every_prediction_and_task_has_one_fate(mined: Mined, tmp_path: Path) -> None:
    patches = {
        mined.name(SUM): mined.gold(SUM),
        mined.name(DIVIDE): mined.gold(DIVIDE),
        mined.name(MULTIPLY): mined.gold(MULTIPLY),
    }
    report = execute(predict(tmp_path / "p.jsonl", patches), mined.path, mined.repos, mined.cache)
    assert {name: fate for (name, _), fate in fates(report).items()} == {
        mined.name(SUM): ("resolved", ""),
        mined.name(DIVIDE): ("error", "gold_fails"),
        mined.name(MULTIPLY): ("error", "no_tests"),
    }
    assert report["incomplete_ids"] == [mined.name(MORE)]
    checks = {row["instance_id"]: row for row in report["tasks"]["rows"]}
    assert checks[mined.name(SUM)]["fail_to_pass"] == ["tests/test_calc.py::test_add"]
    assert checks[mined.name(SUM)]["pass_to_pass"] == 1
    read = read_report(tmp_path / "p.executed.json")
    ledger = read.ledger()
    assert (ledger["resolved"], ledger["error"], ledger["not_submitted"]) == (1, 2, 1)
    assert sum(ledger.values()) == read.total == 4
    summary = report["summary"]["execution"]
    # Of one judged task one is resolved; of all four, too.
    assert (summary["of_judged"]["value"], summary["of_judged"]["n"]) == (1.0, 1)
    assert resolved_rates(read, Settings()).of_all.value == 0.25
    assert report["summary"]["harness"][0]["of_all"]["ci"] is not None


@pytest.mark.slow
def test_tests_that_pass_before_show_nothing(mined: Mined, tmp_path: Path) -> None:
    task = mined.rows[SUM]
    # Its test patch tells nothing of the sum any more.
    said = diff("tests/test_calc.py", TESTS, f"{TESTS}\n\ndef test_two():\n    assert 2\n")
    tasks = write_lines(tmp_path / "t.jsonl", [{**task, "test_patch": said}])
    path = predict(tmp_path / "p.jsonl", {mined.name(SUM): mined.gold(SUM)})
    assert fates(execute(path, tasks, mined.repos)) == {
        (mined.name(SUM), 0): ("error", "no_failing_test")
    }


LEAVE = "import os; os._exit(0)\n"
FORGED = """import atexit, os, re
def _forge():
    path = re.search('junitxml=([^ ]+)', os.environ['PYTEST_ADDOPTS'])[1]
    names = ['test_sub', 'test_add']
    cases = ''.join(
        '<testcase classname="tests.test_calc" file="tests/test_calc.py" name="%s"/>' % name
        for name in names
    )
    with open(path, 'w') as stream:
        stream.write('<testsuites><testsuite>%s</testsuite></testsuites>' % cases)
"""
FLOOD = """import os
while True:
    for fd in range(3, 30):
        try:
            os.write(fd, b'x' * 65536)
        except OSError:
            pass
"""
LINK = "\n".join(
    [
        *("diff --git a/tests/test_calc.py b/tests/test_calc.py", "deleted file mode 100644"),
        *("--- a/tests/test_calc.py", "+++ /dev/null", "@@ -1,5 +0,0 @@"),
        *(f"-{line}" for line in TESTS.split("\n")[:-1]),
        *("diff --git a/tests/test_calc.py b/tests/test_calc.py", "new file mode 120000"),
        *("--- /dev/null", "+++ b/tests/test_calc.py", "@@ -0,0 +1 @@", "+/etc/hostname"),
        *("\\ No newline at end of file", ""),
    ]
)


def attempts() -> dict[str, tuple[str | None, tuple[str, str]]]:
    """What predictions try, and what becomes of it."""
    cheat = MORE_TESTS.replace("== 5", "!= 5")
    conftest = diff("tests/conftest.py", "", LEAVE)
    wrong = calc(after=CALC.replace("a - b", "a * b", 1))
    still = ("unresolved", "still_failing")
    return {
        "gold": (calc(), ("resolved", "")),
        "wrong": (wrong, still),
        "breaks another": (
            calc(after=FIXED.replace("a - b", "b")),
            ("unresolved", "breaks_others"),
        ),
        "nothing": (None, ("empty", "")),
        "blank": (" \n", ("empty", "")),
        "for another file": (diff("src/calc.py", "x\n", "y\n"), ("not_applied", "mismatch")),
        "out of the tree": (diff("../up.py", "", "x\n"), ("not_applied", "unsafe_path")),
        "edits the test": (diff("tests/test_calc.py", TESTS, cheat), still),
        "links the test": (calc() + LINK, ("resolved", "")),
        "leaves in conftest": (wrong + conftest, still),
        "conftest has no say": (calc() + conftest, ("resolved", "")),
        "leaves at import": (calc("import os; os._exit(0)\n"), ("unresolved", "no_report")),
        "exits at import": (calc("import sys; sys.exit(0)\n"), ("unresolved", "stopped")),
        "kills itself": (calc("import os; os.kill(os.getpid(), 9)\n"), ("unresolved", "killed")),
        "floods": (calc(FLOOD), ("unresolved", "output")),
        "forges at import": (calc(f"{FORGED}_forge()\n", CALC), still),
        "forges in the end": (
            calc(f"{FORGED}atexit.register(_forge)\n", CALC),
            ("unresolved", "report_contradicts"),
        ),
        "edits the test when it runs": (
            calc("open('tests/test_calc.py', 'a').write('# x')\n"),
            ("unresolved", "tests_changed"),
        ),
    }


REACH_OUT = """import os, socket
from pathlib import Path
for path in ({outside!r} + "/new", "/usr/evil", os.path.expanduser("~root/evil"), "../../up"):
    try:
        Path(path).write_text("x")
    except OSError:
        pass
try:
    os.symlink({outside!r}, "way")
    Path("way/new").write_text("x")
except OSError:
    pass
try:
    os.kill(os.getppid(), 9)
except OSError:
    pass
try:
    socket.create_connection(("127.0.0.1", {port}), 2).sendall(b"leak")
except OSError:
    pass
else:
    raise SystemExit("connected")
"""


@pytest.mark.slow
def test_nothing_outside_the_copy_is_reached(mined: Mined, tmp_path: Path, backend: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine\n")
    before = [take_snapshot(path) for path in (outside, mined.repos)]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        reach = REACH_OUT.format(outside=str(outside), port=server.getsockname()[1])
        path = predict(tmp_path / "p.jsonl", {mined.name(SUM): calc(reach)})
        report = execute(path, mined.path, mined.repos, mined.cache, sandbox=backend)
        with pytest.raises(TimeoutError):
            server.accept()
    # It repairs the sum, too: so it was run to its end.
    assert fates(report) == {(mined.name(SUM), 0): ("resolved", "")}
    assert [take_snapshot(path).sha256 for path in (outside, mined.repos)] == [
        known.sha256 for known in before
    ]


@pytest.mark.slow
def test_what_does_not_end_is_ended(
    mined: Mined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    # It leaves a child behind, folders that nobody may enter, and some deeper than names can say.
    start = "import os\nos.makedirs('a/b')\nos.chmod('a/b', 0)\nos.chmod('a', 0)\n"
    start += "for _ in range(1500):\n    os.mkdir('deep')\n    os.chdir('deep')\n"
    hang = calc(f"{start}os.fork()\nwhile True:\n    pass\n")
    path = predict(tmp_path / "p.jsonl", {mined.name(SUM): hang})
    report = execute(path, mined.path, mined.repos, seconds=12.0)
    assert fates(report) == {(mined.name(SUM), 0): ("unresolved", "timeout")}
    assert list(folder.iterdir()) == []


def test_without_a_sandbox_nothing_is_run(
    mined: Mined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine without bubblewrap and with an older kernel.
    monkeypatch.setattr(bubblewrap, "_find", lambda name: "")
    monkeypatch.setattr(confine, "abi", lambda: 0)
    monkeypatch.chdir(tmp_path)
    path = predict(tmp_path / "p.jsonl", {mined.name(SUM): calc()})
    flags = ["--repos", mined.repos, "--execute", COMMAND]
    done = command("score", path, mined.path, *flags)
    assert (done.code, "no sandbox works here" in done.err) == (4, True)
    assert not (tmp_path / "p.executed.json").exists()


@pytest.mark.slow
def test_the_terminal_tells_what_became_of_it(mined: Mined, tmp_path: Path) -> None:
    patches = {mined.name(SUM): calc(), mined.name(MULTIPLY): mined.gold(MULTIPLY)}
    path = predict(tmp_path / "p.jsonl", patches)
    flags = ["--repos", mined.repos, "--execute", COMMAND, "-q"]
    done = command("score", path, mined.path, *flags)
    assert done.code == 0, done.err
    assert "tasks checked against their gold patches: 2 = no_tests 1, valid 1\n" in done.out
    assert f"  {mined.name(MULTIPLY)}: no_tests: the task names no tests and brings" in done.out
    assert "predictions: 2 = error 1, resolved 1\n" in done.out
    assert "1.00 [0.21, 1.00] if tasks were independent (Wilson)" in done.out
    assert done.out.endswith("p.executed.json\n")
    for option, value in (("--environment", tmp_path), ("--jobs", 2), ("--execute-timeout", 9)):
        alone = command("score", path, mined.path, option, value)
        assert (alone.code, f"{option} goes with --execute" in alone.err) == (2, True)


@pytest.mark.slow
def test_files_that_cannot_be_had_are_counted(mined: Mined, tmp_path: Path) -> None:
    repos = tmp_path / "repos"
    shutil.copytree(mined.repos, repos)
    blob = hashlib.sha1(b"blob 2\0x\n").hexdigest()
    (lost,) = repos.rglob(f"objects/{blob[:2]}/{blob[2:]}")
    lost.unlink()
    path = predict(tmp_path / "p.jsonl", {mined.name(SUM): calc()})
    report = execute(path, mined.path, repos)
    assert fates(report) == {(mined.name(SUM), 0): ("resolved", "")}
    assert report["summary"]["execution"]["files_left_out"] == 1
    assert report["tasks"]["rows"][0]["files_left_out"] == 1


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ()),
        ("", ()),
        ("[]", ()),
        ('["a::b", "a::b", "c"]', ("a::b", "c")),
        (["a"], ("a",)),
        ("a::b", None),
        ([1], None),
        ('{"a": 1}', None),
    ],
)
def test_names_of_tests_in_every_form(tmp_path: Path, value: object, names: Any) -> None:
    task = {"instance_id": "a__b-1", "problem_statement": "x", "patch": "y"}
    path = write_lines(tmp_path / "t.jsonl", [{**task, "FAIL_TO_PASS": value}, task])
    named = read_named_tests(str(path))["a__b-1"]
    assert named.fail_to_pass == (names or ())
    assert bool(named.fault) == (names is None)


@pytest.mark.slow
def test_what_is_known_is_not_run_again(
    mined: Mined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = predict(tmp_path / "p.jsonl", {mined.name(SUM): calc()})
    first = execute(path, mined.path, mined.repos, mined.cache)
    log = (tmp_path / "p.executed.jsonl").read_bytes()
    again = execute(path, mined.path, mined.repos, mined.cache)
    assert again == first
    assert (tmp_path / "p.executed.jsonl").read_bytes() == log
    # Another file of predictions: the task is known, by the cache alone; its own log is empty.
    other = predict(tmp_path / "q.jsonl", {mined.name(SUM): calc("# other\n")})
    execute(other, mined.path, mined.repos, mined.cache)
    kinds = [row["kind"] for row in lines(tmp_path / "q.executed.jsonl")]
    assert kinds == ["verdict"]
    # Another command is another question.
    execute(other, mined.path, mined.repos, mined.cache, command=f"{COMMAND} -p no:randomly")
    kinds = [row["kind"] for row in lines(tmp_path / "q.executed.jsonl")]
    assert kinds == ["verdict", "check", "verdict"]


def without_times(report: Path) -> Any:
    """Return a report without seconds, which no two runs share."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k != "seconds"}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(json.loads(report.read_text("utf-8")))


def begin(folder: Path, mined: Mined, temporary: Path) -> subprocess.Popen[bytes]:
    flags = ["--repos", mined.repos, "--execute", COMMAND]
    return subprocess.Popen(
        python_command("score", folder / "p.jsonl", mined.path, *flags),
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_goes_on(mined: Mined, tmp_path: Path, number: signal.Signals) -> None:
    folders = [tmp_path / name for name in ("whole", "stopped", "temporary")]
    for folder in folders:
        folder.mkdir()
    whole, stopped, temporary = folders
    samples: list[str | None] = [calc(), calc(after=CALC + "\n"), None, calc("# a comment\n")]
    for folder in (whole, stopped):
        predict(folder / "p.jsonl", samples, mined.name(SUM))  # type: ignore[arg-type]
    log = stopped / "p.executed.jsonl"
    child = begin(stopped, mined, temporary)
    wait_for(lambda: log.is_file() and log.read_bytes().count(b"\n") >= 2)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), err
    if number == signal.SIGINT:
        assert list(temporary.iterdir()) == []
    assert not (stopped / "p.executed.json").exists()
    before = log.read_bytes()
    done = begin(stopped, mined, temporary)
    _, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert b"1 of 1 tasks are known already" in err
    assert log.read_bytes().startswith(before)
    uninterrupted = begin(whole, mined, temporary)
    uninterrupted.communicate(timeout=300)
    assert uninterrupted.returncode == 0
    reports = [without_times(folder / "p.executed.json") for folder in (whole, stopped)]
    for report in reports:
        report["inputs"]["predictions"].pop("path")
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_resolved_is_kept_and_compared(mined: Mined, tmp_path: Path) -> None:
    wrong = calc(after=CALC + "# nothing\n")
    samples: list[str | None] = [wrong, calc()]
    good = predict(tmp_path / "good.jsonl", samples, mined.name(SUM))  # type: ignore[arg-type]
    bad = predict(tmp_path / "bad.jsonl", {mined.name(SUM): wrong})
    execute(bad, mined.path, mined.repos, mined.cache)
    options = Options(
        repos=mined.repos,
        execution=Execution(COMMAND, cache=mined.cache),
        keep=Keep("resolved", tmp_path / "kept.jsonl"),
        against=bad,
        against_resolved=[tmp_path / "bad.executed.json"],
    )
    done = score_predictions(good, str(mined.path), options)
    kept = lines(tmp_path / "kept.jsonl")
    # Each sample has a verdict of its own; a harness's report speaks of the first.
    assert [(row["sample"], row["resolved"]) for row in kept] == [(1, True)]
    assert read_report(tmp_path / "good.executed.json").fates["unresolved"] == (mined.name(SUM),)
    assert done.report["against"]["reports"][0]["test"]["neither"] == 1
    assert done.report["against"]["metrics"]["resolved"]["effect"]["value"] == 0.5


SHOP = """\
def total(prices, rate):
    if rate < 0:
        raise ValueError(rate)
    result = 0
    for price in prices:
        result += price * (1 + rate)
    return round(result, 2)
"""
PADDING = "# nothing\n" * 6
SHOP_TESTS = """\
import pytest
from shop.cart import total


def test_total():
    assert total([1, 2], 0.5) == 4.5


def test_rate():
    with pytest.raises(ValueError):
        total([], -1)
"""


@pytest.mark.slow
def test_synthetic_tasks_are_planted_again(tmp_path: Path) -> None:
    project, tasks = tmp_path / "project", tmp_path / "tasks.jsonl"
    for name, text in {
        "src/shop/__init__.py": "",
        "src/shop/cart.py": PADDING + SHOP + PADDING,
        "tests/test_cart.py": SHOP_TESTS,
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    flags = ["--validate-in", project, "--validate", f"{sys.executable} -m pytest -q", "-q"]
    flags += ["--count", "1", "--output", tasks]
    assert command("tasks", "synthesize", project / "src", *flags).code == 0
    row = json.loads(tasks.read_text("utf-8").partition("\n")[0])
    before = take_snapshot(project).sha256
    comment = diff("shop/other.py", "", "# nothing is repaired\n")
    samples: list[str | None] = [row["patch"], comment]
    path = predict(tmp_path / "p.jsonl", samples, row["instance_id"])  # type: ignore[arg-type]
    report = execute(path, tasks, None, project=project, tree=project / "src")
    assert list(fates(report).values()) == [("resolved", ""), ("unresolved", "still_failing")]
    checked = report["tasks"]["rows"][0]
    assert checked["fail_to_pass"] == json.loads(row["FAIL_TO_PASS"])
    assert take_snapshot(project).sha256 == before
    # The project has moved on, where the bug could still be planted: nothing is said of any.
    (project / "src/shop/cart.py").write_text(f"# moved\n{PADDING}{SHOP}{PADDING}")
    moved = execute(path, tasks, None, project=project, tree=project / "src")
    assert set(fates(moved).values()) == {("error", "other_tree")}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": COMMAND}, "needs the files of tasks"),
        ({"command": " ", "project": "."}, "is empty"),
        ({"command": COMMAND, "tree": "."}, "--tree goes with --project"),
        ({"command": COMMAND, "project": "nowhere"}, "no such folder"),
        ({"command": "no-such-program-here", "project": "."}, "no such program in the sandbox"),
        ({"command": COMMAND, "project": ".", "environment": "."}, "has no bin/python"),
        ({"command": COMMAND, "project": ".", "sandbox": "bag"}, "there is no sandbox 'bag'"),
        ({"command": COMMAND, "project": ".", "seconds": 0.0}, "more than 0 seconds"),
        ({"command": COMMAND, "project": ".", "tree": "/"}, "is not inside"),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(
    mined: Mined, tmp_path: Path, options: dict[str, Any], said: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {k: Path(options.pop(k)) for k in ("project", "tree", "environment") if k in options}
    predictions = predict(tmp_path / "p.jsonl", {mined.name(SUM): calc()})
    with pytest.raises(UsageError, match=said):
        score_predictions(
            predictions, str(mined.path), Options(execution=Execution(**options, **paths))
        )
    assert not (tmp_path / "p.executed.json").exists()


@pytest.mark.slow
def test_what_predictions_try(mined: Mined, tmp_path: Path, backend: str) -> None:
    tried = attempts()
    patches = [patch for patch, _ in tried.values()]
    path = predict(tmp_path / "p.jsonl", patches, mined.name(SUM))  # type: ignore[arg-type]
    report = execute(path, mined.path, mined.repos, mined.cache, sandbox=backend, jobs=2)
    found = dict(zip(tried, fates(report).values(), strict=True))
    assert found == {name: fate for name, (_, fate) in tried.items()}
