"""What a task asks: its problem statement, and the code it brings along.

`build` writes this text into rows and `predict` asks the same of tasks that were not built.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from swe_scaffold.types import CodeContext, Task


def make_prompt(task: Task) -> str:
    """Return the problem statement, and after it the code the task brings along."""
    if not task.context:
        return task.problem_statement
    pieces = [task.problem_statement.rstrip(), *(_show_code(piece) for piece in task.context)]
    return "\n\n".join(piece for piece in pieces if piece)


def _show_code(piece: CodeContext) -> str:
    """Return a header line and the code in a fence that no line inside can close."""
    text = piece.text if piece.text.endswith("\n") else piece.text + "\n"
    last = piece.start_line + max(text.count("\n") - 1, 0)
    fence = "`" * (1 + max(2, _longest(re.findall(r"`+", text))))
    path = " ".join(piece.path.split())
    return f"{path}, lines {piece.start_line}-{last}:\n{fence}\n{text}{fence}"


def _longest(runs: Sequence[str]) -> int:
    return max(map(len, runs), default=0)
