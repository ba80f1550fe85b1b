"""What a tokenizer's own chat template writes: the word against which our rendering is proven.

A known template (by hash) is rendered in this process; any other is a program of a stranger's, and
runs in a child within limits, once the user has vouched for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swe_scaffold.errors import IntegrityError
from swe_scaffold.process import MIB, ChildFailed, Conversation
from swe_scaffold.rendering.formats import KNOWN_FORMATS, template_digest
from swe_scaffold.rendering.tokens import ChatTokenizer
from swe_scaffold.types import Message

# Per chat; Qwen's own takes about a millisecond and a few hundred kilobytes.
SECONDS, MEMORY_BYTES = 5.0, 512 * MIB


class OwnTemplate:
    """The chat template of a tokenizer, to be called; close it when done."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known = template_digest(tokenizer.template) in KNOWN_FORMATS
        self._child: Conversation | None = None

    def text(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        *,
        generation: bool = False,
        where: str = "",
    ) -> str:
        """Return what the template writes.

        Raises:
            IntegrityError: It fails on this chat, or needs more than its limits.
        """
        rows = [_as_dict(message) for message in messages]
        defined = [dict(tool) for tool in tools] or None
        try:
            if self._known:
                return self._render_here(rows, defined, generation)
            return self._render_apart(rows, defined, generation)
        except Exception as error:  # a template may raise anything
            raise IntegrityError(
                f"the tokenizer's own chat template fails: {error}", where=where
            ) from error

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _render_here(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, generation: bool
    ) -> str:
        official = self._tokenizer.official
        return str(
            official.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=generation
            )
        )

    def _render_apart(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, generation: bool
    ) -> str:
        if self._child is None:
            self._child = Conversation(
                "swe_scaffold.rendering.template_child",
                seconds=SECONDS,
                memory_bytes=MEMORY_BYTES,
            )
        special = {k: str(v) for k, v in self._tokenizer.official.special_tokens_map.items()}
        try:
            reply = self._child.ask(
                {
                    "template": self._tokenizer.template,
                    "messages": messages,
                    "tools": tools,
                    "generation": generation,
                    "special_tokens": special,
                }
            )
        except ChildFailed:
            self._child = None
            raise
        if "error" in reply:
            raise IntegrityError(str(reply["error"]))
        return str(reply["text"])


def _as_dict(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        row["tool_calls"] = [
            {"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
            for c in message.tool_calls
        ]
    return row
