"""Worlds whose truth is known, and what is asked of each interval in them.

A setting is rows, repositories and correlation within a repository. Every world has marginals that
do not depend on the correlation, so that its truth follows from its construction; where that is not
so (AUC with pairs inside a repository) the truth is the mean estimate over all sets of a setting.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import coverage_intervals as intervals
import numpy as np
from coverage_intervals import Ends, Fit, Layout

# Rows per repository in SWE-bench Lite, and in the 40 largest repositories of Loc-Bench.
SIZES = {
    12: (114, 77, 23, 23, 17, 16, 6, 6, 6, 5, 4, 3),
    40: (
        *(35, 24, 22, 19, 17, 17, 16, 15, 14, 12, 8, 8, 8, 8, 7, 6, 6, 6, 5, 5),
        *(5, 4, 4, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1),
    ),
}
SPREAD = 0.35
NORMAL = NormalDist()


@dataclass(frozen=True)
class Setting:
    rows: int
    repositories: int
    correlation: float

    @property
    def layout(self) -> Layout:
        return Layout(layout_sizes(self.rows, self.repositories))


SETTINGS = tuple(Setting(n, g, rho) for n in (50, 300) for g in (12, 40) for rho in (0.0, 0.3))


@dataclass(frozen=True)
class Answer:
    """What an interval did in one setting: a row of the page. Shares are of all sets."""

    topic: str
    interval: str
    covered: float
    width: float | None
    sets: int
    undefined: float = 0.0


def layout_sizes(rows: int, repositories: int) -> np.ndarray:
    """Return real proportions brought to `rows`, at least one row each (largest remainders)."""
    real = np.array(SIZES[repositories], dtype=float)
    exact = (
        1
        + (rows - repositories)
        * np.maximum(0, real * rows / real.sum() - 1)
        / np.maximum(0, real * rows / real.sum() - 1).sum()
    )
    sizes = np.floor(exact).astype(int)
    order = np.argsort(-(exact - sizes), kind="stable")
    sizes[order[: rows - sizes.sum()]] += 1
    return sizes


class World:
    """The random numbers of one setting: R sets of n rows in G repositories."""

    def __init__(self, setting: Setting, sets: int, seed: int) -> None:
        self.setting, self.sets, self.layout = setting, sets, setting.layout
        key = (seed, setting.rows, setting.repositories, int(100 * setting.correlation))
        self.stream = np.random.default_rng(key)

    def shared(self) -> np.ndarray:
        """Return one standard normal effect per repository."""
        return self.stream.normal(size=(self.sets, self.layout.clusters))

    def correlated(self, shared: np.ndarray | None = None) -> np.ndarray:
        """Return standard normals per row, correlated within a repository as the setting says."""
        effect = self.shared() if shared is None else shared
        rho = self.setting.correlation
        own = self.stream.normal(size=(self.sets, self.layout.rows))
        return math.sqrt(rho) * effect[:, self.layout.owner] + math.sqrt(1 - rho) * own

    def tokens(self) -> np.ndarray:
        raw = np.exp(5.3 + 0.9 * self.stream.normal(size=(self.sets, self.layout.rows)))
        return np.maximum(8, np.round(raw))


def judge(topic: str, interval: str, ends: Ends, truth: float | np.ndarray) -> Answer:
    low, high = ends
    there = ~np.isnan(low)
    covered = there & (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    width = float((high - low)[there].mean()) if there.any() else None
    return Answer(topic, interval, float(covered.mean()), width, len(low), float((~there).mean()))


def rate(topic: str, name: str, hits: np.ndarray) -> Answer:
    return Answer(topic, name, float(hits.mean()), None, len(hits))


def ratio_answers(topic: str, fit: Fit, truth: float) -> Iterator[Answer]:
    value = fit.value
    yield judge(topic, "clustered t (CR1, G - 1)", around(fit, intervals.clustered_t), truth)
    yield judge(
        topic, "clustered t (CR2, Bell-McCaffrey)", around(fit, intervals.small_sample_t), truth
    )
    ends = intervals.percentile(fit.sums, fit.sizes)
    yield judge(topic, "cluster percentile bootstrap", ends, truth)
    half = intervals.naive_t(fit)
    yield judge(topic, "t, if examples were independent", (value - half, value + half), truth)


def around(fit: Fit, half_width) -> Ends:
    return intervals.around(fit.value, half_width(fit))


def likelihood(world: World) -> Iterator[Answer]:
    """NLL per token, log-normal over rows; so perplexity, whose ends are exp of these."""
    shared = world.shared()
    rates = np.exp(SPREAD * world.correlated(shared))
    tokens, truth = world.tokens(), math.exp(SPREAD**2 / 2)
    fit = intervals.fit_ratio(rates * tokens, tokens, world.layout)
    topic = "NLL per token, perplexity"
    yield from ratio_answers(topic, fit, truth)
    yield judge(topic, "cluster BCa bootstrap", intervals.bca(fit.sums, fit.sizes), truth)
    yield from within_group(world, rates * tokens, tokens, shared)
    per_token = np.exp(1.2 + 0.15 * world.stream.normal(size=tokens.shape))
    bits = intervals.fit_ratio(rates * tokens / math.log(2), tokens * per_token, world.layout)
    bytes_per_token = math.exp(1.2 + 0.15**2 / 2)
    yield from ratio_answers("bits per byte", bits, truth / math.log(2) / bytes_per_token)


def within_group(
    world: World, numerators: np.ndarray, tokens: np.ndarray, shared: np.ndarray
) -> Iterator[Answer]:
    """The t interval over the rows of one repository, about that repository's own mean."""
    rho = world.setting.correlation
    for name, group in (("largest", 0), ("third", 2)):
        inside = world.layout.owner == group
        if inside.sum() < 2:
            continue
        part = Layout(np.array([1] * int(inside.sum())))
        fit = intervals.fit_ratio(numerators[:, inside], tokens[:, inside], part)
        own = SPREAD * math.sqrt(rho) * shared[:, group] + SPREAD**2 * (1 - rho) / 2
        ends = around(fit, intervals.naive_t)
        yield judge("NLL of one repository", f"t over its rows, {name}", ends, np.exp(own))


def difference(world: World) -> Iterator[Answer]:
    """Paired difference of NLL per token, and the tests and the power that go with it."""
    tokens, effect = world.tokens(), -0.05
    gaps = 0.15 * world.correlated() * tokens
    fit = intervals.fit_ratio(gaps + effect * tokens, tokens, world.layout)
    yield from ratio_answers("paired difference of NLL", fit, effect)
    null = intervals.fit_ratio(gaps, tokens, world.layout)
    topic = "no true difference: how often p < 0.05"
    yield rate(topic, "sign flip of whole repositories", intervals.sign_flip_p(null.sums) < 0.05)
    half = intervals.clustered_t(null)
    yield rate(topic, "clustered t (CR1, G - 1)", np.abs(null.value) > half)
    half = intervals.small_sample_t(null)
    yield rate(topic, "clustered t (CR2, Bell-McCaffrey)", np.abs(null.value) > half)
    yield from power(world, null)


def power(world: World, null: Fit) -> Iterator[Answer]:
    """An effect as large as one set's minimum detectable effect, looked for in another set."""
    topic = "effects of the minimum detectable size that are found"
    constant = intervals.Z + NORMAL.inv_cdf(0.8)
    others = world.stream.permutation(world.sets)
    usual, small = intervals.clustered_t(null), intervals.small_sample_t(null)
    printed = constant * np.maximum(null.cr1_error, null.naive_error)
    found = np.abs(null.value[others] + printed) > usual[others]
    yield rate(topic, "as printed, by clustered t (CR1, G - 1)", found)
    found = np.abs(null.value[others] + printed) > small[others]
    yield rate(topic, "as printed, by clustered t (CR2, Bell-McCaffrey)", found)
    error, df = intervals.cr2([(null.residuals, null.sizes, np.ones(world.sets))])
    careful = (intervals.t_quantile(df) + intervals.t_quantile(df, 0.8)) * error
    found = np.abs(null.value[others] + careful) > small[others]
    yield rate(topic, "with t quantiles and CR2, by clustered t (CR2, Bell-McCaffrey)", found)
    exact = constant * float(null.value.std())
    found = np.abs(null.value + exact) > usual
    yield rate(topic, "of the true standard error, by clustered t (CR1, G - 1)", found)


def shares(world: World) -> Iterator[Answer]:
    latent = world.correlated()
    for share in (0.05, 0.3):
        yes = (latent < NORMAL.inv_cdf(share)).astype(float)
        fit = intervals.fit_ratio(yes, np.ones_like(yes), world.layout)
        topic = f"share of {100 * share:.0f} %"
        yield judge(topic, "Wilson by cluster", intervals.clustered_wilson(fit), share)
        half = intervals.clustered_t(fit)
        clipped = intervals.around(fit.value, half, (0.0, 1.0))
        yield judge(topic, "clustered t (CR1, G - 1), cut", clipped, share)
        plain = intervals.wilson(fit.value, fit.rows, intervals.Z)
        yield judge(topic, "Wilson, if examples were independent", plain, share)


def pairs_of_systems(world: World) -> Iterator[Answer]:
    """Two systems on the same tasks: a shared difficulty, and strengths that vary by repository."""
    difficulty = world.correlated()
    latents = [(difficulty + world.correlated()) / math.sqrt(2) for _ in range(2)]
    for shares, topic in (((0.3, 0.4), "difference of shares"), ((0.3, 0.3), "")):
        first, second = (
            latent < NORMAL.inv_cdf(share) for latent, share in zip(latents, shares, strict=True)
        )
        gaps = second.astype(float) - first.astype(float)
        fit = intervals.fit_ratio(gaps, np.ones_like(gaps), world.layout)
        ends, excludes = intervals.clustered_difference(fit)
        if topic:
            yield judge(topic, "clustered t (CR2, Bell-McCaffrey)", ends, shares[1] - shares[0])
            half = intervals.naive_t(fit)
            naive = intervals.around(fit.value, half, (-1.0, 1.0))
            yield judge(topic, "t, if examples were independent", naive, shares[1] - shares[0])
            continue
        null = "no true difference: how often p < 0.05"
        p = intervals.mcnemar_p((gaps > 0).sum(1), (gaps < 0).sum(1))
        yield rate(null, "McNemar, exact", p < 0.05)
        yield rate(null, "difference of shares by cluster", excludes)


def discrimination(world: World) -> Iterator[Answer]:
    flags = world.correlated() < NORMAL.inv_cdf(0.25)
    noise = world.correlated()
    for truth in (0.6, 0.85):
        gap = math.sqrt(2) * NORMAL.inv_cdf(truth)
        scores = np.round((noise + gap * flags) * 4) / 4
        value, clustered, delong = intervals.auc(scores, flags, world.layout)
        mean = float(np.nanmean(value))
        topic = f"AUC of {truth:.2f}"
        yield judge(topic, "logit t of placements by cluster", clustered, mean)
        yield judge(topic, "DeLong, if examples were independent", delong, mean)
    yield from within_tasks(world)


def within_tasks(world: World) -> Iterator[Answer]:
    """Three systems a task; how well a score tells tasks apart is worth nothing here."""
    shape = (world.sets, world.layout.rows, 3)
    own = world.stream.normal(size=shape)
    flags = (world.correlated()[:, :, None] + own) / math.sqrt(2) < NORMAL.inv_cdf(0.3)
    strength = 1 + world.correlated()[:, :, None]
    scores = world.stream.normal(size=shape) + strength * flags
    ordered, pairs = intervals.pairs_in_order(scores, flags)
    sums, sizes = world.layout.sums(ordered), world.layout.sums(pairs)
    truth = float(ordered.sum() / pairs.sum())
    value = sums.sum(1) / sizes.sum(1)
    error, df = intervals.cr2([(sums - value[:, None] * sizes, sizes, np.ones(world.sets))])
    ends = intervals.around(value, intervals.t_quantile(df) * error, (0.0, 1.0))
    yield judge("AUC within tasks", "clustered t (CR2, Bell-McCaffrey)", ends, truth)


def bounded_means(world: World) -> Iterator[Answer]:
    """Means of scores between 0 and 1: mostly 0 or 1 (recall of files), or skewed (similarity)."""
    position = normal_cdf(world.correlated())
    recall = np.clip((position - 0.25) / 0.3, 0, 1)
    similarity = position**4
    for topic, values, truth in (
        ("file recall", recall, 0.6),
        ("similarity", similarity, 0.2),
    ):
        fit = intervals.fit_ratio(values, np.ones_like(values), world.layout)
        yield from ratio_answers(f"mean {topic} (0 to 1)", fit, truth)


def normal_cdf(values: np.ndarray) -> np.ndarray:
    """Return Phi to 8 digits by interpolation; numpy has none."""
    grid = np.linspace(-9, 9, 20001)
    table = np.array([NORMAL.cdf(point) for point in grid])
    return np.interp(values, grid, table)


STUDIES = (likelihood, difference, shares, pairs_of_systems, discrimination, bounded_means)
