"""One synthetic task: the file with its mutations, the patch that repairs it, and its row.

Which mutations become a task is decided in `selection`; what a test run showed of it comes from
`validation`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swe_scaffold.diffs import unified_diff
from swe_scaffold.python_code import Candidate, Edit, Place, compare_code, splice
from swe_scaffold.python_tree import top_level
from swe_scaffold.synthesis.statements import statement

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_MAX_STEM = 80


@dataclass(frozen=True, slots=True)
class File:
    """A Python file of the tree: its path below the root, and its bytes."""

    path: str
    data: bytes

    @property
    def repo(self) -> str:
        """The top-level package or module."""
        return top_level(self.path)

    @property
    def module(self) -> str:
        """The dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@dataclass(slots=True, eq=False)
class Site:
    """A candidate with its place; `rank` is its seeded position among its file's candidates."""

    rank: float
    file: File
    place: Place
    candidate: Candidate
    taken: bool = False
    checked: str | None = None

    @property
    def operator(self) -> str:
        """The name of the operator."""
        return self.candidate.operator

    def refusal(self) -> str:
        """Say why the mutation is useless (`does_not_compile`, `equal_code`), else nothing."""
        if self.checked is None:
            unit = self.place.unit_start, self.place.unit_end
            mutated = splice(self.file.data, self.candidate.edits, *unit)
            self.checked = compare_code(self.file.data[slice(*unit)], mutated)
        return self.checked


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file with one or more mutations, in the order of their places, in different functions."""

    sites: tuple[Site, ...]

    @property
    def file(self) -> File:
        """The file as it was."""
        return self.sites[0].file

    @property
    def data(self) -> bytes:
        """The file's bytes with the mutations."""
        return splice(self.file.data, self._edits)

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Operator and dotted function name of every mutation."""
        module = self.file.module
        return tuple((site.operator, f"{module}.{site.place.name}") for site in self.sites)

    @property
    def _edits(self) -> list[Edit]:
        return [edit for site in self.sites for edit in site.candidate.edits]

    def context(self) -> list[dict[str, Any]]:
        """Return every mutated function, with its path and its first line in the mutant."""
        shown, data = [], self.file.data
        for index, site in enumerate(self.sites):
            place = site.place
            earlier = [edit for other in self.sites[:index] for edit in other.candidate.edits]
            shift = sum(
                edit.text.count(b"\n") - data.count(b"\n", edit.start, edit.end) for edit in earlier
            )
            text = splice(data, site.candidate.edits, place.start, place.end).decode("utf-8")
            line = place.first_line + shift
            shown.append({"path": self.file.path, "start_line": line, "text": text})
        return shown


@dataclass(frozen=True, slots=True)
class Observation:
    """What a run of the tests showed of a mutant; `reason` says why it is no task.

    `validation` is `tests` where single tests are known, else `exit_code`; `failure` is for the
    statement.
    """

    reason: str = ""
    validation: str = "tests"
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    failure: str = ""


Check = Callable[[Sequence[Mutant]], Sequence[Observation]]


def make_row(mutant: Mutant, *, seed: int, context: str) -> dict[str, Any]:
    """Return a SWE-bench-schema row that no test run has confirmed."""
    file, data = mutant.file, mutant.data
    patch = unified_diff(file.path, data.decode("utf-8"), file.data.decode("utf-8"))
    return {
        "instance_id": _instance_id(file, patch),
        "repo": file.repo,
        "base_commit": "",
        "patch": patch,
        "test_patch": "",
        "problem_statement": statement(mutant.names, file.path, seed=seed),
        "hints_text": "",
        "created_at": "",
        "version": "",
        "FAIL_TO_PASS": "[]",
        "PASS_TO_PASS": "[]",
        "environment_setup_commit": "",
        "operator": "+".join(operator for operator, _ in mutant.names),
        "validated": False,
        "source_path": file.path,
        "function": ", ".join(name for _, name in mutant.names),
        "context": mutant.context() if context == "oracle" else [],
        "mutant_sha256": hashlib.sha256(data).hexdigest(),
    }


def confirm_row(
    row: dict[str, Any], mutant: Mutant, seen: Observation, *, seed: int
) -> dict[str, Any]:
    """Return the row with what a test run showed."""
    told = statement(mutant.names, mutant.file.path, seed=seed, observed=seen.failure)
    return row | {
        "problem_statement": told,
        "FAIL_TO_PASS": _names(seen.fail_to_pass),
        "PASS_TO_PASS": _names(seen.pass_to_pass),
        "validated": True,
        "validation": seen.validation,
    }


def _names(tests: Sequence[str]) -> str:
    return json.dumps(list(tests), allow_nan=False, ensure_ascii=False)


def _instance_id(file: File, patch: str) -> str:
    stem = _UNSAFE.sub("_", f"{file.repo}__{file.module}")[:_MAX_STEM].lstrip(".-")
    return f"{stem}-{hashlib.sha256(patch.encode()).hexdigest()[:8]}"
