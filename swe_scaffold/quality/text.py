"""Characters nobody sees, and chat control tokens spelt out, in the texts of a row.

They are counted, never removed: issues about Unicode bugs are full of them. Rendering makes
spelt-out control tokens harmless; other tools often do not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from swe_scaffold.types import Example

_KINDS = {
    "control": r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]",
    "bidi": r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]",
    "zero_width": r"[\u00ad\u180e\u200b-\u200d\u2060-\u2064\ufeff]",
    "tag": r"[\U000e0000-\U000e007f]",
    "chat_token": (
        r"<\|[A-Za-z][A-Za-z0-9_]{0,38}\|>|\[/?INST\]|<</?SYS>>|</?tool_(?:call|response)>"
    ),
}
_PATTERN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items()))
KINDS = tuple(_KINDS)


def scan_text(text: str) -> Counter[str]:
    """Count control, bidi, zero-width and tag characters and chat tokens; line ends are fine."""
    return Counter(match.lastgroup or "" for match in _PATTERN.finditer(text))


def scan_example(example: Example) -> Counter[str]:
    """Count over all texts of a row."""
    total: Counter[str] = Counter()
    for text in texts_of(example):
        total += scan_text(text)
    return total


def texts_of(example: Example) -> Iterator[str]:
    """Yield the texts that training would see."""
    if not example.messages:
        yield from (example.prompt, example.response)
    for message in example.messages:
        yield message.content
