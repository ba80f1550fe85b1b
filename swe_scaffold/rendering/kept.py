"""Rows rendered and proven once: kept in the cache, for the same rows and the same renderer.

Only what rendering decides is kept; the examples themselves are always at hand. The body of an
entry is the int32 ids of all rows, then their masks, one byte a token. It is mapped, not read: rows
are parts of the mapping, which costs no memory of its own, is shared by all processes that have it,
and stays as it is when the entry is removed or replaced. A proof depends on nothing else than what
names its entry, so that it holds for ever.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swe_scaffold.cache import Cache, code_version, key_of
from swe_scaffold.rendering.proof import RenderProof
from swe_scaffold.rendering.renderer import Renderer
from swe_scaffold.types import Example, TokenizedExample, Verdict

_TOKENS, _PROOFS = "tokens", "proofs"
Rendered = TokenizedExample | Verdict


def render_rows(
    renderer: Renderer,
    examples: Sequence[Example],
    *,
    max_length: int | None,
    min_prompt_tokens: int,
    cache: Cache | None = None,
    proof_follows: bool = False,
) -> list[Rendered]:
    """Return `Renderer.render` of each example, mapped from the cache where it is there.

    Args:
        renderer: Its fingerprint, the contents of the rows and both limits name the entry.
        examples: The rows, in order.
        max_length: See `Renderer.render`.
        min_prompt_tokens: See `Renderer.render`.
        cache: Where rendered rows are looked for and kept.
        proof_follows: Whether to load, beside rendering, the tokenizer that the proof asks: its
            libraries take seconds, in which the encoder needs no interpreter.
    """
    key = _key(renderer, examples, max_length, min_prompt_tokens) if cache else ""
    if cache and (kept := _kept_rows(cache, key, examples)):
        return kept
    limits = {"max_length": max_length, "min_prompt_tokens": min_prompt_tokens}
    with ThreadPoolExecutor(1) as beside:
        if proof_follows:
            # Where this fails, the proof will fail alike, and say why.
            beside.submit(lambda: renderer.tokenizer.official)
        rows = list(renderer.render_many(examples, **limits))  # type: ignore[arg-type]
    if cache and key:
        _keep(cache, key, rows)
        # Mapped from now on, like those that are found: what was rendered can be let go.
        return _kept_rows(cache, key, examples) or rows
    return rows


def prove_rows(
    renderer: Renderer,
    examples: Sequence[Example],
    *,
    max_length: int | None,
    min_prompt_tokens: int,
    cache: Cache | None = None,
) -> RenderProof:
    """Return `Renderer.prove` of the examples, from the cache where the same was proven before.

    Args:
        renderer: As for `render_rows`, and so are the rest.
        examples: The rows.
        max_length: See `Renderer.render`.
        min_prompt_tokens: See `Renderer.render`.
        cache: Where proofs are looked for and kept; one that fails is never kept.

    Raises:
        IntegrityError: Text, ids or trained spans are not what they must be.
    """
    key = _key(renderer, examples, max_length, min_prompt_tokens) if cache else ""
    found = cache.find(_PROOFS, key) if cache and key else None
    if found:
        return RenderProof(**found.header)
    proof = renderer.prove(examples, max_length=max_length, min_prompt_tokens=min_prompt_tokens)
    if cache and key:
        cache.keep(_PROOFS, key, asdict(proof), b"")
    return proof


def _key(
    renderer: Renderer, examples: Sequence[Example], max_length: int | None, min_prompt_tokens: int
) -> str:
    """Return the name of an entry; empty where a row does not say what it holds."""
    contents = [example.meta.get("sha256") for example in examples]
    if not all(contents):
        return ""
    stops = sorted(renderer.tokenizer.stop_ids)
    return key_of(code_version(), renderer.digest(), stops, max_length, min_prompt_tokens, contents)


def _keep(cache: Cache, key: str, rows: Sequence[Rendered]) -> None:
    whole = [row for row in rows if isinstance(row, TokenizedExample)]
    parts = [row.input_ids.astype("<i4", copy=False).data for row in whole]
    masks = [row.loss_mask.data for row in whole]
    cache.keep(_TOKENS, key, {"rows": [_about(row) for row in rows]}, [*parts, *masks])
    cache.trim()


def _about(row: Rendered) -> list[Any]:
    if isinstance(row, Verdict):
        return [row.reason, row.detail]
    return [row.length, row.response_bytes, row.prompt_cut]


def _kept_rows(cache: Cache, key: str, examples: Sequence[Example]) -> list[Rendered] | None:
    found = cache.find(_TOKENS, key) if key else None
    if not found:
        return None
    about: list[list[Any]] = found.header["rows"]
    total = sum(entry[0] for entry in about if len(entry) == 3)
    try:
        body = _mapped(found.body) if total else b""
    except OSError:
        # Another run may have made room since.
        return None
    ids = np.frombuffer(body, "<i4", total)
    mask = np.frombuffer(body, np.bool_, total, offset=4 * total)
    return list(_rows(about, ids, mask, examples))


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _rows(
    about: Sequence[Sequence[Any]],
    ids: NDArray[np.int32],
    mask: NDArray[np.bool_],
    examples: Sequence[Example],
) -> Iterator[Rendered]:
    start = 0
    for example, entry in zip(examples, about, strict=True):
        if len(entry) == 2:
            yield Verdict(*entry)
            continue
        length, response_bytes, prompt_cut = entry
        yield TokenizedExample(
            instance_id=example.instance_id,
            input_ids=ids[start : start + length],
            loss_mask=mask[start : start + length],
            repo=example.repo,
            group=example.group,
            label=example.label,
            response_bytes=response_bytes,
            prompt_cut=prompt_cut,
            sha256=str(example.meta["sha256"]),
        )
        start += length
