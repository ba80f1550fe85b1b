"""The simulated intervals against those of `swe_scaffold.metrics`, end by end."""

from __future__ import annotations

import math

import coverage_intervals as intervals
import numpy as np
from coverage_intervals import Ends
from coverage_worlds import World

from swe_scaffold.metrics.clustered import (
    Ratio,
    Settings,
    cluster_bootstrap,
    clustered_t,
    naive_t,
    small_sample_t,
)
from swe_scaffold.metrics.discrimination import separation, separation_within
from swe_scaffold.metrics.shares import clustered_share, mcnemar, wilson_share
from swe_scaffold.types import Metric

SETTINGS = Settings()


def compare_with_package(world: World) -> int:
    """Return how many intervals are equal; the first that is not ends the program with 9."""
    return _ratios(world) + _shares(world) + _areas(world)


def _ratios(world: World) -> int:
    tokens = world.tokens()
    values = (1 + 0.3 * world.correlated()) * tokens
    fit = intervals.fit_ratio(values, tokens, world.layout)
    ours = [
        (clustered_t, intervals.around(fit.value, intervals.clustered_t(fit))),
        (small_sample_t, intervals.around(fit.value, intervals.small_sample_t(fit))),
        (naive_t, intervals.around(fit.value, intervals.naive_t(fit))),
        (cluster_bootstrap, intervals.percentile(fit.sums, fit.sizes)),
    ]
    for index in range(world.sets):
        rows = tuple(values[index].tolist()), tuple(tokens[index].tolist())
        ratio = Ratio("nll", "nats/token", *rows, tuple(world.layout.names), tokens=0)
        for function, ends in ours:
            _same(function.__name__, function(ratio, SETTINGS), ends, index)
    return len(ours) * world.sets


def _shares(world: World) -> int:
    first, second = world.correlated() < -0.5, world.correlated() < -0.3
    names, ones = world.layout.names, np.ones(first.shape)
    fit = intervals.fit_ratio(first.astype(float), ones, world.layout)
    gaps = second.astype(float) - first.astype(float)
    gap = intervals.fit_ratio(gaps, ones, world.layout)
    plain = intervals.wilson(fit.value, fit.rows, intervals.Z)
    clustered = intervals.clustered_wilson(fit)
    difference, excludes = intervals.clustered_difference(gap)
    exact = intervals.mcnemar_p((gaps > 0).sum(1), (gaps < 0).sum(1))
    for index in range(world.sets):
        one, other = first[index].tolist(), second[index].tolist()
        _same("wilson_share", wilson_share("s", one, SETTINGS), plain, index)
        _same("clustered_share", clustered_share("s", one, names, SETTINGS), clustered, index)
        result = mcnemar(one, other, names, SETTINGS)
        _same("mcnemar", result.difference, difference, index)
        below = (result.clustered_p_value or 1.0) < 0.05
        if result.p_value != exact[index] or below != excludes[index]:
            raise SystemExit(9)
    return 3 * world.sets


def _areas(world: World) -> int:
    flags = world.correlated() < -0.5
    scores = np.round(world.correlated() + flags, 1)
    _, clustered, _ = intervals.auc(scores, flags, world.layout)
    names = world.layout.names
    shape = (*flags.shape, 3)
    many = world.stream.normal(size=shape) < 0
    marks = world.stream.normal(size=shape) + many
    ordered, pairs = intervals.pairs_in_order(marks, many)
    sums, sizes = world.layout.sums(ordered), world.layout.sums(pairs)
    value = sums.sum(1) / sizes.sum(1)
    error, df = intervals.cr2([(sums - value[:, None] * sizes, sizes, np.ones(world.sets))])
    within = intervals.around(value, intervals.t_quantile(df) * error, (0.0, 1.0))
    tasks = [f"t{task:03d}" for task in range(world.layout.rows) for _ in range(3)]
    owners = [name for name in names for _ in range(3)]
    compared = 0
    for index in range(world.sets):
        rows = scores[index].tolist(), flags[index].tolist()
        metric = separation(*rows, names, SETTINGS).auc
        if metric.ci is not None:
            _same("separation", metric, clustered, index)
            compared += 1
        # Clusters in which no task has both classes are left out by the package.
        if (sizes[index] > 0).all():
            columns = marks[index].ravel().tolist(), many[index].ravel().tolist()
            metric = separation_within(*columns, tasks, owners, SETTINGS).auc
            _same("separation_within", metric, within, index)
            compared += 1
    return compared


def _same(name: str, metric: Metric, ends: Ends, index: int) -> None:
    expected = float(ends[0][index]), float(ends[1][index])
    got = metric.ci or (math.nan, math.nan)
    if not np.allclose(got, expected, rtol=1e-6, atol=1e-9):
        print(f"{name}: the package says {got}, the simulation {expected}")
        raise SystemExit(9)
