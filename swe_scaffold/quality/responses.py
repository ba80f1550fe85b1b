"""Is there an answer to learn from, and is a patch long enough to be one."""

from __future__ import annotations

from collections.abc import Callable

from swe_scaffold.types import KEEP, Example, Task, Verdict


def has_response(example: Example) -> bool:
    """Whether there is anything to learn: a response, or a trained message that says something."""
    if not example.messages:
        return bool(example.response.strip())
    return any(
        message.trained and (message.content.strip() or message.tool_calls)
        for message in example.messages
    )


def judge_empty(example: Example, task: Task | None) -> Verdict:
    """Skip rows without a response; white space alone is none."""
    if has_response(example):
        return KEEP
    if task is not None:
        return Verdict("empty_response", "no change_summary, patch or test_patch")
    return Verdict("empty_response", "no trained text" if example.messages else "blank response")


def judge_short(min_patch_chars: int) -> Callable[[Example, Task | None], Verdict]:
    """Return a judge that skips patches and test patches shorter than `min_patch_chars`."""

    def judge(example: Example, _: Task | None) -> Verdict:
        length = len(example.response)
        if example.response_source not in {"patch", "test_patch"} or length >= min_patch_chars:
            return KEEP
        return Verdict("short_patch", f"{length} characters, fewer than {min_patch_chars}")

    return judge
