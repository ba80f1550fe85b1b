"""The command walkthrough --batch: one status per task, resumed, held against gold, comparable."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, python_command, require_walkthroughs, write_rows
from tests.histories import History
from tests.prediction.chat_server import Handler, Seen, serving
from tests.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.slow

ANSWER = "return total - total * rate"


@pytest.fixture
def tasks(folder: Path) -> list[dict[str, Any]]:
    """Four tasks of two repositories, whose fixes are in the clones' history."""
    require_walkthroughs(folder)
    rows = []
    for name in ("one", "two"):
        history = History(folder / "repos" / f"owner__{name}")
        for place in ("prices", "carts"):
            history.write(
                {
                    f"shop/{place}.py": f"def {place}_total(total, rate):\n    return total\n",
                    f"shop/{place}_more.py": f"from shop.{place} import {place}_total\n",
                }
            )
        base = history.commit("Begin")
        for place in ("prices", "carts"):
            fixed = f"def {place}_total(total, rate):\n    {ANSWER}\n"
            commit = history.commit(f"Fix {place}", {f"shop/{place}.py": fixed})
            rows.append(
                {
                    "instance_id": f"owner__{name}-{place}",
                    "repo": f"owner/{name}",
                    "base_commit": base,
                    "problem_statement": f"`{place}_total` in shop/{place}.py forgets the rate",
                    "patch": history.git("diff", f"{commit}~1", commit) + "\n",
                }
            )
    return rows


def batch(run: Run, rows: list[dict[str, Any]], *more: object, output: str = "out") -> Any:
    write_rows(Path("tasks.jsonl"), rows)
    given = ("--batch", "tasks.jsonl", "--repos", "repos", "--output", output, *more)
    return run("walkthrough", *given, "-q", "--json")


def rows_of(output: str = "out") -> list[dict[str, Any]]:
    lines = Path(output, "walkthroughs.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_every_task_has_one_status_and_the_fix_is_not_shown(
    run: Run, tasks: list[dict[str, Any]]
) -> None:
    first = tasks[0]
    others = [
        first | {"instance_id": "../../evil", "repo": "owner/none"},
        first | {"instance_id": "walkthroughs.jsonl", "base_commit": "0" * 40},
        first | {"instance_id": "silent", "problem_statement": " "},
        first | {"instance_id": "new file", "patch": NEW_FILE},
        first,
    ]
    done = batch(run, [*tasks, *others])
    assert done.code == 9
    report = done.value
    assert report["statuses"] == {"no_clone": 1, "no_commit": 1, "submitted": 5}
    assert report["left_out"] == {"duplicate": 1, "not_a_task": 1}
    assert report["rows"] == 9 == sum(report["statuses"].values()) + 2
    assert report["measured"] == 4
    rows = {row["instance_id"]: row for row in rows_of()}
    assert list(rows) == [row["instance_id"] for row in [*tasks, *others[:2], others[3]]]
    for task in tasks:
        row = rows[task["instance_id"]]
        place = task["instance_id"].rpartition("-")[2]
        assert row["gold"] == [f"shop/{place}.py"]
        assert row["hit_at_1"] == row["reciprocal_rank"] == row["seen_line_recall"] == 1
        written = {path.name for path in Path("out", row["folder"]).iterdir()} - {".lock"}
        ends = ("traj.json", "atif.json", "md", "html")
        assert written == {f"walkthrough.{end}" for end in ends}
        trajectory = Path("out", row["folder"], "walkthrough.traj.json").read_text("utf-8")
        assert f"def {place}_total" in trajectory
        assert ANSWER not in trajectory
        info = json.loads(trajectory)["info"]
        assert info["instance_id"] == task["instance_id"]
        assert info["config"]["environment"]["repo"] == task["repo"].partition("/")[2]
    assert rows["new file"]["gold"] is None
    assert rows["new file"]["hit_at_1"] is None
    assert not Path("evil").exists()
    page = Path("out/index.html").read_text("utf-8")
    assert 'href="owner__one-prices/walkthrough.html"' in page
    assert "<script" not in page


NEW_FILE = """\
diff --git a/shop/new.py b/shop/new.py
new file mode 100644
--- /dev/null
+++ b/shop/new.py
@@ -0,0 +1 @@
+NEW = 1
"""


def test_a_batch_goes_on_where_it_stopped(run: Run, tasks: list[dict[str, Any]]) -> None:
    assert batch(run, tasks).code == 0
    before = rows_of()
    log = Path("out/walkthroughs.jsonl")
    lines = log.read_bytes().split(b"\n")
    times = {row["folder"]: walked_at(row) for row in before}
    # Two tasks are done; the third was being written when the process was killed.
    log.write_bytes(b"\n".join([*lines[:2], lines[2][:40]]))
    assert batch(run, tasks).code == 0
    after = rows_of()
    assert without_times(after) == without_times(before)
    assert [walked_at(row) == times[row["folder"]] for row in after] == [True, True, False, False]
    assert batch(run, tasks).code == 0
    assert rows_of() == after


def walked_at(row: dict[str, Any]) -> int:
    return Path("out", row["folder"], "walkthrough.traj.json").stat().st_mtime_ns


def test_what_had_no_clone_is_tried_again(run: Run, tasks: list[dict[str, Any]]) -> None:
    Path("repos/owner__two").rename("elsewhere")
    done = batch(run, tasks)
    assert done.code == 9
    assert done.value["statuses"] == {"no_clone": 2, "submitted": 2}
    Path("elsewhere").rename("repos/owner__two")
    done = batch(run, tasks)
    assert done.code == 0
    assert done.value["statuses"] == {"submitted": 4}
    assert [row["status"] for row in rows_of()] == ["submitted"] * 4


def test_walkthroughs_of_another_kind_are_not_mixed(run: Run, tasks: list[dict[str, Any]]) -> None:
    assert batch(run, tasks).code == 0
    refused = run(
        *("walkthrough", "--batch", "tasks.jsonl", "--repos", "repos", "--output", "out"),
        *("--max-steps", "9"),
    )
    assert refused.code == 2
    assert "there are walkthroughs already, of another settings" in refused.err
    refused = batch(run, tasks[:3])
    assert refused.code == 2
    done = batch(run, tasks[:3], "--overwrite")
    assert done.code == 0
    assert len(rows_of()) == 3
    assert not Path("out", tasks[3]["instance_id"], "walkthrough.traj.json").exists()


def test_processes_change_nothing(run: Run, tasks: list[dict[str, Any]]) -> None:
    assert batch(run, tasks).code == 0
    assert batch(run, tasks, "--jobs", 3, output="three").code == 0
    assert without_times(rows_of("three")) == without_times(rows_of())


def test_two_batches_are_compared_task_by_task(run: Run, tasks: list[dict[str, Any]]) -> None:
    assert batch(run, tasks, "--max-steps", 3, output="short").code == 9
    short = rows_of("short")
    assert [row["status"] for row in short] == ["not_submitted"] * 4
    assert [row["hit_at_1"] for row in short] == [0.0] * 4
    done = batch(run, tasks, "--against", "short")
    against = done.value["against"]
    assert against["tasks"] == 4
    hit = against["measures"]["hit_at_1"]
    assert hit["effect"]["value"] == 1
    assert (hit["higher"], hit["lower"], hit["equal"]) == (4, 0, 0)
    given = ("--batch", "tasks.jsonl", "--repos", "repos", "--output", "out", "--against", "short")
    told = run("walkthrough", *given).out
    assert "against short, over 4 tasks of both" in told
    assert "first file right" in told
    other = [task | {"instance_id": f"x-{task['instance_id']}"} for task in tasks[:1]]
    write_rows(Path("others.jsonl"), other)
    given = ("--batch", "others.jsonl", "--repos", "repos", "--output", "others")
    assert run("walkthrough", *given, "--against", "short").code == 5


def test_files_that_cannot_be_had_are_counted(run: Run, tasks: list[dict[str, Any]]) -> None:
    text = b"from shop.carts import carts_total\n"
    blob = hashlib.sha1(b"blob %d\0%s" % (len(text), text)).hexdigest()
    Path("repos/owner__one/.git/objects", blob[:2], blob[2:]).unlink()
    write_rows(Path("tasks.jsonl"), tasks)
    given = ("--batch", "tasks.jsonl", "--repos", "repos", "--output", "out")
    done = run("walkthrough", *given)
    assert done.code == 0, done.err
    assert "files that trees lack here (over 32 MiB, say): 2" in done.out
    assert [row["tree"]["left_out"] for row in rows_of()] == [{"unreadable": 1}] * 2 + [{}] * 2


def test_intervals_are_by_repository(run: Run, tasks: list[dict[str, Any]]) -> None:
    report = batch(run, tasks).value
    metric = report["localisation"]["seen_line_precision"]
    assert (metric["n"], metric["clusters"]) == (4, 2)
    assert list(report["by_repository"]) == ["owner/one", "owner/two"]
    report = batch(run, tasks, "--cluster-by", "row").value
    assert report["localisation"]["seen_line_precision"]["clusters"] == 4


def test_a_batch_becomes_rows_once(run: Run, tasks: list[dict[str, Any]]) -> None:
    assert batch(run, tasks).code == 0
    done = run("build", "--dataset", "out", "--include-empty", "--output", "rows.jsonl", "--json")
    assert done.value["counts"]["read"] == 4, done.err


def test_ctrl_c_keeps_what_is_done(
    run: Run, tasks: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [tasks[0] | {"instance_id": f"{number:03}"} for number in range(200)]
    write_rows(Path("tasks.jsonl"), many)
    (folder / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "temporary"))
    given = ("--batch", "tasks.jsonl", "--repos", "repos", "--output", "out", "--jobs", "2")
    process = subprocess.Popen(
        python_command("walkthrough", *given), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    log = Path("out/walkthroughs.jsonl")
    end = time.monotonic() + 60
    while time.monotonic() < end and not (log.is_file() and log.stat().st_size):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == b""
    assert b"Traceback" not in err
    assert b"are kept; the same command goes on" in err
    assert [path.name for path in (folder / "temporary").iterdir()] == []
    assert 0 < len(rows_of()) < 200


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "no repository is named"),
        (["--batch", "tasks.jsonl"], "--batch needs --repos"),
        (["--batch", "t", "--repos", ".", "here"], "REPO is for one repository"),
        (["--batch", "t", "--repos", ".", "--task", "x"], "--task is for one repository"),
        (["here", "--jobs", "2"], "--jobs goes with --batch"),
        (["here", "--repos", "."], "--repos goes with --batch"),
        (["here", "--cluster-by", "row"], "--cluster-by goes with --batch"),
        (
            ["--batch", "tasks.jsonl", "--repos", ".", "--jobs", "2", "--model", "tiny"],
            "a model on this machine takes one job",
        ),
        (["--batch", "tasks.jsonl", "--repos", "none"], "there is no such folder"),
        (["--batch", "tasks.jsonl", "--repos", ".", "--against", "."], "has no walkthroughs"),
    ],
)
def test_options_that_do_nothing_are_refused(
    run: Run, folder: Path, arguments: list[str], problem: str
) -> None:
    Path("here").mkdir()
    row = {"instance_id": "a", "repo": "o/r", "problem_statement": "x", "patch": NEW_FILE}
    write_rows(Path("tasks.jsonl"), [row])
    done = run("walkthrough", *arguments)
    assert done.code == 2, done.err
    assert problem in done.err


def test_trajectories_that_found_something_are_kept(run: Run, tasks: list[dict[str, Any]]) -> None:
    lost = tasks[1] | {"instance_id": "lost", "problem_statement": "Something is wrong somewhere."}
    given = ("--keep", "hit_at_1 and seen_line_recall == 1", "--rows", "kept.jsonl")
    done = batch(run, [tasks[0], lost, tasks[2]], *given)
    assert done.value["kept"]["rows"] == 2
    kept = [json.loads(line) for line in Path("kept.jsonl").read_text("utf-8").split("\n") if line]
    assert [row["info"]["instance_id"] for row in kept] == [
        tasks[0]["instance_id"],
        tasks[2]["instance_id"],
    ]
    built = run("build", "--dataset", "kept.jsonl", "--include-empty", "--output", "rows.jsonl")
    assert built.code == 0, built.err
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text("utf-8").split("\n") if line]
    assert {row["repo"] for row in rows} <= {"owner/one", "owner/two"}
    assert batch(run, tasks, "--keep", "hit_at_9", "--rows", "k.jsonl").code == 2
    assert batch(run, tasks, "--keep", "hit_at_1").code == 2
    refused = batch(run, tasks, "--keep", "hit_at_1", "--rows", "out/walkthroughs.jsonl")
    assert refused.code == 2
    assert len(rows_of()) == 3


def test_a_server_that_goes_away_ends_a_batch_that_goes_on_later(
    run: Run, tasks: list[dict[str, Any]]
) -> None:
    answers = 0

    def behave(handler: Handler, request: Seen, _: int) -> None:
        nonlocal answers
        answers += 1
        if answers == 3:
            handler.reply(401, b"{}")
            return
        task = request.body["messages"][1]["content"]
        place = "prices" if "prices_total" in task else "carts"
        arguments = json.dumps({"text": f"It is `shop/{place}.py:1`."})
        function = {"name": "report", "arguments": arguments}
        handler.complete("", tool_calls=[{"id": "c", "type": "function", "function": function}])

    with serving(behave) as place:
        served = ("--api-base", place.url, "--model", "m")
        write_rows(Path("tasks.jsonl"), tasks)
        given = ("--batch", "tasks.jsonl", "--repos", "repos", "--output", "out", *served)
        stopped = run("walkthrough", *given)
        assert stopped.code == 4, stopped.err
        assert "2 of 4 are kept; the same command goes on" in stopped.err
        assert [row["status"] for row in rows_of()] == ["submitted", "submitted"]
        assert json.loads(Path("out/walkthroughs.json").read_text("utf-8"))["complete"] is False
        done = run("walkthrough", *given, "--jobs", 2, "--json")
    assert done.code == 0, done.err
    assert done.value["guide"]["name"] == "m"
    # Two, the refused one, and two more.
    assert answers == 5
    assert [row["hit_at_1"] for row in rows_of()] == [1.0] * 4
    assert [row["seen_file_recall"] for row in rows_of()] == [0.0] * 4


def test_a_model_on_this_machine_is_loaded_once(run: Run, tasks: list[dict[str, Any]]) -> None:
    place = Path("tiny")
    place.mkdir()
    base = tiny_model(place, tiny_tokenizer(place), hidden=16)
    write_rows(Path("tasks.jsonl"), tasks[:2])
    given = ("--batch", "tasks.jsonl", "--repos", "repos", "--output", "out", "--model", base)
    # It has learnt nothing: three answers without a call end a walkthrough.
    done = run("walkthrough", *given, "--max-new-tokens", 4)
    assert done.code == 9, done.err
    assert done.err.count("base: ") == 1
    assert [row["exit_status"] for row in rows_of()] == ["RepeatedFormatError"] * 2
    assert [row["hit_at_5"] for row in rows_of()] == [0.0] * 2
    guide = json.loads(Path("out/walkthroughs.json").read_text("utf-8"))["guide"]
    assert guide["kind"] == "local"
    assert len(guide["base_sha256"]) == 64
