"""Chat formats as our own code: messages in, labelled pieces of text out.

A format says what is a control token, what is the template's own text, what came from the data and
what the model is to answer. Which ids the pieces get is `runs`' work; whether a tokenizer's own
template agrees is `proof`'s. A new format is a class like ChatML and a line in KNOWN_FORMATS.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from swe_scaffold.types import Message

QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

# The words Qwen2.5 was trained on; a changed comma would be another prompt.
TOOLS_BEFORE = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)

CHATML_TEMPLATE = r"""{%- set first = messages[0] %}
{%- set has_system = first.role == 'system' %}
{{- '<|im_start|>system\n' ~ (first.content if has_system else DEFAULT_SYSTEM) }}
{%- if tools %}
    {{- TOOLS_BEFORE }}
    {%- for tool in tools %}
        {{- '\n' ~ (tool | tojson) }}
    {%- endfor %}
    {{- TOOLS_AFTER }}
{%- endif %}
{{- '<|im_end|>\n' }}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' ~ message.content ~ '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- elif not (loop.first and has_system) %}
        {{- '<|im_start|>' ~ message.role }}
        {%- if message.content or not message.tool_calls %}
            {{- '\n' ~ message.content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- set function = call.function or call %}
            {{- '\n<tool_call>\n{"name": "' ~ function.name ~ '", "arguments": ' }}
            {{- (function.arguments | tojson) ~ '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
""".replace("DEFAULT_SYSTEM", json.dumps(QWEN_SYSTEM, allow_nan=False))
CHATML_TEMPLATE = CHATML_TEMPLATE.replace("TOOLS_BEFORE", json.dumps(TOOLS_BEFORE, allow_nan=False))
CHATML_TEMPLATE = CHATML_TEMPLATE.replace("TOOLS_AFTER", json.dumps(TOOLS_AFTER, allow_nan=False))


class Piece(NamedTuple):
    """A stretch of a rendered chat.

    `control` marks the template's own control tokens, `answer` all that an assistant says after its
    header (end token included), `target` the answers that are trained, `foreign` text of the data.
    """

    text: str
    control: bool = False
    answer: bool = False
    target: bool = False
    foreign: bool = False


START, END = Piece("<|im_start|>", control=True), Piece("<|im_end|>", control=True)
NEWLINE = Piece("\n")


def trains(message: Message) -> bool:
    """Say whether a message becomes targets: marked as such and not empty."""
    return message.trained and bool(message.content.strip() or message.tool_calls)


@dataclass(frozen=True, slots=True)
class ChatML:
    """`<|im_start|>role ... <|im_end|>` turns, as Qwen and many others write them.

    `default_system` is said where a chat has no system message ("": nothing is said). Without
    `tools` the template knows neither tool definitions nor tool calls nor tool messages.
    """

    name: str
    default_system: str = ""
    tools: bool = True

    @property
    def start(self) -> str:
        """The token that begins a turn."""
        return START.text

    @property
    def end(self) -> str:
        """The token that ends an answer."""
        return END.text

    @property
    def controls(self) -> tuple[str, ...]:
        """Tokens that only the template may write; the last four exist in some tokenizers only."""
        tags = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
        return (START.text, END.text, *tags)

    def problem(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        """Say why this chat cannot be rendered without losing or misplacing words; "" if it can."""
        roles = {"system", "user", "assistant"} | ({"tool"} if self.tools else set())
        if tools and not self.tools:
            return f"the chat format {self.name} has no tools"
        for number, message in enumerate(messages, 1):
            if message.role not in roles:
                return f"message {number} has the role {message.role!r}, unknown to {self.name}"
            if message.trained and message.role != "assistant":
                return f"message {number} is marked train but its role is {message.role!r}"
            if message.tool_calls and (message.role != "assistant" or not self.tools):
                return f"message {number} has tool calls where {self.name} has none"
        return ""

    def pieces(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        generation: bool = False,
    ) -> list[Piece]:
        """Return the chat in pieces, with `generation` up to the header of the next answer.

        Raises:
            ValueError: A tool or argument is not JSON (NaN, infinity).
        """
        opened = bool(messages) and messages[0].role == "system"
        out = list(self._opening(messages[0].content if opened else None, tools))
        for index, message in enumerate(messages):
            if message.role == "tool":
                out += self._tool_turn(messages, index)
            elif not (index == 0 and opened):
                out += self._turn(message)
        if generation:
            out += (START, Piece("assistant\n"))
        return out

    def _opening(self, system: str | None, tools: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
        if system is None and not self.default_system:
            return
        yield START
        yield Piece("system\n")
        yield Piece(self.default_system) if system is None else Piece(system, foreign=True)
        if tools:
            yield from _marked(TOOLS_BEFORE)
            for tool in tools:
                yield NEWLINE
                yield Piece(_json(tool), foreign=True)
            yield from _marked(TOOLS_AFTER)
        yield END
        yield NEWLINE

    def _turn(self, message: Message) -> Iterator[Piece]:
        yield START
        yield Piece(f"{message.role}\n")
        if message.role != "assistant":
            yield Piece(message.content, foreign=True)
            yield END
        else:
            target = trains(message)
            for piece in (*_answer(message), END):
                yield piece._replace(answer=True, target=target)
        yield NEWLINE

    def _tool_turn(self, messages: Sequence[Message], index: int) -> Iterator[Piece]:
        if index == 0 or messages[index - 1].role != "tool":
            yield START
            yield Piece("user")
        yield from _marked("\n<tool_response>\n")
        yield Piece(messages[index].content, foreign=True)
        yield from _marked("\n</tool_response>")
        if index == len(messages) - 1 or messages[index + 1].role != "tool":
            yield END
            yield NEWLINE


def _answer(message: Message) -> Iterator[Piece]:
    """Yield what an assistant says: text, then calls; the header's newline stands before either."""
    if message.content or not message.tool_calls:
        yield Piece(message.content, foreign=True)
    for number, call in enumerate(message.tool_calls):
        if number or message.content:
            yield NEWLINE
        yield from _marked('<tool_call>\n{"name": "')
        yield Piece(call.name, foreign=True)
        yield Piece('", "arguments": ')
        yield Piece(_json(call.arguments), foreign=True)
        yield from _marked("}\n</tool_call>")


def _marked(text: str) -> Iterator[Piece]:
    """Split a text of the template at the tags that some tokenizers hold as tokens."""
    for tag in ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"):
        before, found, after = text.partition(tag)
        if found:
            yield from _marked(before)
            yield Piece(tag, control=True)
            yield from _marked(after)
            return
    if text:
        yield Piece(text)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def template_digest(template: str) -> str:
    """Return the hex SHA-256 of a template; one final newline says nothing and is not counted."""
    return hashlib.sha256(template.removesuffix("\n").encode("utf-8", "surrogatepass")).hexdigest()


QWEN = ChatML("qwen2.5", QWEN_SYSTEM)
QWEN_BASE = ChatML("qwen2.5-base", "You are a helpful assistant.")
PLAIN = ChatML("chatml", tools=False)
FORMATS = (QWEN, QWEN_BASE, PLAIN)

# Keys: template_digest of the templates of our own, Qwen2.5 Instruct, Qwen2.5 base, and the ChatML
# one-liner without a default system message that many fine-tunes carry (in two spellings).
KNOWN_FORMATS: dict[str, ChatML] = {
    template_digest(CHATML_TEMPLATE): QWEN,
    "55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a": QWEN,
    "4039eed0f28b7aaa337e70c76cfedba3271ee32505835a095a8c92e536b3c355": QWEN_BASE,
    "153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3": PLAIN,
    "fcf7a096fe99a48fd9ad2b250bf9237e96e8f48bffec1c7ea4d3f225176cd40e": PLAIN,
}
