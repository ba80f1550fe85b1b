"""The error tree: drawn as it is, an exit code each, readable by machines, whole after a pickle."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import signal

import pytest

from swe_scaffold import errors
from swe_scaffold.errors import (
    ConfigError,
    DataError,
    EnvironmentFailure,
    MissingExtra,
    ScaffoldError,
    Stopped,
)

CODES = {
    "ScaffoldError": 1,
    "UsageError": 2,
    "ConfigError": 2,
    "DataError": 3,
    "EnvironmentFailure": 4,
    "MissingExtra": 4,
    "IntegrityError": 5,
    "DivergedError": 6,
    "OutOfMemory": 7,
    "LockedError": 8,
    "CheckFailed": 9,
}
KINDS: dict[str, type[Exception]] = {
    "UsageError": ValueError,
    "ConfigError": ValueError,
    "DataError": ValueError,
    "EnvironmentFailure": OSError,
    "MissingExtra": ImportError,
    "DivergedError": ArithmeticError,
    "OutOfMemory": MemoryError,
}
CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ScaffoldError)
}


def make(kind: type[ScaffoldError]) -> ScaffoldError:
    if issubclass(kind, MissingExtra):
        return kind("torch", "train")
    if issubclass(kind, Stopped):
        return kind(signal.SIGTERM, "stopped at step 3", hint="resume")
    return kind("is wrong", where="file: key", hint="mend it")


def drawn() -> dict[str, tuple[str, str, str]]:
    """Class -> (parent, standard kind, exit code), as the module's docstring draws them."""
    found: dict[str, tuple[str, str, str]] = {}
    parents = [""]
    for line in (errors.__doc__ or "").split("\n"):
        match = re.match(r"    ([│├└─ ]*)(\w+)(?: \((\w+)\))? {2,}(\d+)", line)
        if match:
            branch, name, kind, code = match.groups()
            depth = len(branch) // 4
            parents = [*parents[: depth + 1], name]
            found[name] = (parents[depth], kind or "", code)
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    tree = drawn()
    assert set(tree) == set(CLASSES)
    for name, (parent, kind, code) in tree.items():
        cls = CLASSES[name]
        assert cls.__bases__[0].__name__ == (parent or "Exception")
        assert [base.__name__ for base in cls.__bases__[1:]] == ([kind] if kind else [])
        assert code == (str(CODES[name]) if name in CODES else "128")


@pytest.mark.parametrize("name", CLASSES)
def test_each_error_has_its_exit_code_and_its_standard_kind(name: str) -> None:
    error = make(CLASSES[name])
    assert error.exit_code == CODES.get(name, 143)
    assert isinstance(error, KINDS.get(name, Exception))
    assert isinstance(error, ScaffoldError)
    assert CLASSES[name].__doc__


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stop_exits_as_shells_expect(number: signal.Signals, code: int) -> None:
    assert Stopped(number, "stopped").exit_code == code
    assert Stopped(number, "stopped").as_dict()["exit_code"] == code


def test_the_text_is_where_and_what() -> None:
    assert str(DataError("is wrong", where="a.jsonl:3")) == "a.jsonl:3: is wrong"
    assert str(DataError("is wrong", hint="mend it")) == "is wrong"
    failure = EnvironmentFailure("no space left on device", where="out")
    assert str(failure) == "out: no space left on device"
    assert failure.errno is None


def test_a_missing_package_names_its_install_line() -> None:
    error = MissingExtra("torch", "train")
    assert str(error) == "torch is not installed"
    assert error.hint == "pip install 'swe-speedrun-scaffold[train]'"


@pytest.mark.parametrize("name", CLASSES)
def test_the_same_error_for_machines_is_strict_json(name: str) -> None:
    error = make(CLASSES[name])
    value = json.loads(json.dumps(error.as_dict(), allow_nan=False, ensure_ascii=False).encode())
    assert value == {
        "error": error.message,
        "where": error.where,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def test_a_file_name_that_is_no_text_can_still_be_reported() -> None:
    odd = b"caf\xe9.json".decode("utf-8", "surrogateescape")
    value = ConfigError("no such file", where=odd).as_dict()
    assert json.dumps(value, ensure_ascii=False).encode()
    assert value["where"] == r"caf\udce9.json"


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_survives_the_way_between_processes(name: str) -> None:
    error = make(CLASSES[name])
    error.add_note("seen by a worker")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.as_dict() == error.as_dict()
        assert twin.__notes__ == ["seen by a worker"]
