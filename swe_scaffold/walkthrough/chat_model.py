"""What every model of a walkthrough has in common: calls of tools in, observations out.

Whatever a model answers becomes an assistant message with `tool_calls` in OpenAI's form, and the
actions that the environment executes. An answer without a call that can be read is kept too, and
the model is told what was wrong with it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from swe_scaffold.strict_json import Malformed, parse
from swe_scaffold.walkthrough.toolbox import MAX_TEXT
from swe_scaffold.walkthrough.tools import definitions, in_words, problem_of

# What a tool shows fits whole; the middle of a shell's output may be left out.
MAX_OBSERVATION = 2 * MAX_TEXT
_NO_CALL = "there is no tool call in it"
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_COMPLAINT = (
    "Your last answer could not be used: {problem}. Answer with exactly one call of one of the "
    "tools you have."
)


class ChatModel:
    """A model as mini-swe-agent's agent wants it; children say what it answers.

    Args:
        name: How records call it.
        bash: Whether a shell is among its tools.
        facts: What else the record says of it.
    """

    def __init__(self, name: str, *, bash: bool = False, facts: Mapping[str, Any] | None = None):
        self.name, self.bash = name, bash
        self._calls = 0
        self.config = {"model_name": name, **(facts or {})}

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the next turn: `content`, `tool_calls`, and `usage`, `prompt_cut` where known."""
        raise NotImplementedError

    def query(self, messages: Sequence[Mapping[str, Any]], **_: Any) -> dict[str, Any]:
        """Return the next turn as a message with the actions to execute.

        Raises:
            minisweagent.exceptions.FormatError: It has no call that can be executed.
        """
        from minisweagent.exceptions import FormatError

        start = time.time()
        turn = self.answer([_plain(message) for message in messages])
        calls = list(turn.get("tool_calls") or [])
        content = str(turn.get("content") or "")
        if not calls:
            content, calls = _calls_in_text(content)
        # One at a time: a small model that plans ahead plans on what it has not seen.
        call, problem = _read(calls[0], bash=self.bash) if calls else (None, _NO_CALL)
        actions = []
        if call is not None:
            self._calls += 1
            made = tool_call(self._calls, *call)
            action = {"command": in_words(*call), "tool": call[0], "arguments": call[1]}
            actions = [action | {"tool_call_id": made["id"]}]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content,
            "extra": {
                "actions": actions,
                "cost": 0.0,
                "timestamp": time.time(),
                "seconds": round(time.time() - start, 3),
                **{key: turn[key] for key in ("usage", "prompt_cut") if turn.get(key)},
            },
        }
        if len(calls) > 1:
            message["extra"]["calls_left_out"] = len(calls) - 1
        if call is None:
            complaint = {
                "role": "user",
                "content": _COMPLAINT.format(problem=problem),
                "extra": {"interrupt_type": "FormatError", "timestamp": time.time()},
            }
            raise FormatError(message, complaint)
        message["tool_calls"] = [made]
        return message

    def format_message(self, **message: Any) -> dict[str, Any]:
        """Return a message as it goes into the chat."""
        return message

    def format_observation_messages(
        self,
        message: Mapping[str, Any],
        outputs: Sequence[Mapping[str, Any]],
        template_vars: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Return what the agent is told of its actions; what is too long is cut in the middle."""
        actions = message["extra"]["actions"]
        return [
            {
                "role": "tool",
                "tool_call_id": action["tool_call_id"],
                "name": action["tool"],
                "content": _observation(output),
                "extra": {
                    "raw_output": output["output"],
                    "returncode": output["returncode"],
                    "exception_info": output["exception_info"],
                    "timestamp": time.time(),
                    **output.get("extra", {}),
                },
            }
            for action, output in zip(actions, outputs, strict=True)
        ]

    def get_template_vars(self, **more: Any) -> dict[str, Any]:
        """Return what templates may name."""
        return {**self.config, **more}

    def serialize(self) -> dict[str, Any]:
        """Return what the trajectory says of the model."""
        kind = type(self)
        return {
            "info": {
                "config": {
                    "model": self.config,
                    "model_type": f"{kind.__module__}.{kind.__qualname__}",
                },
                "tools": definitions(bash=self.bash),
            }
        }


def tool_call(number: int, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call in OpenAI's form, its arguments as a JSON text."""
    return {
        "id": f"call_{number:04d}",
        "type": "function",
        "function": {
            "name": name,
            "arguments": json.dumps(arguments, ensure_ascii=False, allow_nan=False),
        },
    }


def _read(call: object, *, bash: bool) -> tuple[tuple[str, dict[str, Any]] | None, str]:
    """Return a call's name and arguments, or None and what is wrong with it."""
    function = call.get("function") if isinstance(call, Mapping) else None
    function = function if isinstance(function, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments.encode("utf-8", "surrogatepass"))
        except Malformed as error:
            return None, f"the arguments are no JSON: {error.message}"
    problem = problem_of(name, arguments, bash=bash)
    if problem or not isinstance(arguments, Mapping):
        return None, problem
    return (str(name), dict(arguments)), ""


def _calls_in_text(content: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the text and the calls of an answer that spells them as Qwen and Hermes do."""
    calls = []
    for found in _CALL.findall(content):
        try:
            value = parse(found.encode("utf-8", "surrogatepass"))
        except Malformed:
            continue
        if isinstance(value, Mapping):
            calls.append({"function": value})
    return (_CALL.sub("", content).strip(), calls) if calls else (content, [])


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as a model sees it, without what is kept for the record."""
    return {key: value for key, value in message.items() if key != "extra"}


def _observation(output: Mapping[str, Any]) -> str:
    text = str(output["output"])
    if len(text) > MAX_OBSERVATION:
        half = MAX_OBSERVATION // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    notes = []
    if output["exception_info"]:
        notes.append(f"[{output['exception_info']}]")
    return "\n".join([*notes, text])
