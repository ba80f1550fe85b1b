"""One escape for all that is shown, no active content, a policy that fits the page's own style."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from swe_scaffold.report.html import Html, element, escape, join, page, table
from tests.report.reading import read_page

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "</title></style></svg><svg onload=alert(1)>",
    "<!--",
    "-->",
    "]]>",
    "&lt;b&gt;",
    "&#60;b",
    "&amp",
]
HIDDEN = [
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\x00",
    "\x1b",
    "\x7f",
    "\x9b",
    "\u2028",
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_comes_back_as_text(text: str) -> None:
    body = element("p", text, aria_label=text)
    found = read_page(page(text, body))
    assert not found.problems
    assert found.text.count(text) == 2
    assert ("p", {"aria-label": text}) in found.elements


@pytest.mark.parametrize("character", HIDDEN)
def test_hidden_characters_are_spelt_out(character: str) -> None:
    shown = escape(f"a{character}b")
    assert character not in shown
    assert re.fullmatch(r"a\\(x[0-9a-f]{2}|u\{[0-9a-f]+\})b", shown)


def test_markup_joined_with_text_is_text_again() -> None:
    assert element("p", element("b", "x") + "<i>") == "<p>&lt;b&gt;x&lt;/b&gt;&lt;i&gt;</p>"
    assert join(["<", Html("<br>"), None, 3]) == "&lt;<br>3"


def test_long_text_is_cut() -> None:
    assert len(escape("x" * 10**6)) < 3000


@pytest.mark.parametrize("name", ["script", "style", "iframe", "a b", "", "p>", "link", "base"])
def test_active_elements_cannot_be_made(name: str) -> None:
    with pytest.raises(ValueError, match="no element"):
        element(name)


@pytest.mark.parametrize("name", ["onclick", "onLoad", "style", "a b", 'a"', ""])
def test_active_attributes_cannot_be_made(name: str) -> None:
    with pytest.raises(ValueError, match="no attribute"):
        element("p", **{name: "x"})


def test_the_policy_allows_the_own_style_and_nothing_else() -> None:
    text = page("t", Html(""))
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(a["content"] for t, a in read_page(text).elements if "http-equiv" in a)
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert not re.search(r"url\(|@import|expression|</", style)


def test_a_table_names_its_rows_and_columns() -> None:
    found = read_page(page("t", table(["A", "B"], [["x", 1], ["<y>", 2]], caption="<c>")))
    assert not found.problems
    assert [a for t, a in found.elements if t == "th"] == [
        {"scope": "col"},
        {"scope": "col", "class": "n"},
        {"scope": "row"},
        {"scope": "row"},
    ]
    assert "<y>" in found.text
