"""Markdown and YAML that foreign text cannot break out of.

Every text of a manifest is foreign: control and invisible characters are spelt out, then whatever
Markdown or HTML could read as markup is escaped. Foreign text never begins a line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from swe_scaffold.errors import MissingExtra
from swe_scaffold.numbers import count, wording
from swe_scaffold.terminal import show

MISSING = "not recorded"
_WIDTH = 200
_LISTED = 20
# Also what is made a link by itself: an address, www., a mail address.
_MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~&$@]|:(?! )|(?<=www)\.", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9a-f]{40,64}")


def plain(value: object, *, width: int = _WIDTH) -> str:
    """Return foreign text as Markdown that shows it, on one line, and does nothing else."""
    return _MARKUP.sub(r"\\\g<0>", show(value, width=width).strip())


def digest(value: object) -> str:
    """Return a hash as code, anything else as plain text, and nothing as missing."""
    text = value if isinstance(value, str) else ""
    if _DIGEST.fullmatch(text):
        return f"`{text}`"
    return plain(text) or MISSING


def told(tree: object, *path: str) -> str:
    """Return the text at a path as Markdown, or that it is missing."""
    return plain(wording(tree, *path)) or MISSING


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; cells are Markdown already."""
    lines = [headers, ["---"] * len(headers), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


def counts(values: object) -> str:
    """Return `a 3, b 2` of a mapping of counts, `none` of an empty one."""
    if not isinstance(values, Mapping):
        return MISSING
    shown = [f"{plain(name, width=60)} {plain(amount)}" for name, amount in values.items()]
    return shortened(shown)


def shortened(items: Sequence[str]) -> str:
    """Return the first items of a list of Markdown, and how many more there are."""
    rest = len(items) - _LISTED
    text = ", ".join(items[:_LISTED])
    return (f"{text} and {count(rest)} more" if rest > 0 else text) or "none"


def page(lines: Iterable[str]) -> str:
    """Return the text of a page; several empty lines become one."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def command(*words: object) -> str:
    """Return a command line whose foreign words a shell takes as words, on one line."""
    return shlex.join(show(word, width=_WIDTH) for word in words)


def fence(lines: Iterable[str]) -> list[str]:
    """Return a code block; its lines hold no line ends, so that none of them can close it."""
    return ["", "```", *lines, "```", ""]


def front_matter(values: Mapping[str, Any]) -> list[str]:
    """Return the YAML block at the top of a card.

    Raises:
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("PyYAML", "train") from error
    text = yaml.safe_dump(_calm(values), sort_keys=False, allow_unicode=True, width=10_000)
    return ["---", *text.rstrip("\n").split("\n"), "---", ""]


def _calm(value: Any) -> Any:
    """Spell out what no line of YAML should hold."""
    if isinstance(value, str):
        return show(value, width=_WIDTH)
    if isinstance(value, Mapping):
        return {_calm(key): _calm(item) for key, item in value.items()}
    return [_calm(item) for item in value] if isinstance(value, list | tuple) else value
