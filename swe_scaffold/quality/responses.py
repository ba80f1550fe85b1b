"""Is there an answer to learn from, and is it neither too short nor too long to be one."""

from __future__ import annotations

import json
from collections.abc import Iterator

from swe_scaffold.quality.stage import RowJudge, Subject
from swe_scaffold.types import KEEP, Example, Task, Verdict


def has_response(example: Example) -> bool:
    """Whether there is anything to learn: a response, or a trained message that says something."""
    if not example.messages:
        return bool(example.response.strip())
    return any(
        message.trained and (message.content.strip() or message.tool_calls)
        for message in example.messages
    )


def judge_empty(example: Example, subject: Subject) -> Verdict:
    """Skip rows without a response; white space alone is none."""
    if has_response(example):
        return KEEP
    if isinstance(subject, Task):
        return Verdict("empty_response", "no change_summary, patch or test_patch")
    return Verdict("empty_response", "no trained text" if example.messages else "blank response")


def judge_short(min_patch_chars: int) -> RowJudge | None:
    """Return a judge that skips patches shorter than `min_patch_chars`, None where all pass."""
    if not min_patch_chars:
        return None

    def judge(example: Example, _: Subject) -> Verdict:
        length = len(example.response)
        if example.response_source not in {"patch", "test_patch"} or length >= min_patch_chars:
            return KEEP
        return Verdict("short_patch", f"{length} characters, fewer than {min_patch_chars}")

    return judge


def judge_long(*, response: int | None, patch: int | None) -> RowJudge | None:
    """Return a judge that skips longer responses and longer patches, None where neither is bounded.

    Of a chat, all trained text counts: contents and the arguments of calls.

    Args:
        response: Most characters of any response.
        patch: Most characters of a response that is a patch.
    """
    if response is None and patch is None:
        return None

    def judge(example: Example, _: Subject) -> Verdict:
        is_patch = example.response_source in {"patch", "test_patch"}
        bounds = (response, patch if is_patch else None)
        bound = min((value for value in bounds if value is not None), default=None)
        length = sum(map(len, trained_texts(example)))
        if bound is None or length <= bound:
            return KEEP
        return Verdict("long_response", f"{length} characters, more than {bound}")

    return judge


def trained_texts(example: Example) -> Iterator[str]:
    """Yield what a row teaches: its response, or contents and calls of its trained messages."""
    if not example.messages:
        yield example.response
    for message in example.messages:
        if message.trained:
            yield message.content
            for call in message.tool_calls:
                yield call.name
                yield json.dumps(
                    dict(call.arguments), sort_keys=True, ensure_ascii=False, allow_nan=False
                )
