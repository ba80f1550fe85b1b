"""Make bug-fix tasks out of any Python tree by seeded, syntax-aware mutation of its functions.

Every task is one mutant: the patch repairs it, the statement tells where something looks wrong and
what kind of symptom to expect, never the answer. No test was run, so rows say `validated: false`.
Reading the tree belongs to `python_tree`, the operators to `mutations`, writing rows to the caller.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from swe_scaffold.diffs import unified_diff
from swe_scaffold.errors import UsageError
from swe_scaffold.sources.mutations import OPERATORS, Candidate
from swe_scaffold.sources.python_code import (
    Place,
    Source,
    compare_code,
    find_functions,
    function_of,
    parse,
    splice,
)
from swe_scaffold.sources.python_tree import Include, ReadCounts, python_files, top_level

_TITLES = MappingProxyType(
    {
        "flip_comparison": (
            "`{name}` appears to take the wrong branch for some inputs",
            "`{name}` seems to decide the wrong way for some inputs",
            "Wrong decision suspected: `{name}`",
        ),
        "off_by_one": (
            "`{name}` looks off by one",
            "`{name}` seems to miss its mark by one step",
            "Wrong bound or position suspected: `{name}`",
        ),
        "dropped_guard": (
            "`{name}` no longer seems to guard against a case it used to handle",
            "`{name}` appears to have lost the handling of a special case",
            "Missing case suspected: `{name}`",
        ),
        "swapped_arguments": (
            "`{name}` seems to hand values on the wrong way round",
            "`{name}` appears to call something with its values mixed up",
            "Mixed up values suspected: `{name}`",
        ),
    }
)
_DETAILS = MappingProxyType(
    {
        "flip_comparison": (
            "A review of `{path}` suggests that one condition there sends some inputs down the path"
            " meant for others.",
            "Reading `{path}`, one of the decisions made by this function looks wrong for part of"
            " its inputs.",
            "One condition of this function (file `{path}`) does what the surrounding code hardly"
            " expects.",
        ),
        "off_by_one": (
            "A review of `{path}` suggests that a limit or a position used by this function is one"
            " step away from where it should be.",
            "Reading `{path}`, one bound or index of this function looks displaced.",
            "In this function (file `{path}`) something seems to start, stop or get picked one step"
            " too early or too late.",
        ),
        "dropped_guard": (
            "A review of `{path}` suggests that the function once treated a certain case"
            " separately; the present code lets it through with all the others.",
            "Reading `{path}`, a case that callers may still rely on looks unhandled.",
            "This function (file `{path}`) seems to lack a branch that its callers expect.",
        ),
        "swapped_arguments": (
            "A review of `{path}` suggests that one call made by this function receives its"
            " arguments the wrong way round.",
            "Reading `{path}`, a call inside this function looks suspicious: the values given to it"
            " seem to have traded places.",
            "One call made here (file `{path}`) seems to get the right values at the wrong"
            " positions.",
        ),
    }
)
# Shared with flipped conditions, so without the words in, is, not, and, or: they are tokens.
_CLOSINGS = (
    "Nobody has reproduced this yet; a careful reading of the function should settle it.",
    "There are no reports from users; please check the function, then repair what you find.",
    "This came up while reading the code, without a failing example.",
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_MAX_STEM = 80


@dataclass(frozen=True, slots=True)
class SynthesisResult:
    """SWE-bench-schema rows, balanced from the first on, and what became of everything seen.

    In `counts`, candidates = kept + rejected and files_seen = files_read + files_skipped, both by
    reason; `requested` stands beside `kept`, as a small tree may hold fewer than were asked for.
    """

    tasks: list[dict[str, Any]]
    counts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    data: bytes

    @property
    def repo(self) -> str:
        return top_level(self.path)

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@dataclass(frozen=True, slots=True)
class _Site:
    """A candidate with its place; `rank` is its seeded position among its file's candidates."""

    rank: float
    file: _File
    place: Place
    candidate: Candidate

    def mutated(self, start: int = 0, end: int | None = None) -> bytes:
        return splice(self.file.data, self.candidate.edits, start, end)


def synthesize(
    root: Path,
    *,
    count: int,
    seed: int,
    context: Literal["oracle", "none"] = "oracle",
    include: Include = None,
    per_function: int = 1,
) -> SynthesisResult:
    """Make up to `count` tasks from the Python files below `root`; same tree and seed, same rows.

    Packages take turns, and in each turn the operator with the fewest tasks so far goes first. What
    is drawn inside a file depends on the seed, its path and its content only.

    Args:
        root: A folder of packages and modules.
        count: Most tasks to make.
        seed: Of everything drawn: places, order of packages, wordings.
        context: `oracle` shows the mutated function in each row, `none` shows nothing.
        include: Names of top-level packages and modules, or a predicate on the relative path.
        per_function: Most tasks to make from one function.

    Raises:
        DataError: `root` is not a folder.
        UsageError: `count` or `per_function` is below 1.
    """
    if count < 1 or per_function < 1:
        raise UsageError("count and per_function must be at least 1")
    selection = _Selection(seed=seed, per_function=per_function, context=context)
    for site in selection.read(root, include):
        selection.offer(site)
    tasks = selection.take(count)
    return SynthesisResult(tasks, selection.report(count, tasks))


class _Selection:
    """Chooses among sites in turns, checking each when it is drawn, and counts every refusal."""

    def __init__(self, *, seed: int, per_function: int, context: str) -> None:
        self.seed, self.per_function, self.context = seed, per_function, context
        self.queues: dict[str, dict[str, list[_Site]]] = {}
        self.files = ReadCounts()
        self.unparsable = 0
        self.functions: Counter[str] = Counter()
        self.candidates = 0
        self.rejected: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.used: Counter[tuple[str, int]] = Counter()
        self.ids: set[str] = set()

    def read(self, root: Path, include: Include) -> Iterator[_Site]:
        """Parse every file once and yield what the operators propose."""
        for path, text in python_files(root, include, counts=self.files):
            tree = parse(text)
            if tree is None:
                self.unparsable += 1
                continue
            source = Source(text)
            file = _File(path, source.data)
            draw = random.Random(f"{self.seed}:{path}:{_sha256(source.data)}")
            for place, node in find_functions(tree, source):
                function = function_of(place, node)
                if isinstance(function, str):
                    self.functions[function] += 1
                    continue
                self.functions["eligible"] += 1
                for operator in OPERATORS.values():
                    for candidate in operator(function, source):
                        yield _Site(draw.random(), file, place, candidate)

    def offer(self, site: _Site) -> None:
        """Queue a site under its package and operator."""
        self.candidates += 1
        queues = self.queues.setdefault(site.file.repo, {name: [] for name in OPERATORS})
        queues[site.candidate.operator].append(site)

    def take(self, count: int) -> list[dict[str, Any]]:
        """Draw tasks from the packages in turn until there are enough or nothing is left."""
        for queues in self.queues.values():
            for queue in queues.values():
                queue.sort(key=lambda site: (site.rank, site.file.path), reverse=True)
        turns = sorted(self.queues, key=lambda repo: _sha256(f"{self.seed}:{repo}".encode()))
        tasks: list[dict[str, Any]] = []
        while turns and len(tasks) < count:
            drawn = {repo: self._draw(repo) for repo in turns[: count - len(tasks)]}
            tasks += [row for row in drawn.values() if row is not None]
            turns = [repo for repo in turns if drawn.get(repo, {}) is not None]
        return tasks

    def _draw(self, repo: str) -> dict[str, Any] | None:
        queues = self.queues[repo]
        for operator in sorted(queues, key=lambda name: self.kept[name]):
            while queues[operator]:
                site = queues[operator].pop()
                if reason := self._refusal(site):
                    self.rejected[reason] += 1
                    continue
                row = _row(site, self.seed, self.context)
                if row["instance_id"] in self.ids:
                    self.rejected["duplicate_id"] += 1
                    continue
                self.kept[operator] += 1
                self.used[site.file.path, site.place.start] += 1
                self.ids.add(row["instance_id"])
                return row
        return None

    def _refusal(self, site: _Site) -> str:
        place = site.place
        if self.used[site.file.path, place.start] >= self.per_function:
            return "function_used"
        unit = place.unit_start, place.unit_end
        return compare_code(site.file.data[slice(*unit)], site.mutated(*unit))

    def report(self, requested: int, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        """Say what became of files, functions and candidates."""
        left = sum(len(queue) for queues in self.queues.values() for queue in queues.values())
        rejected = self.rejected + Counter(not_selected=left)
        functions = Counter(self.functions)
        eligible = functions.pop("eligible", 0)
        return {
            "requested": requested,
            "kept": len(tasks),
            "candidates": self.candidates,
            "rejected": _sorted(rejected),
            "files_seen": self.files.files_seen,
            "files_read": self.files.files_read,
            "files_skipped": _sorted(self.files.files_skipped),
            "folders_skipped": _sorted(self.files.folders_skipped),
            "files_unparsable": self.unparsable,
            "functions_seen": functions.total() + eligible,
            "functions_skipped": _sorted(functions),
            "kept_by_operator": _sorted(self.kept),
            "kept_by_repo": _sorted(Counter(task["repo"] for task in tasks)),
        }


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter) if counter[key]}


def _row(site: _Site, seed: int, context: str) -> dict[str, Any]:
    file, place = site.file, site.place
    mutant = site.mutated()
    patch = unified_diff(file.path, mutant.decode("utf-8"), file.data.decode("utf-8"))
    function = f"{file.module}.{place.name}"
    shown = {
        "path": file.path,
        "start_line": place.first_line,
        "text": site.mutated(place.start, place.end).decode("utf-8"),
    }
    return {
        "instance_id": _instance_id(file, patch),
        "repo": file.repo,
        "base_commit": "",
        "patch": patch,
        "test_patch": "",
        "problem_statement": _statement(site.candidate.operator, function, file.path, seed),
        "hints_text": "",
        "created_at": "",
        "version": "",
        "FAIL_TO_PASS": "[]",
        "PASS_TO_PASS": "[]",
        "environment_setup_commit": "",
        "operator": site.candidate.operator,
        "validated": False,
        "source_path": file.path,
        "function": function,
        "context": [shown] if context == "oracle" else [],
        "mutant_sha256": _sha256(mutant),
    }


def _instance_id(file: _File, patch: str) -> str:
    stem = _UNSAFE.sub("_", f"{file.repo}__{file.module}")[:_MAX_STEM].lstrip(".-")
    return f"{stem}-{_sha256(patch.encode())[:8]}"


def _statement(operator: str, name: str, path: str, seed: int) -> str:
    digest = hashlib.sha256(f"{seed}:{path}:{name}:{operator}".encode()).digest()
    choices = (_TITLES[operator], _DETAILS[operator], _CLOSINGS)
    title, detail, closing = (
        texts[byte % len(texts)] for texts, byte in zip(choices, digest, strict=False)
    )
    return f"{title}\n\n{detail} {closing}".format(name=name, path=path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
