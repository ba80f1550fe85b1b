"""Examples in, token ids and targets out, in batches and within a length.

Chat formats live in `formats`, the joining of ids in `runs`, cutting in `shortening`, the
comparison with the tokenizer's own template in `proof`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from swe_scaffold.diffs import line_classes
from swe_scaffold.errors import IntegrityError, UsageError
from swe_scaffold.rendering import proof
from swe_scaffold.rendering.formats import KNOWN_FORMATS, ChatML, Piece, template_digest, trains
from swe_scaffold.rendering.runs import Encoded, Run, encode_texts, join, to_runs
from swe_scaffold.rendering.shortening import CountedText, character_marker, shorten
from swe_scaffold.rendering.tokens import (
    ChatTokenizer,
    read_tokenizer,
    refuse_leaks,
    tokenizer_folder,
    wrap_tokenizer,
)
from swe_scaffold.types import Example, Message, TokenizedExample, Verdict

# Part of every fingerprint: raise it when the same text comes to other ids.
RULES = 1
MIN_PROMPT_TOKENS = 128
CHUNK_CHARACTERS = 1_000_000


class _Chat(NamedTuple):
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    open: bool = False


class _Draft(NamedTuple):
    chat: _Chat
    pieces: tuple[Piece, ...]
    runs: list[Run]


class Renderer:
    """Renders examples for one tokenizer.

    Args:
        tokenizer: A transformers fast tokenizer, or what `read_tokenizer` returned.
        trust_template: The user vouches for a chat template we do not know. It may then run, and
            must write the same text as one of our formats.

    Raises:
        IntegrityError: No chat template, an unknown one, or control tokens that text could spell.
    """

    def __init__(self, tokenizer: Any, *, trust_template: bool = False) -> None:
        read = isinstance(tokenizer, ChatTokenizer)
        self.tokenizer: ChatTokenizer = tokenizer if read else wrap_tokenizer(tokenizer)
        self.template_sha256 = template_digest(self.tokenizer.template)
        self.format = self._choose_format(trust_template)
        added = self.tokenizer.added
        self.controls = {token: added[token] for token in self.format.controls if token in added}
        for token in (self.format.start, self.format.end):
            if token not in self.controls:
                raise IntegrityError(f"the chat template needs {token}, which is no token here")
        refuse_leaks(self.tokenizer, self.controls)
        special = frozenset(added[token] for token in self.tokenizer.special)
        self._forbidden = special.union(self.controls.values())
        self.tokenizer_sha256 = self.tokenizer.sha256
        self.vocab_size = self.tokenizer.vocab_size
        self.end_id = self.controls[self.format.end]
        # What else ends an answer is the folder's to say, but plain text never does.
        self.stop_ids = (self.tokenizer.stop_ids & frozenset(added.values())) | {self.end_id}
        self.pad_id = added.get(self.tokenizer.pad, self.end_id)

    @classmethod
    def load(
        cls, path_or_id: str | Path, *, offline: bool = False, trust_template: bool = False
    ) -> Renderer:
        """Return a renderer for a local folder or hub id; nothing in the folder is run."""
        folder = tokenizer_folder(str(path_or_id), offline=offline)
        return cls(read_tokenizer(folder), trust_template=trust_template)

    def digest(self) -> str:
        """Return the fingerprint of all that decides ids: tokenizer, template, format, rules."""
        parts = [self.tokenizer_sha256, self.template_sha256, self.format.name, RULES]
        return hashlib.sha256(json.dumps(parts, allow_nan=False).encode("ascii")).hexdigest()

    def render(
        self,
        example: Example,
        *,
        max_length: int | None = None,
        min_prompt_tokens: int = MIN_PROMPT_TOKENS,
    ) -> TokenizedExample | Verdict:
        """Return the ids and targets of one example, or why it cannot be trained on.

        Args:
            example: A prompt/response pair or a chat.
            max_length: Most tokens of the result. Prompts are cut to get there, answers never.
            min_prompt_tokens: What a cut text keeps at least.

        Returns:
            A Verdict `over_length`, `no_trainable_tokens` or `invalid_row` where there is none.
        """
        return next(
            self.render_many([example], max_length=max_length, min_prompt_tokens=min_prompt_tokens)
        )

    def render_many(
        self,
        examples: Iterable[Example],
        *,
        max_length: int | None = None,
        min_prompt_tokens: int = MIN_PROMPT_TOKENS,
    ) -> Iterator[TokenizedExample | Verdict]:
        """Yield `render` of each example, in order, encoding many texts at a time."""
        for example, encoded in self.encode_many(
            examples, max_length=max_length, min_prompt_tokens=min_prompt_tokens
        ):
            yield encoded if isinstance(encoded, Verdict) else self._tokenized(example, encoded)

    def encode_many(
        self,
        examples: Iterable[Example],
        *,
        max_length: int | None = None,
        min_prompt_tokens: int = MIN_PROMPT_TOKENS,
    ) -> Iterator[tuple[Example, Encoded | Verdict]]:
        """Yield each example with its Encoded (messages and pieces included) or its Verdict."""
        _check_limits(max_length, min_prompt_tokens)
        for chunk in _chunks(examples):
            drafts = [self._draft_answered(example) for example in chunk]
            runs = [run for draft in drafts if isinstance(draft, _Draft) for run in draft.runs]
            ids_of = self._encode(run.text for run in runs if run.control < 0)
            for example, draft in zip(chunk, drafts, strict=True):
                if isinstance(draft, Verdict):
                    yield example, draft
                else:
                    yield example, self._fit(draft, ids_of, max_length, min_prompt_tokens)

    def prompt(
        self,
        example: Example,
        *,
        max_length: int | None = None,
        min_prompt_tokens: int = MIN_PROMPT_TOKENS,
    ) -> Encoded | Verdict:
        """Return what a model is to answer: the ids of `render` up to where the answer begins.

        Args:
            example: A prompt/response pair, or a chat, whose last turns are left out if they are
                the assistant's.
            max_length: Most tokens of the prompt, cut as `render` cuts it.
            min_prompt_tokens: What a cut text keeps at least.

        Returns:
            A Verdict `over_length` or `invalid_row` where there is none.
        """
        _check_limits(max_length, min_prompt_tokens)
        messages = asked(example)
        if not messages:
            return Verdict("invalid_row", "there is no message that an answer could follow")
        draft = self._draft(_Chat(messages, example.tools, open=True))
        if isinstance(draft, Verdict):
            return draft
        ids_of = self._encode(run.text for run in draft.runs if run.control < 0)
        return self._fit(draft, ids_of, max_length, min_prompt_tokens)

    def decode(self, ids: Iterable[int]) -> str:
        """Return what a model wrote: control tokens spelt, ids that stand for nothing left out."""
        spelt = {number: token for token, number in self.tokenizer.added.items()}
        parts: list[str] = []
        for control, group in groupby(ids, key=spelt.get):
            numbers = list(group)
            if control is None:
                parts.append(self.tokenizer.plain.decode(numbers, skip_special_tokens=False))
            else:
                parts.append(control * len(numbers))
        return "".join(parts)

    def prove(
        self,
        examples: Iterable[Example],
        *,
        max_length: int | None = None,
        min_prompt_tokens: int = MIN_PROMPT_TOKENS,
    ) -> proof.RenderProof:
        """Prove the render of these examples against the tokenizer's own template; see `proof`.

        Raises:
            IntegrityError: Text, ids or trained spans are not what they must be.
        """
        rows = self.encode_many(
            examples, max_length=max_length, min_prompt_tokens=min_prompt_tokens
        )
        return proof.prove(rows, self.tokenizer, self.format, self.controls)

    def _choose_format(self, trust_template: bool) -> ChatML:
        known = KNOWN_FORMATS.get(self.template_sha256)
        if known is not None:
            return known
        if trust_template:
            return proof.recognise(self.tokenizer)
        raise IntegrityError(
            f"unknown chat template (sha256 {self.template_sha256[:12]}...)",
            where=str(self.tokenizer.folder or ""),
            hint="read the template; if you trust it to run, say so with trust_template",
        )

    def _draft_answered(self, example: Example) -> _Draft | Verdict:
        draft = self._draft(_Chat(_messages(example), example.tools))
        if isinstance(draft, _Draft) and not any(map(trains, draft.chat.messages)):
            return Verdict("no_trainable_tokens", "no assistant message with text is marked train")
        return draft

    def _draft(self, chat: _Chat) -> _Draft | Verdict:
        problem = self.format.problem(chat.messages, chat.tools)
        if problem:
            return Verdict("invalid_row", problem)
        try:
            pieces = tuple(self.format.pieces(chat.messages, chat.tools, generation=chat.open))
            for piece in pieces:
                piece.text.encode()
        except UnicodeEncodeError:
            return Verdict("invalid_row", "a text holds half of a surrogate pair")
        except (TypeError, ValueError) as error:
            return Verdict("invalid_row", f"a tool or its arguments are not JSON: {error}")
        return _Draft(chat, pieces, to_runs(pieces, self.controls))

    def _encode(self, texts: Iterable[str]) -> dict[str, list[int]]:
        return encode_texts(self.tokenizer.plain, texts, self._forbidden)

    def _fit(
        self,
        draft: _Draft,
        ids_of: Mapping[str, list[int]],
        max_length: int | None,
        floor: int,
    ) -> Encoded | Verdict:
        """Join the ids of a draft; where they are too many, cut what is not an answer."""
        ids, mask = join(draft.runs, ids_of)
        full = Encoded(draft.chat.messages, draft.pieces, ids, mask)
        if max_length is None or len(ids) <= max_length:
            return full
        places = [
            index
            for index, message in enumerate(draft.chat.messages)
            if message.role != "assistant" and message.content
        ]
        texts = self._count([draft.chat.messages[place].content for place in places])
        total = sum(text.tokens for text in texts)
        budget, step = max_length - (len(ids) - total), 0
        marker = character_marker(max((len(text.text) for text in texts), default=0))
        marker_tokens = len(self.tokenizer.plain.encode(marker, add_special_tokens=False).ids)
        while (
            cuts := shorten(texts, budget, floor=floor, marker_tokens=marker_tokens)
        ) is not None:
            kept = sum(cut.kept for cut in cuts)
            contents = dict(zip(places, (cut.text for cut in cuts), strict=True))
            shorter = self._refill(draft.chat, contents, prompt_cut=total - kept)
            excess = len(shorter.ids) - max_length
            if excess <= 0:
                return shorter
            # Cut texts come to slightly other counts than their parts did; doubling ends the hunt.
            step = max(excess, 2 * step)
            budget -= step
        return _over_length(full, total, max_length, floor)

    def _tokenized(self, example: Example, encoded: Encoded) -> TokenizedExample:
        end = self.format.end
        trained = (
            p.text for p in encoded.pieces if p.target and (p.text, p.control) != (end, True)
        )
        return TokenizedExample(
            instance_id=example.instance_id,
            input_ids=np.array(encoded.ids, np.int32),
            loss_mask=np.array(encoded.mask, np.bool_),
            repo=example.repo,
            group=example.group,
            label=example.label,
            response_bytes=sum(len(text.encode()) for text in trained),
            prompt_cut=encoded.prompt_cut,
            sha256=str(example.meta.get("sha256", "")),
        )

    def _count(self, texts: Sequence[str]) -> list[CountedText]:
        encodings = self.tokenizer.plain.encode_batch(list(texts), add_special_tokens=False)
        starts = (accumulate((start for start, _ in e.offsets), max) for e in encodings)
        return [CountedText(text, list(s)) for text, s in zip(texts, starts, strict=True)]

    def _refill(self, chat: _Chat, contents: Mapping[int, str], *, prompt_cut: int) -> Encoded:
        messages = tuple(
            replace(message, content=contents.get(index, message.content))
            for index, message in enumerate(chat.messages)
        )
        pieces = tuple(self.format.pieces(messages, chat.tools, generation=chat.open))
        runs = to_runs(pieces, self.controls)
        ids, mask = join(runs, self._encode(run.text for run in runs if run.control < 0))
        return Encoded(messages, pieces, ids, mask, prompt_cut)


def target_classes(renderer: Renderer, example: Example, tokenized: TokenizedExample) -> list[str]:
    """Return one class for each target: of its diff line, "text" in chats, "end" for end tokens.

    A token belongs to the line in which it starts. The classes are those of `diffs.line_classes`.

    Raises:
        IntegrityError: `tokenized` was not made from this example by this renderer.
    """
    targets = tokenized.input_ids[tokenized.loss_mask].tolist()
    if example.messages:
        return ["end" if number == renderer.end_id else "text" for number in targets]
    encoding = renderer.tokenizer.plain.encode(example.response, add_special_tokens=False)
    if [*encoding.ids, renderer.end_id] != targets:
        raise IntegrityError(
            "tokenized by another tokenizer or from another row", where=example.instance_id
        )
    spans = line_classes(example.response)
    classes: list[str] = []
    line = 0
    for start, _ in encoding.offsets:
        while start >= spans[line][1]:
            line += 1
        classes.append(spans[line][2])
    return [*classes, "end"]


def asked(example: Example) -> tuple[Message, ...]:
    """Return the messages that the last answer of an example follows."""
    if not example.messages:
        return (Message("user", example.prompt),)
    roles = [message.role for message in example.messages]
    last = max((place for place, role in enumerate(roles) if role != "assistant"), default=-1)
    return example.messages[: last + 1]


def _messages(example: Example) -> tuple[Message, ...]:
    if example.messages:
        return example.messages
    return (Message("user", example.prompt), Message("assistant", example.response))


def _check_limits(max_length: int | None, floor: int) -> None:
    if (max_length is not None and max_length < 1) or floor < 0:
        raise UsageError("max_length must be at least 1 and min_prompt_tokens at least 0")


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Group examples so that one batch of texts stays within memory."""
    chunk: list[Example] = []
    size = 0
    for example in examples:
        chunk.append(example)
        size += sum(len(message.content) for message in _messages(example))
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _over_length(full: Encoded, cuttable: int, max_length: int, floor: int) -> Verdict:
    return Verdict(
        "over_length",
        f"{len(full.ids)} tokens, {sum(full.mask)} of them targets; {cuttable} may be cut, down to "
        f"{floor} a text, but max_length is {max_length}",
    )
