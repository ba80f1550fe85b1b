"""A language model as the guide: one on this machine with its adapter, or one behind a server.

Both are `prediction`'s: a step is the question what the chat's next turn is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.prediction import Answer, Model
from swe_scaffold.prediction.http import open_endpoint
from swe_scaffold.prediction.questions import Question
from swe_scaffold.prediction.server import Patience, ServedModel
from swe_scaffold.sources.chat import tool_call
from swe_scaffold.types import Example, Message, SpeedrunLabel
from swe_scaffold.walkthrough.chat_model import ChatModel
from swe_scaffold.walkthrough.tools import definitions

# Somebody waits for the next step.
PATIENCE = Patience(attempts=3)
_ID = "walkthrough"


class AskedModel(ChatModel):
    """Asks a model of `prediction` for each step.

    Args:
        model: The model.
        sampling: How its answers are drawn.
        bash: Whether a shell is among its tools.
    """

    def __init__(self, model: Model, sampling: Sampling, *, bash: bool = False) -> None:
        facts = {
            "identity": model.identity(),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_new_tokens": sampling.max_new_tokens,
            "seed": sampling.seed,
        }
        super().__init__(model.name, bash=bash, facts=facts)
        self._model, self._sampling = model, sampling
        self._tools = tuple(definitions(bash=bash))

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the model's next turn.

        Raises:
            minisweagent.exceptions.LimitsExceeded: The chat no longer fits into its context.
            EnvironmentFailure: The server cannot be reached, or stays busy.
        """
        from minisweagent.exceptions import LimitsExceeded

        chat = tuple(_message(message) for message in messages)
        reply = next(iter(self._model.answer([self._question(chat)], {0: [0]}, self._sampling)))
        if not isinstance(reply, Answer):
            detail = f"{reply.reason}: {reply.detail}"
            extra = {"exit_status": reply.reason, "submission": ""}
            raise LimitsExceeded({"role": "exit", "content": detail, "extra": extra})
        usage = {"prompt": reply.prompt_tokens, "completion": reply.completion_tokens}
        return {
            "content": reply.text,
            "tool_calls": [dict(call) for call in reply.tool_calls],
            "usage": usage if None not in usage.values() else {},
            "prompt_cut": reply.prompt_cut,
        }

    def _question(self, chat: tuple[Message, ...]) -> Question:
        example = Example(
            instance_id=_ID,
            repo="",
            prompt=chat[-1].content,
            response="",
            response_source="",
            label=SpeedrunLabel.FAILURE,
            messages=chat,
            tools=self._tools,
        )
        said = json.dumps([[message.role, message.content] for message in chat], allow_nan=False)
        key = hashlib.sha256(said.encode("ascii")).hexdigest()
        return Question(0, example, chat, key, is_turn=True, expects_patch=False)


class ServedGuide(AskedModel):
    """A model behind a server, as a configuration of mini-swe-agent names it.

    Args:
        model_name: Its name at the server.
        api_base: Where `/chat/completions` begins.
        api_key_env: Environment variable that holds the key.
        temperature: 0 takes the likeliest token.
        max_new_tokens: Most tokens of an answer.
        timeout: Longest wait for one answer, in seconds.
        allow_bash: Whether the model is offered a shell; whether it has one is the environment's.
    """

    def __init__(
        self,
        model_name: str,
        api_base: str,
        api_key_env: str = "",
        temperature: float = 0.0,
        max_new_tokens: int = 1024,
        timeout: float = 600.0,
        allow_bash: bool = False,
    ) -> None:
        endpoint = open_endpoint(api_base, key_variable=api_key_env, timeout_seconds=timeout)
        sampling = Sampling(max_new_tokens, temperature, 1.0, 0)
        super().__init__(ServedModel(endpoint, model_name, 1, PATIENCE), sampling, bash=allow_bash)


def _message(message: Mapping[str, Any]) -> Message:
    calls = message.get("tool_calls") or []
    return Message(
        role=str(message["role"]),
        content=str(message.get("content") or ""),
        tool_calls=tuple(tool_call(call, "tool_calls.") for call in calls),
        tool_call_id=str(message.get("tool_call_id") or ""),
        train=False,
    )
