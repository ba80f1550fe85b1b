"""A model behind an OpenAI-compatible server: several requests at a time, patience, and no trust.

Plain HTTP of the standard library, one connection a request. Redirects are not followed, so that
the key goes to the named host alone; proxies of the environment are not used. What is asked is
decided in `questions`.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swe_scaffold.engine.sampling import Sampling, draw_seed
from swe_scaffold.errors import EnvironmentFailure
from swe_scaffold.prediction.answers import Answer, NoAnswer, Reply, Wanted
from swe_scaffold.prediction.http import Endpoint, NoReplyError, Response
from swe_scaffold.prediction.questions import Question, chat_of
from swe_scaffold.strict_json import Malformed, parse
from swe_scaffold.terminal import SILENT, Reporter, show

# Servers take a signed 32-bit seed at least.
_SEED_BITS = 31
_BUSY = frozenset({408, 409, 425, 429})
# This request is what the server refuses, not the next one.
_REFUSED = frozenset({400, 413, 422})
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is tried, and how long is waited in between: doubling, or as told."""

    attempts: int = 7
    first_seconds: float = 1.0
    most_seconds: float = 60.0

    def pause(self, attempt: int, asked: float | None) -> float:
        """Return the seconds to wait after try number `attempt` (from 1)."""
        if asked is not None:
            return min(asked, self.most_seconds)
        doubled = self.first_seconds * 2.0 ** (attempt - 1)
        # Requests that failed together do not come back together.
        return min(doubled * random.uniform(0.75, 1.25), self.most_seconds)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of a server.

    Attributes:
        endpoint: Where the server is.
        model: The name it knows the model by.
        concurrency: Most requests at a time.
        patience: What is done about failures that may pass.
        reporter: Where it is told that the server is waited for.
    """

    endpoint: Endpoint
    model: str
    concurrency: int = 8
    patience: Patience = Patience()
    reporter: Reporter = SILENT

    @property
    def name(self) -> str:
        """The name the server knows the model by."""
        return self.model

    def identity(self) -> dict[str, Any]:
        """Return the server and the model's name there: what is behind them nobody can tell."""
        return {"kind": "server", "name": self.model, "api_base": self.endpoint.shown}

    def answer(
        self, questions: Sequence[Question], wanted: Wanted, sampling: Sampling
    ) -> Iterator[Reply]:
        """Yield the replies as they come.

        Raises:
            EnvironmentFailure: The server cannot be reached, stays busy or failing, or refuses all.
        """
        jobs: queue.SimpleQueue[tuple[Question, int] | None] = queue.SimpleQueue()
        total = 0
        for question in questions:
            for sample in wanted[question.index]:
                jobs.put((question, sample))
                total += 1
        workers = min(self.concurrency, total)
        for _ in range(workers):
            jobs.put(None)
        replies: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()
        stop = threading.Event()

        def work() -> None:
            while (job := jobs.get()) is not None and not stop.is_set():
                try:
                    replies.put(self._ask(*job, sampling, stop))
                except Exception as error:  # noqa: BLE001 it is raised where the replies are awaited
                    replies.put(error)
                    # Here, not where replies are awaited: this thread asks nothing more.
                    stop.set()

        for _ in range(workers):
            # Daemons: a request that hangs does not keep the process from ending.
            threading.Thread(target=work, daemon=True).start()
        try:
            for _ in range(total):
                reply = replies.get()
                if isinstance(reply, Exception):
                    raise reply
                yield reply
        finally:
            stop.set()

    def _ask(
        self, question: Question, sample: int, sampling: Sampling, stop: threading.Event
    ) -> Reply:
        body = self._body(question, sample, sampling)
        for attempt in range(1, self.patience.attempts + 1):
            asked = None
            try:
                response = self.endpoint.post("/chat/completions", body)
            except NoReplyError as error:
                problem = str(error)
            else:
                if response.status == 200:
                    return _read(response, question, sample)
                problem = self._problem(response)
                if response.status in _REFUSED:
                    return NoAnswer(question.index, sample, "refused_by_server", problem)
                if response.status < 500 and response.status not in _BUSY:
                    raise self._failure(problem, _hint(response.status))
                asked = response.retry_after
            if attempt == self.patience.attempts:
                break
            seconds = self.patience.pause(attempt, asked)
            # A short outage is no news.
            self.reporter.say(f"{problem}; trying again in {seconds:.0f} s", level=int(attempt < 3))
            if stop.wait(seconds):
                break
        again = "run the same command again: what was answered is kept"
        raise self._failure(f"{problem} ({attempt} tries)", again)

    def _body(self, question: Question, sample: int, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": chat_of(question.messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "n": 1,
            "seed": draw_seed(sampling.seed, question.key, sample) >> (63 - _SEED_BITS),
            "stream": False,
        }
        if question.example.tools:
            body["tools"] = [dict(tool) for tool in question.example.tools]
        return body

    def _problem(self, response: Response) -> str:
        said = _said(response.body) if response.complete else ""
        text = f"the server answers with status {response.status}"
        if response.location:
            text += f" and points to {show(response.location, width=_SHOWN)}"
        return f"{text}: {show(self.endpoint.without_key(said), width=_SHOWN)}" if said else text

    def _failure(self, message: str, hint: str) -> EnvironmentFailure:
        return EnvironmentFailure(message, where=self.endpoint.shown, hint=hint)


def _hint(status: int) -> str:
    if status in (401, 403):
        return "name the variable that holds the key with --api-key-env"
    if status == 404:
        return "--api-base ends where /chat/completions begins, often in /v1; see --model too"
    if 300 <= status < 400:
        return "redirects are not followed: give the address it points to as --api-base"
    return ""


def _said(body: bytes) -> str:
    """Return what a server says of an error, from the shapes in use, else the body's beginning."""
    try:
        value = parse(body)
    except Malformed:
        return body[:_SHOWN].decode("utf-8", "replace").strip()
    for key in ("error", "message", "detail"):
        if isinstance(value, Mapping) and key in value:
            value = value[key]
    return value if isinstance(value, str) else str(value)


def _read(response: Response, question: Question, sample: int) -> Reply:
    """Read a completion; one that is none is a fact about this question."""

    def bad(detail: str) -> NoAnswer:
        return NoAnswer(question.index, sample, "malformed_answer", detail)

    if not response.complete:
        return bad("the answer is larger than is read")
    try:
        value = parse(response.body)
    except Malformed as problem:
        return bad(f"not JSON: {problem.message}")
    choice = _first(_get(value, "choices"))
    message = _get(choice, "message")
    if not isinstance(message, Mapping):
        return bad("there is no choices[0].message")
    calls = message.get("tool_calls") or []
    text = message.get("content")
    if not isinstance(text, str | None) or not isinstance(calls, list):
        return bad("message.content is no text")
    finish = _get(choice, "finish_reason")
    usage = _get(value, "usage")
    return Answer(
        index=question.index,
        sample=sample,
        text=text or "",
        stopped=finish in ("stop", "tool_calls"),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        tool_calls=[call for call in calls if isinstance(call, Mapping)],
    )


def _get(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else None


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None


def _count(usage: object, key: str) -> int | None:
    value = _get(usage, key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
