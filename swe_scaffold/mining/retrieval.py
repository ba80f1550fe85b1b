"""Which files or pieces of a tree a text speaks of: BM25 over words and the parts of names.

Lexical and deterministic: equal scores keep the order of the documents. What the documents are, and
what becomes of the ranking, is left to `code_context`.
"""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from swe_scaffold.errors import MissingExtra

MAX_QUERY_TERMS = 4096

_NAME = re.compile(r"[^\W_]+(?:_+[^\W_]+)*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W_a-zA-Z0-9]+")
_MAX_NAME = 80


def terms(text: str) -> list[str]:
    """Return the words of a text in lower case, and of a compound name its parts beside it."""
    found: list[str] = []
    for match in _NAME.finditer(text):
        name = match[0]
        if len(name) > _MAX_NAME:
            continue
        parts = _PART.findall(name)
        found += [part.lower() for part in parts]
        if len(parts) > 1:
            found.append(name.lower())
    return found


class Vocabulary:
    """Terms as numbers, and documents as arrays of them, remembered by content within a budget.

    Trees of neighbouring commits share nearly all files, so that most are read into terms once.

    Args:
        budget: Most terms remembered, over all documents; each takes four bytes.
    """

    def __init__(self, budget: int = 32_000_000) -> None:
        self._numbers: dict[str, int] = {}
        self._documents: OrderedDict[str, array[int]] = OrderedDict()
        self._budget, self._held = budget, 0

    def __len__(self) -> int:
        """Number of terms."""
        return len(self._numbers)

    def known(self, key: str) -> array[int] | None:
        """Return the document remembered under a key."""
        if key in self._documents:
            self._documents.move_to_end(key)
        return self._documents.get(key)

    def read(self, key: str, text: str) -> array[int]:
        """Read a document and remember it; the one unused for longest makes room."""
        document = self.document(text)
        self._documents[key] = document
        self._held += len(document)
        while self._held > self._budget and len(self._documents) > 1:
            _, oldest = self._documents.popitem(last=False)
            self._held -= len(oldest)
        return document

    def document(self, text: str) -> array[int]:
        """Read a document without remembering it."""
        numbers = self._numbers
        return array("i", [numbers.setdefault(term, len(numbers)) for term in terms(text)])

    def numbers(self, text: str) -> list[int]:
        """Return the known terms of a query as numbers, the first MAX_QUERY_TERMS of them."""
        known = [self._numbers[term] for term in terms(text) if term in self._numbers]
        return known[:MAX_QUERY_TERMS]


class Index:
    """Documents ready to be ranked.

    Args:
        documents: As `Vocabulary.read` returns them.

    Raises:
        MissingExtra: bm25s is not installed.
    """

    def __init__(self, documents: Sequence[array[int]]) -> None:
        self._size = len(documents)
        # Terms are numbered anew in order of appearance, so that an index holds only its own.
        self._own: dict[int, int] = {}
        own = [
            [self._own.setdefault(number, len(self._own)) for number in document]
            for document in documents
        ]
        self._model = _model(own, len(self._own)) if self._own else None

    def rank(self, query: Sequence[int]) -> list[int]:
        """Return the positions of documents that share a term with the query, best first."""
        asked = [self._own[number] for number in query if number in self._own]
        if self._model is None or not asked:
            return []
        scores = self._model.get_scores_from_ids(asked)
        order = sorted(range(self._size), key=lambda position: (-float(scores[position]), position))
        return [position for position in order if scores[position] > 0]


def _model(documents: list[list[int]], size: int) -> Any:
    try:
        import bm25s
    except ImportError:
        raise MissingExtra("bm25s", "retrieval") from None
    # Its other backends depend on what else is installed.
    model = bm25s.BM25(method="lucene", backend="numpy", csc_backend="numpy")
    vocabulary = {number: number for number in range(size)}
    corpus = bm25s.tokenization.Tokenized(ids=documents, vocab=vocabulary)
    model.index(corpus, create_empty_token=False, show_progress=False)
    return model
