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

from swe_scaffold.walkthrough.tools import definitions, in_words, problem_of

MAX_OBSERVATION = 12_000
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
        self.config = {"model_name": name, **(facts or {})}

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the next turn: `content`, `tool_calls`, and `usage` where it is known."""
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
        actions, problem = [], "" if calls else "there is no tool call in it"
        for call in calls[:1]:
            name, arguments, problem = _read(call, bash=self.bash)
            if not problem:
                actions = [
                    {
                        "command": in_words(name, arguments),
                        "tool": name,
                        "arguments": arguments,
                        "tool_call_id": call["id"],
                    }
                ]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": content,
            "extra": {
                "actions": actions,
                "cost": 0.0,
                "timestamp": time.time(),
                "seconds": round(time.time() - start, 3),
                **{key: turn[key] for key in ("usage", "left_out") if turn.get(key)},
            },
        }
        if len(calls) > 1:
            message["extra"]["calls_left_out"] = len(calls) - 1
        if problem:
            complaint = {
                "role": "user",
                "content": _COMPLAINT.format(problem=problem),
                "extra": {"interrupt_type": "FormatError", "timestamp": time.time()},
            }
            raise FormatError(message, complaint)
        message["tool_calls"] = calls[:1]
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


def _read(call: Mapping[str, Any], *, bash: bool) -> tuple[str, dict[str, Any], str]:
    """Return a call's name and arguments, or what is wrong with it."""
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError as error:
            return "", {}, f"the arguments of {name!r} are no JSON ({error})"
    problem = problem_of(name, arguments, bash=bash)
    if problem or not isinstance(arguments, Mapping):
        return "", {}, problem
    return str(name), dict(arguments), ""


def _calls_in_text(content: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the text and the calls of an answer that spells them as Qwen and Hermes do."""
    calls = []
    for number, found in enumerate(_CALL.findall(content), 1):
        try:
            value = json.loads(found)
        except ValueError:
            continue
        if isinstance(value, Mapping):
            calls.append(tool_call(number, str(value.get("name")), value.get("arguments") or {}))
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
