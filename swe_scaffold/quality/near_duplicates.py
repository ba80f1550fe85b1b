"""Was something like this row seen before: MinHash signatures in bands, compared with all before.

Two texts are near each other when the estimated Jaccard similarity of their shingles reaches the
threshold. A row has two texts: what is asked (the prompt; nothing for a chat, as attempts at one
task ask the same) and what is answered (the changed lines of a patch, the trained messages of a
chat, else the response). `skip` drops a row only when both are near those of one earlier row, so
that two answers to one question stay; `link` keeps a row near an earlier one in either, and ties
them for the split.

A signature is 256 hashes of 16 bits; estimates have a standard error of 0.029 at 0.7. On 20,000
edited copies of real tasks (threshold 0.7), 80 % of the pairs of prompts between 0.7 and 0.75 were
found, 99.8 % of those up to 0.8 and practically all above. The state was 2.5 kB a row: both
signatures 1 kB, 84 bands, room to grow.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from swe_scaffold.config import QualityConfig
from swe_scaffold.diffs import parse_patch
from swe_scaffold.errors import MissingExtra
from swe_scaffold.quality.responses import trained_texts
from swe_scaffold.quality.shingles import Hashes, mix, shingles, words_of
from swe_scaffold.quality.stage import IndexStage, RowKey, Subject
from swe_scaffold.types import KEEP, Example, Verdict

HASHES = 256
PROMPT_WORDS, CHANGE_WORDS = 5, 3
MAX_LINKS = 16
# Texts made from one template share bands by the thousand; older rows of a band are not looked at.
_MAX_CHAIN = 64
_MIN_RECALL = 0.99
_SEED = 42
Signature = npt.NDArray[np.uint16]


def near_duplicate_stage(config: QualityConfig) -> IndexStage:
    """Return the stage; it remembers the rows it keeps, so it judges one build only.

    Raises:
        MissingExtra: rensa is not installed.
    """
    judge = _Judge(config.near_duplicate_threshold, link=config.near_duplicates == "link").judge
    return IndexStage("near_duplicate", signer(), judge)


def signer() -> Callable[[Example, Subject], tuple[bytes, bytes]]:
    """Return the function that signs a row: prompt and answer, empty where there is no text.

    Raises:
        MissingExtra: rensa is not installed.
    """
    try:
        import rensa
    except ImportError:
        raise MissingExtra("rensa", "data") from None
    digest = rensa.RMinHash.digest_matrix_from_flat_token_hashes

    def sign(example: Example, _: Subject) -> tuple[bytes, bytes]:
        asked, answered = question_shingles(example), answer_shingles(example)
        flat = np.concatenate([asked, answered])
        rows = digest(flat, [0, len(asked), len(flat)], HASHES, _SEED).to_rows()
        # The low bits of a hash are as good as all of it: 1 in 65,536 pairs agrees by chance.
        low = np.array(rows, np.uint32).astype(np.uint16)
        return tuple(  # type: ignore[return-value]
            row.tobytes() if len(found) else b""
            for row, found in zip(low, (asked, answered), strict=True)
        )

    return sign


def question_shingles(example: Example) -> Hashes:
    """Return the shingles of what a row asks; a chat has none."""
    return shingles([] if example.messages else words_of(example.prompt), PROMPT_WORDS)


def answer_shingles(example: Example) -> Hashes:
    """Return the shingles of what a row answers: changed lines of a patch, else all its text."""
    if example.messages:
        return shingles(words_of("\n".join(trained_texts(example))), PROMPT_WORDS)
    changed = changed_words(example.response)
    if changed:
        return shingles(changed, CHANGE_WORDS)
    return shingles(words_of(example.response), PROMPT_WORDS)


def changed_words(patch: str) -> list[str]:
    """Return the words of the lines a patch adds and removes, each line after its sign."""
    words: list[str] = []
    for file in parse_patch(patch) if "@@ -" in patch else ():
        for hunk in file.hunks:
            for line in hunk.lines:
                if line[:1] in ("+", "-") and (found := words_of(line)):
                    words += [line[0], *found]
    return words


def band_rows(threshold: float) -> int:
    """Return how many hashes a band has: most while pairs at the threshold are still met."""
    best = 1
    for rows in range(1, 33):
        if 1 - (1 - threshold**rows) ** (HASHES // rows) >= _MIN_RECALL:
            best = rows
    return best


class _Judge:
    def __init__(self, threshold: float, *, link: bool) -> None:
        self._link = link
        self._sides = (_Index(threshold), _Index(threshold))
        self._places: list[str] = []
        self._ids: list[str] = []
        self._kinds = bytearray()

    def judge(self, row: RowKey) -> Verdict:
        signatures = [np.frombuffer(raw, np.uint16) for raw in row.key]
        kind = sum(1 << side for side, found in enumerate(signatures) if len(found))
        near = [
            side.near(found) if len(found) else {}
            for side, found in zip(self._sides, signatures, strict=True)
        ]
        verdict = self._linked(near) if self._link else self._repeated(near, kind)
        if verdict.keep:
            number = len(self._places)
            self._places.append(row.place)
            self._ids.append(row.instance_id)
            self._kinds.append(kind)
            for side, found in zip(self._sides, signatures, strict=True):
                if len(found):
                    side.add(number, found)
        return verdict

    def _repeated(self, near: Sequence[dict[int, float]], kind: int) -> Verdict:
        """Skip a row whose texts are all near those of one earlier row with as many texts."""
        present = [found for side, found in enumerate(near) if kind >> side & 1]
        if not present:
            return KEEP
        shared = [
            (min(found[row] for found in present), -row)
            for row in present[0]
            if self._kinds[row] == kind and all(row in found for found in present)
        ]
        if not shared:
            return KEEP
        similarity, minus = max(shared)
        return Verdict("near_duplicate", f"{similarity:.0%} like {self._places[-minus]}")

    def _linked(self, near: Sequence[dict[int, float]]) -> Verdict:
        rows = sorted({row for found in near for row in found})[:MAX_LINKS]
        if not rows:
            return KEEP
        # The split ties rows by their ids anyway: naming the earlier row's is enough.
        links = tuple(dict.fromkeys(f"id:{self._ids[row]}" for row in rows))
        return Verdict(findings=("near_duplicate",), links=links)


class _Index:
    """Signatures of one kind of text and the bands they share: a chained hash table, flat."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._rows = band_rows(threshold)
        self._bands = HASHES // self._rows
        self._numbers: list[int] = []
        self._signatures: Signature = np.empty((64, HASHES), np.uint16)
        self._heads = array("i", [-1]) * 1024
        self._next = array("i")
        self._tags = array("I")

    def near(self, signature: Signature) -> dict[int, float]:
        """Return the rows whose estimated similarity reaches the threshold."""
        found = self._sharing(self._tags_of(signature))
        if not found:
            return {}
        same = (self._signatures[found] == signature).mean(axis=1)
        pairs = zip(found, same.tolist(), strict=True)
        return {self._numbers[e]: value for e, value in pairs if value >= self._threshold}

    def add(self, number: int, signature: Signature) -> None:
        """Remember a row under its number."""
        entry = len(self._numbers)
        if entry == len(self._signatures):
            grown = np.empty((entry + entry // 2, HASHES), np.uint16)
            grown[:entry] = self._signatures
            self._signatures = grown
        self._signatures[entry] = signature
        self._numbers.append(number)
        self._tags.extend(self._tags_of(signature))
        if len(self._tags) > len(self._heads):
            self._heads = array("i", [-1]) * (2 * len(self._heads))
            self._next = array("i")
        self._chain()

    def _chain(self) -> None:
        """Put the tags that are in no chain yet at the head of theirs."""
        heads, following, mask = self._heads, self._next, len(self._heads) - 1
        for position in range(len(following), len(self._tags)):
            slot = self._tags[position] & mask
            following.append(heads[slot])
            heads[slot] = position

    def _sharing(self, tags: list[int]) -> list[int]:
        entries: set[int] = set()
        mask = len(self._heads) - 1
        for tag in tags:
            position = self._heads[tag & mask]
            for _ in range(_MAX_CHAIN):
                if position < 0:
                    break
                if self._tags[position] == tag:
                    entries.add(position // self._bands)
                position = self._next[position]
        return sorted(entries)

    def _tags_of(self, signature: Signature) -> list[int]:
        bands = signature[: self._bands * self._rows].reshape(self._bands, self._rows)
        total: Hashes = np.arange(self._bands, dtype=np.uint64)
        for column in bands.T.astype(np.uint64):
            total = mix(total ^ column)
        tags: list[int] = (total >> np.uint64(32)).tolist()
        return tags
