"""How responses begin under a model: NLL by position, first tokens, and data against template.

A response whose first token the base would almost never write, where it is sure of another one, is
data that fights the template: the loss falls and the answers stay another kind. What the ids mean
and which rows are looked at is decided above; how they are scored is the engine's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from swe_scaffold.errors import UsageError
from swe_scaffold.metrics.clustered import Ratio, Settings, clustered_t
from swe_scaffold.metrics.likelihood import NATS_PER_TOKEN
from swe_scaffold.types import Metric

POSITIONS = 16
LISTED = 5
# The rules of `find_fights`, as documented for users.
LEAST_ROWS = 8
SAME_TOKEN_SHARE = 0.9
SURE_PROBABILITY = 0.8
MOST_AGREEING_SHARE = 0.1
LEAST_EXCESS = 2.0
BLANK_SHARE = 0.5
BLANK_NLL = 7.0


@dataclass(frozen=True, slots=True)
class ResponseStart:
    """One response under a model.

    `nll` are its first tokens' (nats, at most POSITIONS), `rest_nll` the sum over its `rest_tokens`
    later ones; `first` is the id it begins with, `likeliest` the ids the model would begin with and
    their probabilities, the likeliest first.
    """

    cluster: str
    nll: tuple[float, ...]
    rest_nll: float
    rest_tokens: int
    first: int
    likeliest: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Position:
    """NLL of the tokens at one place of the response, 1 is the first; `n` rows are that long."""

    position: int
    n: int
    mean: float
    p10: float
    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class FirstToken:
    """A token, on how many rows it comes first, and the model's mean probability of it there."""

    token: int
    rows: int
    probability: float


@dataclass(frozen=True, slots=True)
class StartSummary:
    """How the responses begin.

    `first` and `rest` are NLL per token of the first tokens and of those after POSITIONS; `excess`
    is the mean over rows of the first token's NLL less that row's later mean. `agreement` is the
    share of rows that begin as the model would. `of_data` and `of_model` list the commonest first
    tokens.
    """

    rows: int
    positions: tuple[Position, ...]
    first: Metric
    rest: Metric
    excess: Metric
    agreement: Metric
    of_data: tuple[FirstToken, ...]
    of_model: tuple[FirstToken, ...]


@dataclass(frozen=True, slots=True)
class Fight:
    """Data against the template: the model's sure token, or blanks that it never begins with."""

    kind: str
    token: int
    rows: int
    probability: float


def summarise_starts(starts: Sequence[ResponseStart]) -> StartSummary:
    """Summarise how responses begin, with intervals clustered by `ResponseStart.cluster`.

    Raises:
        UsageError: There are no rows.
    """
    if not starts:
        raise UsageError("no responses to summarise")
    later = [start for start in starts if start.rest_tokens]
    agrees = [float(start.first == start.likeliest[0][0]) for start in starts]
    return StartSummary(
        rows=len(starts),
        positions=tuple(_positions(starts)),
        first=_metric("first_token_nll", NATS_PER_TOKEN, starts, [s.nll[0] for s in starts]),
        rest=_metric(
            "rest_nll",
            NATS_PER_TOKEN,
            later,
            [start.rest_nll for start in later],
            [float(start.rest_tokens) for start in later],
        ),
        excess=_metric(
            "first_token_excess",
            "nats/row",
            later,
            [start.nll[0] - start.rest_nll / start.rest_tokens for start in later],
        ),
        agreement=_metric("first_token_agreement", "share/row", starts, agrees),
        of_data=_commonest((s.first, math.exp(-s.nll[0])) for s in starts),
        of_model=_commonest(start.likeliest[0] for start in starts),
    )


def find_fights(starts: Sequence[ResponseStart], *, blank: Collection[int]) -> tuple[Fight, ...]:
    """Say how the data fight the template, by two exact rules; empty where they do not.

    Fewer than 8 rows say nothing.
    `sure`: one token is the model's likeliest first on at least 90 % of the rows, with a mean
    probability of at least 0.8 there; at most 10 % of the rows begin with it; and `excess` is at
    least 2 nats with an interval above zero (where there is one).
    `blank`: at least half of the rows begin with a blank token, whose mean NLL there is at least
    7 nats (a probability below 0.1 %).

    Args:
        starts: The rows.
        blank: Ids of tokens that are white space alone.
    """
    if len(starts) < LEAST_ROWS:
        return ()
    fights = (_sure_fight(starts), _blank_fight(starts, blank))
    return tuple(fight for fight in fights if fight is not None)


def _sure_fight(starts: Sequence[ResponseStart]) -> Fight | None:
    summary = summarise_starts(starts)
    likeliest, excess = summary.of_model[0], summary.excess
    agreeing = sum(start.first == likeliest.token for start in starts)
    if (
        likeliest.rows >= SAME_TOKEN_SHARE * len(starts)
        and likeliest.probability >= SURE_PROBABILITY
        and agreeing <= MOST_AGREEING_SHARE * len(starts)
        and (excess.value or 0.0) >= LEAST_EXCESS
        and (excess.ci is None or excess.ci[0] > 0)
    ):
        return Fight("sure", likeliest.token, likeliest.rows, likeliest.probability)
    return None


def _blank_fight(starts: Sequence[ResponseStart], blank: Collection[int]) -> Fight | None:
    empty = [start for start in starts if start.first in blank]
    if not empty or len(empty) < BLANK_SHARE * len(starts):
        return None
    mean = math.fsum(start.nll[0] for start in empty) / len(empty)
    if mean < BLANK_NLL:
        return None
    token = Counter(start.first for start in empty).most_common(1)[0][0]
    return Fight("blank", token, len(empty), math.exp(-mean))


def _positions(starts: Sequence[ResponseStart]) -> list[Position]:
    found = []
    for place in range(max(len(start.nll) for start in starts)):
        values = [start.nll[place] for start in starts if len(start.nll) > place]
        low, median, high = map(float, np.quantile(values, (0.1, 0.5, 0.9)))
        mean = math.fsum(values) / len(values)
        found.append(Position(place + 1, len(values), mean, low, median, high))
    return found


def _commonest(pairs: Iterable[tuple[int, float]]) -> tuple[FirstToken, ...]:
    probabilities: dict[int, list[float]] = {}
    for token, probability in pairs:
        probabilities.setdefault(token, []).append(probability)
    order = sorted(probabilities, key=lambda token: (-len(probabilities[token]), token))
    return tuple(
        FirstToken(token, len(found), math.fsum(found) / len(found))
        for token, found in ((token, probabilities[token]) for token in order[:LISTED])
    )


def _metric(
    name: str,
    unit: str,
    starts: Sequence[ResponseStart],
    numerators: Sequence[float],
    denominators: Sequence[float] | None = None,
) -> Metric:
    weights = tuple(denominators or [1.0] * len(numerators))
    clusters = tuple(start.cluster for start in starts)
    ratio = Ratio(
        name, unit, tuple(numerators), weights, clusters, tokens=round(math.fsum(weights))
    )
    return clustered_t(ratio, Settings())
