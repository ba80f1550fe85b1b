"""Reads a page as a browser would, strictly: every element closed, every attribute harmless."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr"}
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section"),
    *("h1", "h2", "h3", "p", "strong", "span", "code", "pre", "div", "ul", "li", "details"),
    *("summary", "figure", "figcaption", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "desc", "g", "text", "line", "path", "rect", "circle", "polygon"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "id", "class", "role", "tabindex"),
    *("scope", "viewbox", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "width", "height"),
    *("d", "points", "text-anchor", "aria-label", "aria-labelledby", "aria-hidden", "title"),
}


@dataclass
class Page:
    """What was found: elements with attributes in order, all text, and what was wrong."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    problems: list[str] = field(default_factory=list)

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.open = Page(), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ELEMENTS:
            self.page.problems.append(f"element {tag}")
        names = [name for name, _ in attrs]
        self.page.problems += [f"attribute {name}" for name in names if name not in ATTRIBUTES]
        if len(set(names)) < len(names):
            self.page.problems.append(f"attribute twice in {tag}")
        self.page.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.problems.append(f"self-closed {tag}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.page.problems.append(f"end of {tag} out of place")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.page.text += data

    def handle_comment(self, data: str) -> None:
        self.page.problems.append(f"comment {data!r}")


def read_page(text: str) -> Page:
    """Parse a page; `problems` is empty for a good one."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.page.problems += [f"{tag} never closed" for tag in reader.open]
    return reader.page


def checked(text: str) -> Page:
    """The page is sound, self-contained and without anything active."""
    found = read_page(text)
    assert not found.problems
    assert len(set(found.ids())) == len(found.ids())
    assert text.count("http") == text.count("http-equiv") == 1
    assert "<script" not in text.lower()
    assert "@import" not in text
    assert "url(" not in text
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", text
    )
    assert not re.search(r"\b(?:nan|inf|NaN|Infinity|undefined)\b", found.text)
    text.encode("utf-8")
    return found
