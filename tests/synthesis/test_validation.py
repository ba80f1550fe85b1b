"""What a project's own tests say of mutants, in real runs of pytest on a tiny project."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import pytest

from swe_scaffold.errors import DataError, ScaffoldError, UsageError
from swe_scaffold.python_code import Candidate, Edit, Place
from swe_scaffold.synthesis import Recipe, synthesize
from swe_scaffold.synthesis.junit import read_report
from swe_scaffold.synthesis.mutants import File, Mutant, Observation, Site
from swe_scaffold.synthesis.validation import open_checker, read_command
from swe_scaffold.synthesis.workplace import Trial
from tests.synthesis.test_synthesis import check_row, write

CART = """\
class Cart:
    def __init__(self):
        self.items = []
        self.total = 0

    def add(self, name, price):
        if price < 0:
            raise ValueError(name)
        self.items.append(name)
        self.total += price
"""
TESTS = """\
import pytest
from shop.cart import Cart

def test_sum():
    cart = Cart()
    cart.add("a", 2)
    assert cart.total == 2

@pytest.mark.parametrize("price", [-1])
def test_negative(price, tmp_path):
    with pytest.raises(ValueError):
        Cart().add(str(tmp_path), price)

class TestCart:
    def test_items(self):
        cart = Cart()
        cart.add("é", 2)
        assert cart.items == ["é"], cart

@pytest.mark.skip
def test_later(): pass

def test_known_to_fail():
    assert Cart() is None
"""
PYTEST = (sys.executable, "-m", "pytest", "-q")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    write(folder / "src/shop/__init__.py", "")
    write(folder / "src/shop/cart.py", CART)
    write(folder / "tests/test_cart.py", TESTS)
    return folder


def trial(project: Path, *command: str, **options: float) -> Trial:
    return Trial(command or PYTEST, project / "src", project, **options)  # type: ignore[arg-type]


def mutant(old: str, new: str) -> Mutant:
    """A mutant of the cart in which one text stands for another."""
    data = CART.encode()
    start = data.index(old.encode())
    edit = Edit(start, start + len(old.encode()), new.encode())
    place = Place("Cart.add", 1, 0, len(data), 0, len(data))
    site = Site(0.0, File("shop/cart.py", data), place, Candidate("off_by_one", (edit,)))
    return Mutant((site,))


SUM, ITEMS = "tests/test_cart.py::test_sum", "tests/test_cart.py::TestCart::test_items"
NEGATIVE = "tests/test_cart.py::test_negative[-1]"


@pytest.mark.slow
def test_tests_decide_and_are_named(project: Path) -> None:
    with open_checker(trial(project)) as (check, baseline):
        assert set(baseline.passed) == {SUM, ITEMS, NEGATIVE}
        assert (baseline.validation, baseline.failing, baseline.unstable) == ("tests", 1, 0)
        wrong, harmless, broken, endless = check(
            [
                mutant("+= price", "-= price"),
                mutant("(name)\n        self.t", "(name)  # !\n        self.t"),
                mutant("class Cart:", "class Card:"),
                mutant("+= price", "+= price; import os; os._exit(3)"),
            ]
        )
    assert wrong.fail_to_pass == (SUM,)
    assert wrong.pass_to_pass == (ITEMS, NEGATIVE)
    assert wrong.failure.startswith(f"The test `{SUM}` fails:\n\n    assert -2 == 2\n")
    assert "0x..." in wrong.failure
    assert str(project) not in wrong.failure
    assert harmless == Observation("tests_pass")
    assert broken.fail_to_pass == (ITEMS, NEGATIVE, SUM)
    assert broken.pass_to_pass == ()
    assert "ImportError: cannot import name 'Cart' from 'shop.cart' (src/shop/" in broken.failure
    assert endless == Observation("test_run_crashed")


@pytest.mark.slow
def test_rows_of_a_validated_run_for_any_number_of_jobs(project: Path, tmp_path: Path) -> None:
    results = []
    for jobs in (1, 2):
        with open_checker(trial(project), jobs=jobs) as (check, _):
            recipe = Recipe(operators=("flip_comparison", "dropped_update", "dropped_call"))
            results.append(
                synthesize(project / "src", count=3, seed=2, recipe=recipe, jobs=jobs, check=check)
            )
    one, two = results
    assert json.dumps([one.tasks, one.counts]) == json.dumps([two.tasks, two.counts])
    assert one.counts["kept"] == 2
    for row in one.tasks:
        assert row["validated"]
        assert set(json.loads(row["FAIL_TO_PASS"])) <= {SUM, ITEMS, NEGATIVE}
        assert json.loads(row["FAIL_TO_PASS"])[0] in row["problem_statement"]
        check_row(project / "src", tmp_path / "applied", row)


SCRIPT = "import shop.cart as c; cart = c.Cart(); cart.add('a', 2); assert cart.total == 2, cart"


def test_an_exit_code_decides_where_there_is_no_report(project: Path) -> None:
    before = sorted(project.rglob("*"))
    with open_checker(trial(project, sys.executable, "-c", SCRIPT)) as (check, baseline):
        assert baseline.validation == "exit_code"
        wrong, harmless, killed = check(
            [
                mutant("+= price", "-= price"),
                mutant("price < 0", "price < -1"),
                mutant("+= price", "+= price; import os; os.kill(os.getpid(), 9)"),
            ]
        )
    assert (wrong.reason, wrong.validation, wrong.fail_to_pass) == ("", "exit_code", ())
    assert "ends with exit code 1:\n\n    AssertionError: <shop.cart.Cart" in wrong.failure
    assert harmless.reason == "tests_pass"
    assert "is ended by signal 9" in killed.failure
    assert sorted(project.rglob("*")) == before


@pytest.mark.slow
def test_a_mutant_that_does_not_end_is_refused(project: Path) -> None:
    with open_checker(trial(project, sys.executable, "-c", SCRIPT, seconds=2)) as (check, _):
        (seen,) = check([mutant("self.items.append(name)", "while True: pass")])
    assert seen == Observation("timeout")


SPOILER = """\
import os, pathlib
names = sorted(path.name for path in pathlib.Path(".").iterdir())
assert names == ["notes.txt", "src", "tests"], names
assert pathlib.Path("notes.txt").read_text() == "1"
assert "CANARY" not in os.environ
pathlib.Path("notes.txt").write_text("2")
pathlib.Path("more").mkdir()
"""


def test_every_run_meets_the_project_as_it_was(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run changes in the copy and the bytecode of an older mutant do not carry over."""
    write(project / "notes.txt", "1")
    write(project / ".git/config", "")
    write(project / "env/pyvenv.cfg", "")
    os.mkfifo(project / "pipe")
    monkeypatch.setenv("CANARY", "1")
    code = SPOILER + SCRIPT
    with open_checker(trial(project, sys.executable, "-c", code)) as (check, _):
        mutants = [mutant("+= price", text) for text in ("-= price", "+= 2 * 1", "+= 3 * 1")]
        assert [one.reason for one in check(mutants)] == ["", "tests_pass", ""]
    assert (project / "notes.txt").read_text() == "1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (["no-such-program"], UsageError, "no such program: no-such-program"),
        ([sys.executable, "-c", "import nope"], DataError, "(exit code 1): ModuleNotFoundError"),
        ([sys.executable, "-c", "while 1: pass"], DataError, "do not end within 1 s"),
    ],
)
def test_a_run_that_tells_nothing_is_refused_at_once(
    project: Path, command: list[str], kind: type[ScaffoldError], message: str
) -> None:
    with pytest.raises(kind) as caught, open_checker(trial(project, *command, seconds=1)):
        pass
    assert message in caught.value.message
    assert caught.value.where == "--validate"
    assert caught.value.hint


@pytest.mark.slow
def test_tests_that_all_fail_are_refused(project: Path) -> None:
    write(project / "tests/test_cart.py", "def test_a():\n    assert 0\n")
    with (
        pytest.raises(DataError, match="no test passes on the unchanged tree"),
        open_checker(trial(project)),
    ):
        pass


def test_a_tree_outside_the_project_is_refused(project: Path) -> None:
    odd = Trial(PYTEST, project / "src", project / "tests")
    with pytest.raises(UsageError, match="is not inside"), open_checker(odd):
        pass
    git = Trial(PYTEST, project / ".git", project)
    (project / ".git").mkdir()
    with pytest.raises(DataError, match="left out of the copy"), open_checker(git):
        pass


def test_commands_are_split_and_programs_found(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    for name in ("run.sh", ".venv/bin/python", "../outside"):
        write(project / name, "")
    write(project / ".venv/pyvenv.cfg", "")
    assert read_command("pytest -k 'a b'", project) == ("pytest", "-k", "a b")
    assert read_command("./run.sh", project) == ("./run.sh",)
    assert read_command(".venv/bin/python -c 1", project)[0] == str(project / ".venv/bin/python")
    assert read_command("../outside", project) == (str(project.parent / "outside"),)
    for text in ("", "  ", "python 'x"):
        with pytest.raises(UsageError):
            read_command(text, project)


XML = '<testsuites><testsuite name="pytest">{}</testsuite></testsuites>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<a>",
        '<!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>',
        "\x00",
        "<a>" * 100_000 + "</a>" * 100_000,
    ],
)
def test_a_hostile_report_is_no_report(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.xml"
    path.write_text(text, "utf-8")
    report = read_report(path)
    assert report is None or not (report.passed or report.failures or report.broken_files)


def test_a_report_that_declares_entities_is_no_report(tmp_path: Path) -> None:
    text = XML.format('<testcase classname="a" name="b"/>')
    (tmp_path / "r.xml").write_text(f'<!DOCTYPE a [<!ENTITY b "{"b" * 99}">]>{text}', "utf-8")
    assert read_report(tmp_path / "r.xml") is None


def test_a_report_is_no_link_and_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(XML.format('<testcase classname="a" name="b"/>'), "utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "absent"):
        assert read_report(tmp_path / name) is None
    report = read_report(tmp_path / "secret")
    assert report is not None
    assert report.passed == {"a::b"}


def test_a_test_passes_where_all_its_parts_do(tmp_path: Path) -> None:
    cases = (
        '<testcase classname="t.A" name="a" file="t.py"/>'
        '<testcase classname="t.A" name="a" file="t.py"><error message="late"/></testcase>'
        '<testcase classname="t" name="b" file="t.py"><skipped/></testcase>'
        '<testcase classname="t.A.B" name="c[x.y]" file="t.py"/>'
        '<testcase classname="" name="u.v" file="u/v.py">'
        "<error>E   Bad: 1\nE    2</error></testcase>"
    )
    (tmp_path / "r.xml").write_text(XML.format(cases), "utf-8")
    report = read_report(tmp_path / "r.xml")
    assert report is not None
    assert report.passed == {"t.py::A::B::c[x.y]"}
    assert report.failures == {"t.py::A::a": "late"}
    assert report.broken_files == {"u/v.py": "Bad: 1\n 2"}


def test_nothing_stays_when_a_run_is_given_up(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        """Stands for a signal."""

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    command = (sys.executable, "-c", "import time; time.sleep(0.1)")

    def give_up() -> None:
        with open_checker(trial(project, *command), jobs=2) as (check, _):
            assert check([mutant("+= price", "-= price")]) == [Observation("tests_pass")]
            assert list(scratch.iterdir()) != []
            raise Stop

    with pytest.raises(Stop):
        give_up()
    assert list(scratch.iterdir()) == []
    assert multiprocessing.active_children() == []
