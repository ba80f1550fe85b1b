"""Rows and chats for rendering tests: by hand, drawn at random, and as other tools see them."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from swe_scaffold.rendering import Encoded, Renderer
from swe_scaffold.types import (
    Example,
    Message,
    SpeedrunLabel,
    TokenizedExample,
    ToolCall,
    Verdict,
)

SPELT = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>"]
BITS = [
    "\n",
    "\n\n",
    " ",
    "\r\n",
    "\t",
    "e\u0301",
    "\u0338",
    "\u212b",
    "<",
    "|>",
    "_end|>",
    "}",
    '"',
]
CALM = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
some = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=CALM)

letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
hostile = st.lists(st.sampled_from([*SPELT, *BITS]) | letters, max_size=8).map("".join)
honest = st.lists(st.sampled_from(BITS) | letters, max_size=8).map("".join)
PATCH = "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
TOOL = {"type": "function", "function": {"name": "open", "parameters": {"path": "é <tool_call>"}}}


def pair(prompt: str, response: str, **fields: Any) -> Example:
    row: dict[str, Any] = {"instance_id": "x-1", "repo": "o/x", "response_source": "patch"}
    return Example(prompt=prompt, response=response, label=SpeedrunLabel.SUCCESS, **row, **fields)


def chat(*messages: Message, tools: tuple[dict[str, Any], ...] = ()) -> Example:
    return pair("", "", messages=messages, tools=tools)


@st.composite
def chats(draw: st.DrawFn, text: st.SearchStrategy[str] = honest) -> Example:
    """A chat as transcripts have them: maybe a system message, tool turns, an answer at the end."""
    messages = [Message("system", draw(text))] if draw(st.booleans()) else []
    messages.append(Message("user", draw(text)))
    for _ in range(draw(st.integers(0, 2))):
        call = ToolCall(draw(text), {"path": draw(text), "lines": [1, None]})
        train = draw(st.sampled_from([None, True, False]))
        content = draw(st.just("") | text)
        calls = (call,) * draw(st.integers(1, 2))
        messages.append(Message("assistant", content, tool_calls=calls, train=train))
        messages += [Message("tool", draw(text)) for _ in range(draw(st.integers(1, 2)))]
    messages.append(Message("assistant", "done" + draw(text)))
    tools = (TOOL,) if draw(st.booleans()) else ()
    return chat(*messages, tools=tools)


def rendered(renderer: Renderer, example: Example, **limits: Any) -> TokenizedExample:
    result = renderer.render(example, **limits)
    assert isinstance(result, TokenizedExample), result
    return result


def refused(renderer: Renderer, example: Example, **limits: Any) -> Verdict:
    result = renderer.render(example, **limits)
    assert isinstance(result, Verdict), result
    return result


def decoded(official: Any, ids: Any) -> str:
    text = official.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text)


def ids_of(row: TokenizedExample) -> tuple[int, ...]:
    return tuple(row.input_ids.tolist())


def targets(row: TokenizedExample) -> list[int]:
    return [i for i, target in zip(ids_of(row), row.loss_mask, strict=True) if target]


def as_dicts(example: Example) -> list[dict[str, Any]]:
    if not example.messages:
        return [
            {"role": "user", "content": example.prompt},
            {"role": "assistant", "content": example.response},
        ]
    rows = []
    for message in example.messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            row["tool_calls"] = [
                {"function": {"name": c.name, "arguments": c.arguments}} for c in message.tool_calls
            ]
        rows.append(row)
    return rows


def own_ids(official: Any, example: Example) -> tuple[int, ...]:
    ids = official.apply_chat_template(
        as_dicts(example), tools=list(example.tools) or None, tokenize=True, return_dict=False
    )
    return tuple(ids)


def encoded(renderer: Renderer, example: Example, **limits: Any) -> Encoded:
    [(_, result)] = renderer.encode_many([example], **limits)
    assert isinstance(result, Encoded), result
    return result
