"""HTML that cannot be broken by what it shows: one escape, elements, tables, the page shell.

Text that is not `Html` is escaped wherever it is put in, so forgetting to do so is safe. Control,
bidirectional and invisible characters become visible escapes. What a page says is left to others.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence

from swe_scaffold.report.style import STYLE
from swe_scaffold.terminal import show, show_block

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_VOID = frozenset({"meta", "br", "hr"})
_REFUSED = frozenset({"script", "style", "iframe", "object", "embed", "link", "base", "form"})
_MOST_CHARACTERS = 2000
_MOST_BLOCK = 20_000
_ROOMY_FROM = 72


class Html(str):
    """Markup made by this module; joined with plain text it is plain text again."""

    __slots__ = ()


NOTHING = Html("")


def escape(value: object, *, width: int = _MOST_CHARACTERS) -> Html:
    """Return any value as text for an element or a double-quoted attribute.

    Invisible and control characters are spelt out; more than `width` characters end in an ellipsis.
    """
    return Html(html.escape(show(value, width=width), quote=True))


def escape_block(value: object) -> Html:
    """Return foreign text for a `pre`, whole: `escape`, but lines and tabs stay."""
    return Html(html.escape(show_block(value), quote=True))


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Return one element; children that are not `Html` are escaped, None and None values left out.

    `class_` is written as class, other underscores as hyphens (`aria_label`).

    Raises:
        ValueError: A name that this room never writes, such as script, or an event handler.
    """
    if not _NAME.fullmatch(name) or name in _REFUSED:
        raise ValueError(f"no element {name!r} here")
    opening = "".join(
        f' {_attribute(key)}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{join(children)}</{name}>")


def join(parts: Iterable[object], separator: str = "") -> Html:
    """Return the parts one after another, escaped where they are not `Html`."""
    kept = [part if isinstance(part, Html) else escape(part) for part in parts if part is not None]
    return Html(escape(separator).join(kept) if separator else "".join(kept))


def paragraph(*children: object, kind: str | None = None) -> Html:
    """Return a paragraph; `kind` is its class."""
    return element("p", *children, class_=kind) if any(map(str, children)) else NOTHING


def code(value: object, *, width: int = 200) -> Html:
    """Return foreign text set apart: an id, a path, a name."""
    return element("code", escape(value, width=width))


def block(text: str, *, most: int = _MOST_BLOCK) -> Html:
    """Return foreign text over several lines, its middle left out beyond `most` characters."""
    shown: list[Html] = [escape_block(text)]
    if len(text) > most:
        tail = most // 4
        left = f"… {len(text) - most:,} characters more …"
        shown = [
            escape_block(text[: most - tail]),
            element("span", left, class_="left"),
            escape_block(text[-tail:]),
        ]
    return element("pre", *shown, class_="tall", tabindex=0)


def code_lines(lines: Sequence[Html], *, longest: int) -> Html:
    """Return lines of code that are not broken; with long ones they get more room on a screen."""
    kind = "tokens roomy" if longest > _ROOMY_FROM else "tokens"
    return element("pre", *lines, class_=kind, tabindex=0)


def section(identifier: str, heading: str, *children: object) -> Html:
    """Return a section under its heading."""
    label = f"{identifier}-heading"
    return element(
        "section",
        element("h2", heading, id=label),
        *children,
        id=identifier,
        aria_labelledby=label,
    )


def details(summary: str, *children: object) -> Html:
    """Return a part that is folded until asked for."""
    return element("details", element("summary", summary), *children)


def table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str, text_columns: int = 1
) -> Html:
    """Return a table whose first `text_columns` columns are set left and the others right.

    The first cell of a row is its heading. A table wider than the screen scrolls by itself.
    """

    def kind(column: int) -> str | None:
        return None if column < text_columns else "n"

    head = [element("th", name, scope="col", class_=kind(i)) for i, name in enumerate(headers)]
    lines = []
    for row in rows:
        first, *others = row
        cells = [element("td", cell, class_=kind(i)) for i, cell in enumerate(others, start=1)]
        lines.append(element("tr", element("th", first, scope="row"), *cells))
    content = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", join_lines(lines)),
    )
    return element("div", content, class_="scroll", role="region", tabindex=0, aria_label=caption)


def page(title: str, body: Html) -> str:
    """Return the whole document; its policy allows nothing but its own style."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", escape(title, width=200)),
        Html(f"<style>{STYLE}</style>"),
    ]
    document = [
        Html("<!DOCTYPE html>"),
        Html('<html lang="en">'),
        element("head", Html("\n"), join_lines(head), Html("\n")),
        element("body", Html("\n"), body, Html("\n")),
        Html("</html>"),
    ]
    return "\n".join(document) + "\n"


def join_lines(parts: Iterable[Html]) -> Html:
    """Return markup with one part a line, empty parts left out."""
    return Html("\n".join(part for part in parts if part))


def _attribute(key: str) -> str:
    name = "class" if key == "class_" else key.replace("_", "-")
    if not _NAME.fullmatch(name) or name.lower().startswith("on") or name == "style":
        raise ValueError(f"no attribute {name!r} here")
    return name
