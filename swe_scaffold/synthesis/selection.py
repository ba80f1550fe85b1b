"""Choose among everything the operators propose: in turns, within caps, counting every refusal.

Packages take turns, and in each turn the operator with the fewest tasks so far goes first. Where
tests decide (`check`), tasks are drawn in rounds of a fixed size and a round is judged as a whole,
so that the choice does not depend on how many runs go on at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from swe_scaffold.synthesis.mutants import Check, File, Mutant, Site, confirm_row, make_row
from swe_scaffold.synthesis.proposals import Proposals

ROUND = 64
# A function whose mutants pass the tests is hardly tested; a tree of such functions is given up.
TRIES_PER_FUNCTION = 3
TRIES_PER_TASK = 10

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """Most tasks of one function and one file, most mutations by one operator; 0 sets no limit."""

    per_function: int
    per_file: int
    per_operator: int
    functions_per_task: int


@dataclass(frozen=True, slots=True)
class _Draft:
    mutant: Mutant
    row: dict[str, Any]


class Selection:
    """Candidates queued by package and operator, what was kept of them, and what refused."""

    def __init__(
        self,
        limits: Limits,
        operators: Sequence[str],
        *,
        seed: int,
        context: str,
        check: Check | None = None,
    ) -> None:
        self.limits, self.operators, self.check = limits, operators, check
        self.seed, self.context = seed, context
        self.candidates = 0
        self.tries = 0
        self.rejected: Counter[str] = Counter()
        self._queues: dict[str, dict[str, list[Site]]] = {}
        self._files: dict[str, dict[str, list[Site]]] = {}
        self._lonely: set[str] = set()
        self._kept: Counter[_Key] = Counter()
        self._pending: Counter[_Key] = Counter()
        self._deferred: list[Site] = []
        self._ids: set[str] = set()

    def offer(self, proposals: Proposals) -> None:
        """Queue what was proposed for one file."""
        if not proposals.found:
            return
        file = File(proposals.path, proposals.data)
        queues = self._queues.setdefault(file.repo, {name: [] for name in self.operators})
        sites = [
            Site(rank, file, proposals.places[place], candidate)
            for rank, place, candidate in proposals.found
        ]
        for site in sites:
            queues[site.operator].append(site)
        if self.limits.functions_per_task > 1:
            mine: dict[str, list[Site]] = {}
            for site in sorted(sites, key=lambda site: site.rank):
                mine.setdefault(site.operator, []).append(site)
            self._files[file.path] = mine
        self.candidates += len(sites)

    def take(self, count: int) -> list[dict[str, Any]]:
        """Draw tasks until there are enough, nothing is left, or too many tries failed."""
        for queues in self._queues.values():
            for queue in queues.values():
                queue.sort(key=lambda site: (site.rank, site.file.path), reverse=True)
        order = sorted(self._queues, key=lambda repo: _sha256(f"{self.seed}:{repo}"))
        rows: list[dict[str, Any]] = []
        while len(rows) < count:
            wanted = count - len(rows)
            if self.check:
                wanted = min(wanted, ROUND, count * TRIES_PER_TASK - self.tries)
            drafts = self._round(order, wanted)
            if not drafts:
                break
            rows += self._judge(drafts)
            self._put_back()
            # The next round begins where this one ended.
            done = len(drafts) % len(order)
            order = [*order[done:], *order[:done]]
        return rows

    def left(self) -> int:
        """Count the candidates that were neither used nor refused."""
        queues = [queue for queues in self._queues.values() for queue in queues.values()]
        return sum(not site.taken for queue in queues for site in queue)

    def by_operator(self) -> Counter[str]:
        """Count the mutations in tasks that were kept."""
        return Counter({name: self._kept["operator", name] for name in self.operators})

    def _round(self, order: Sequence[str], wanted: int) -> list[_Draft]:
        turns, drafts = list(order), list[_Draft]()
        while turns and len(drafts) < wanted:
            drawn = {repo: self._draw(repo) for repo in turns[: wanted - len(drafts)]}
            drafts += [draft for draft in drawn.values() if draft is not None]
            turns = [repo for repo in turns if repo not in drawn or drawn[repo] is not None]
        return drafts

    def _draw(self, repo: str) -> _Draft | None:
        queues = self._queues[repo]
        for operator in sorted(queues, key=self._made_by):
            while queues[operator]:
                site = queues[operator].pop()
                draft = None if site.taken else self._try(site)
                if draft is not None:
                    return draft
        return None

    def _try(self, site: Site) -> _Draft | None:
        """Make a draft around a site; refuse the site, or put it off until the round is judged."""
        reason, final = self._blocked(site, ("file", site.file.path))
        if reason and not final:
            self._deferred.append(site)
            return None
        if reason := reason or site.refusal():
            self._refuse(site, reason)
            return None
        self._hold(site)
        partners, waiting = self._partners(site)
        if len(partners) + 1 < self.limits.functions_per_task:
            for one in (site, *partners):
                self._release(one)
            if waiting:
                self._deferred.append(site)
            else:
                self._lonely.add(site.file.path)
                self._refuse(site, "no_partner")
            return None
        sites = sorted((site, *partners), key=lambda one: one.place.start)
        return self._draft(site, Mutant(tuple(sites)))

    def _draft(self, first: Site, mutant: Mutant) -> _Draft | None:
        row = make_row(mutant, seed=self.seed, context=self.context)
        if row["instance_id"] in self._ids:
            for site in mutant.sites:
                self._release(site)
            self._refuse(first, "duplicate_id")
            return None
        self._ids.add(row["instance_id"])
        self._pending["file", mutant.file.path] += 1
        for site in mutant.sites:
            site.taken = True
        draft = _Draft(mutant, row)
        if self.check is None:
            self._settle(draft, "")
        return draft

    def _partners(self, first: Site) -> tuple[list[Site], bool]:
        """Find sites in other functions of the file; say whether some may become free again."""
        missing = self.limits.functions_per_task - 1
        if not missing or first.file.path in self._lonely:
            return [], False
        found, waiting = list[Site](), False
        units = {first.place.unit_start}
        for other in self._companions(first.file.path):
            if len(found) == missing:
                break
            if other.taken or other.place.unit_start in units:
                continue
            blocked, final = self._blocked(other)
            waiting = waiting or bool(blocked and not final)
            if blocked:
                continue
            if reason := other.refusal():
                self._refuse(other, reason)
                continue
            self._hold(other)
            found.append(other)
            units.add(other.place.unit_start)
        return found, waiting

    def _companions(self, path: str) -> Iterator[Site]:
        """Yield a file's sites, those of the rarest operator first."""
        mine = self._files[path]
        for operator in sorted(mine, key=self._made_by):
            yield from mine[operator]

    def _made_by(self, operator: str) -> int:
        key = ("operator", operator)
        return self._kept[key] + self._pending[key]

    def _caps(self, site: Site, file: _Key) -> Iterator[tuple[str, _Key, int]]:
        limits = self.limits
        yield "function_used", _function(site), limits.per_function
        yield "untested_function", ("tries", *_function(site)), TRIES_PER_FUNCTION
        yield "operator_cap", ("operator", site.operator), limits.per_operator
        if file:
            yield "file_cap", file, limits.per_file

    def _blocked(self, site: Site, file: _Key = ()) -> tuple[str, bool]:
        """Say which cap a site meets, and whether for good or only until the round is judged."""
        caps = [cap for cap in self._caps(site, file) if cap[2]]
        for reason, key, most in caps:
            if self._kept[key] >= most:
                return reason, True
        for reason, key, most in caps:
            if self._kept[key] + self._pending[key] >= most:
                return reason, False
        return "", False

    def _hold(self, site: Site) -> None:
        self._pending.update((_function(site), ("operator", site.operator)))

    def _release(self, site: Site) -> None:
        self._pending.subtract((_function(site), ("operator", site.operator)))

    def _refuse(self, site: Site, reason: str) -> None:
        site.taken = True
        self.rejected[reason] += 1

    def _judge(self, drafts: Sequence[_Draft]) -> list[dict[str, Any]]:
        """Settle a round: what is kept counts for good, what is not makes room again."""
        if self.check is None:
            return [draft.row for draft in drafts]
        self.tries += len(drafts)
        seen = self.check([draft.mutant for draft in drafts])
        rows = []
        for draft, observation in zip(drafts, seen, strict=True):
            self._settle(draft, observation.reason)
            if not observation.reason:
                rows.append(confirm_row(draft.row, draft.mutant, observation, seed=self.seed))
        return rows

    def _settle(self, draft: _Draft, reason: str) -> None:
        file = ("file", draft.mutant.file.path)
        self._pending[file] -= 1
        self._kept[file] += not reason
        for site in draft.mutant.sites:
            self._release(site)
            if reason:
                self.rejected[reason] += 1
                self._kept["tries", *_function(site)] += 1
            else:
                self._kept.update((_function(site), ("operator", site.operator)))

    def _put_back(self) -> None:
        """Return what waited for the round to the heads of the queues it came from."""
        for site in reversed(self._deferred):
            self._queues[site.file.repo][site.operator].append(site)
        self._deferred.clear()


def _function(site: Site) -> _Key:
    return "function", site.file.path, site.place.start


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
