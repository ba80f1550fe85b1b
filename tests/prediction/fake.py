"""A model that answers from a table and can stop half-way, and rows that ask it something."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.prediction.answers import Answer, NoAnswer, Reply, Wanted
from swe_scaffold.prediction.questions import Question

PATCH = """\
diff --git a/pkg/mod.py b/pkg/mod.py
--- a/pkg/mod.py
+++ b/pkg/mod.py
@@ -1,3 +1,3 @@
 def add(first, second):
-    return first - second
+    return first + second
 # the end
"""
FENCED = f"The sign is wrong.\n\n```diff\n{PATCH}```\n"


class Interrupted(BaseException):
    """Stands for a signal."""


class TableModel:
    """Answers by instance id, the last question first; `stop_after` so many answers."""

    name = "table"

    def __init__(self, answers: Mapping[str, Any] | None = None, stop_after: int = 1000) -> None:
        self.answers, self.left = answers or {}, stop_after
        self.asked: list[tuple[str, int]] = []
        self.version = 1

    def identity(self) -> dict[str, Any]:
        return {"kind": "table", "version": self.version}

    def answer(
        self, questions: Sequence[Question], wanted: Wanted, sampling: Sampling
    ) -> Iterator[Reply]:
        for question in reversed(questions):
            for sample in wanted[question.index]:
                if not self.left:
                    raise Interrupted
                self.left -= 1
                self.asked.append((question.instance_id, sample))
                yield self._reply(question, sample)

    def _reply(self, question: Question, sample: int) -> Reply:
        said = self.answers.get(question.instance_id, f"{FENCED}\nsample {sample}")
        if said is None:
            return NoAnswer(question.index, sample, "over_length", "12 tokens too many")
        text, stopped = (said, True) if isinstance(said, str) else said
        return Answer(question.index, sample, text, stopped, 11, 7)


def task(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "instance_id": f"owner__repo-{number}",
        "repo": "owner/repo",
        "problem_statement": f"add({number}, 1) returns a wrong value",
        "patch": PATCH,
    } | changes


def chat(number: int) -> dict[str, Any]:
    return {
        "instance_id": f"chat-{number}",
        "messages": [
            {"role": "user", "content": f"What is {number}?"},
            {"role": "assistant", "content": "A number."},
        ],
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
