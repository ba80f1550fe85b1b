"""What each token of a row stands for, as text that joins to the whole again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swe_scaffold.rendering.renderer import Renderer

# What decoders write for bytes that are no whole character.
_BROKEN = "\ufffd"
# No character has more bytes; beyond that the bytes are no text at all.
_MOST_PARTS = 4


def token_texts(renderer: Renderer, ids: Sequence[int]) -> list[str]:
    """Return one text per id.

    The bytes of a character may be spread over several tokens: it then stands at the first of them,
    and the others have no text. Control tokens are spelt.
    """
    texts: list[str] = []
    before: list[int] = []
    for group in _characters(renderer, ids):
        # Some decoders drop a space at the very start, so that a token is read after its neighbour.
        start = len(renderer.decode(before))
        texts += [renderer.decode([*before, *group])[start:], *[""] * (len(group) - 1)]
        before = group
    return texts


def _characters(renderer: Renderer, ids: Sequence[int]) -> Iterator[list[int]]:
    """Yield runs of ids that make whole characters."""
    group: list[int] = []
    for number in ids:
        group.append(number)
        if not renderer.decode(group).endswith(_BROKEN):
            yield group
            group = []
        elif len(group) >= _MOST_PARTS:
            yield from ([one] for one in group)
            group = []
    yield from ([one] for one in group)
