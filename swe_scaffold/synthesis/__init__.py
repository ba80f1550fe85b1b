"""Make bug-fix tasks out of any Python tree by seeded, syntax-aware mutation of its functions.

Every task is a mutant: the patch repairs it, the statement tells where something looks wrong and
what kind of symptom to expect, never the answer. Unless a `check` ran the project's tests, no test
was run and rows say `validated: false`.

- `operators`, with `mutations`, `flow_mutations`, `value_mutations`: what can be changed.
- `proposals`, `selection`: every candidate, in one process or several; which of them become tasks.
- `mutants`, `statements`: a task's row and words.
- `validation`, with `workplace` and `junit`: what a project's tests say of it.

A mutant has other instructions after constant folding, which is not to behave otherwise: a changed
value that nobody reads, a dropped copy of what nobody changes, a default that every caller gives
pass for bugs unless tests decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from swe_scaffold.errors import UsageError
from swe_scaffold.python_tree import Include, ReadCounts
from swe_scaffold.synthesis.mutants import Check
from swe_scaffold.synthesis.operators import OPERATORS
from swe_scaffold.synthesis.proposals import propose_tree
from swe_scaffold.synthesis.selection import Limits, Selection

# No file gives more than a tenth of the tasks, no operator more than a quarter, unless told.
FILE_SHARE, OPERATOR_SHARE, LEAST_CAP = 10, 4, 5


@dataclass(frozen=True, slots=True)
class Recipe:
    """What tasks are made of.

    Args:
        operators: Names of mutation operators; all of them unless given.
        context: `oracle` shows the mutated functions in each row, `none` shows nothing.
        per_function: Most tasks to make from one function; 0 no limit.
        functions_per_task: Functions of one file that are mutated together.
        max_per_file: Most tasks from one file; None is a tenth of all, at least 5, 0 no limit.
        max_per_operator: Most mutations by one operator; None is a quarter, at least 5, 0 no limit.
    """

    operators: Sequence[str] = tuple(OPERATORS)
    context: Literal["oracle", "none"] = "oracle"
    per_function: int = 1
    functions_per_task: int = 1
    max_per_file: int | None = None
    max_per_operator: int | None = None

    def limits(self, count: int) -> Limits:
        """Return the caps for `count` tasks."""
        mutations = count * self.functions_per_task
        file, operator = self.max_per_file, self.max_per_operator
        return Limits(
            per_function=self.per_function,
            per_file=_share(count, FILE_SHARE) if file is None else file,
            per_operator=_share(mutations, OPERATOR_SHARE) if operator is None else operator,
            functions_per_task=self.functions_per_task,
        )


@dataclass(frozen=True, slots=True)
class SynthesisResult:
    """SWE-bench-schema rows, balanced from the first on, and what became of everything seen.

    In `counts`, candidates = candidates_used + rejected, where a task uses one candidate per
    function, and files_seen = files_read + files_skipped, both by reason; `requested` stands beside
    `kept`, as a small tree may hold fewer than were asked for.
    """

    tasks: list[dict[str, Any]]
    counts: dict[str, Any]


def synthesize(
    root: Path,
    *,
    count: int,
    seed: int,
    include: Include = None,
    recipe: Recipe | None = None,
    jobs: int = 1,
    check: Check | None = None,
) -> SynthesisResult:
    """Make up to `count` tasks from the Python files below `root`; same tree and seed, same rows.

    What is drawn inside a file depends on the seed, its path and its content only.

    Args:
        root: A folder of packages and modules.
        count: Most tasks to make.
        seed: Of everything drawn: places, order of packages, wordings.
        include: Names of top-level packages and modules, or a predicate on the relative path.
        recipe: Operators, context and caps.
        jobs: Processes that read and parse; the result does not depend on it.
        check: Runs the project's tests on mutants; only those that break one are kept.

    Raises:
        DataError: `root` is not a folder.
        UsageError: A number is too small, or an operator is unknown.
        EnvironmentFailure: A worker process died.
    """
    recipe = recipe or Recipe()
    _refuse_wrong(recipe, count, jobs)
    operators = tuple(name for name in OPERATORS if name in recipe.operators)
    selection = Selection(
        recipe.limits(count), operators, seed=seed, context=recipe.context, check=check
    )
    files, functions, unparsable = ReadCounts(), Counter[str](), 0
    found = propose_tree(root, include, seed=seed, operators=operators, jobs=jobs, counts=files)
    for proposals in found:
        files.count(proposals.skipped)
        unparsable += proposals.unparsable
        functions += proposals.functions
        selection.offer(proposals)
    tasks = selection.take(count)
    eligible = functions.pop("eligible", 0)
    rejected = selection.rejected + Counter(not_selected=selection.left())
    counts = {
        "requested": count,
        "kept": len(tasks),
        "candidates": selection.candidates,
        "candidates_used": len(tasks) * recipe.functions_per_task,
        "rejected": _sorted(rejected),
        "validation_runs": selection.tries,
        "files_seen": files.files_seen,
        "files_read": files.files_read,
        "files_skipped": _sorted(files.files_skipped),
        "folders_skipped": _sorted(files.folders_skipped),
        "files_unparsable": unparsable,
        "functions_seen": functions.total() + eligible,
        "functions_skipped": _sorted(functions),
        "kept_by_operator": _sorted(selection.by_operator()),
        "kept_by_repo": _sorted(Counter(task["repo"] for task in tasks)),
    }
    return SynthesisResult(tasks, counts)


def _refuse_wrong(recipe: Recipe, count: int, jobs: int) -> None:
    if min(count, recipe.functions_per_task, jobs) < 1:
        raise UsageError("count, functions_per_task and jobs must be at least 1")
    if min(recipe.per_function, recipe.max_per_file or 0, recipe.max_per_operator or 0) < 0:
        raise UsageError("a cap must be 0, for none, or more")
    unknown = [name for name in recipe.operators if name not in OPERATORS]
    if unknown or not recipe.operators:
        hint = f"the operators are {', '.join(OPERATORS)}"
        raise UsageError(f"unknown operator: {unknown[0] if unknown else 'none given'}", hint=hint)


def _share(count: int, parts: int) -> int:
    return max(LEAST_CAP, -(-count // parts))


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter) if counter[key]}
