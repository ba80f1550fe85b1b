"""Builders shared by the tests of this room."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from swe_scaffold.types import ExampleScore, SpeedrunLabel


def build_score(instance_id: str, nll_sum: float, tokens: int, **fields: Any) -> ExampleScore:
    """Return a score whose other fields are filled in unless given."""
    given: dict[str, Any] = {
        "repo": fields.get("group", ""),
        "group": "",
        "label": SpeedrunLabel.SUCCESS,
        "bytes": 4 * tokens,
        "prompt_tokens": 50,
        "sha256": f"sha-of-{instance_id}",
    }
    return ExampleScore(
        instance_id=instance_id, nll_sum=nll_sum, tokens=tokens, **{**given, **fields}
    )


@pytest.fixture(scope="session")
def make_score() -> Callable[..., ExampleScore]:
    """Return the builder `make_score(instance_id, nll_sum, tokens, **fields)`."""
    return build_score


@pytest.fixture(scope="session")
def strict_json() -> Callable[[Any], Any]:
    """Return a function giving what a strict JSON reader sees of a report."""

    def through(report: Any) -> Any:
        return json.loads(json.dumps(dataclasses.asdict(report), allow_nan=False))

    return through
