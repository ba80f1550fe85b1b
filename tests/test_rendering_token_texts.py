"""Texts of single tokens: together they are the text, characters are never broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold.rendering import Renderer, token_texts
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    return Renderer.load(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def ids_of(renderer: Renderer, text: str) -> list[int]:
    return list(renderer.tokenizer.plain.encode(text, add_special_tokens=False).ids)


def test_a_character_stands_at_the_first_of_its_tokens(renderer: Renderer) -> None:
    ids = ids_of(renderer, "a\U0001f600b")
    assert len(ids) == 6
    assert token_texts(renderer, ids) == ["a", "\U0001f600", "", "", "", "b"]


def test_control_tokens_are_spelt(renderer: Renderer) -> None:
    ids = [*ids_of(renderer, "second argument"), renderer.end_id]
    texts = token_texts(renderer, ids)
    assert texts[-1] == "<|im_end|>"
    assert "".join(texts) == "second argument<|im_end|>"


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z", "Cc"))))
def test_the_texts_join_to_what_was_encoded(renderer: Renderer, text: str) -> None:
    ids = ids_of(renderer, text)
    texts = token_texts(renderer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == renderer.decode(ids)


def test_bytes_that_are_no_text_stay_as_many_as_their_tokens(renderer: Renderer) -> None:
    first = ids_of(renderer, "\U0001f600")[0]
    assert len(token_texts(renderer, [first] * 9)) == 9
