"""Answers from a server: the protocol, patience with one that misbehaves, and a key kept close."""

from __future__ import annotations

import json
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.errors import DataError, EnvironmentFailure, UsageError
from swe_scaffold.prediction import Predictions, predict, read_questions
from swe_scaffold.prediction import http as client
from swe_scaffold.prediction.http import MAX_RESPONSE_BYTES, open_endpoint
from swe_scaffold.prediction.server import Patience, ServedModel
from tests.prediction.chat_server import Behave, ChatServer, Handler, Seen, echo, serving
from tests.prediction.fake import PATCH, read_rows, task, write_rows

KEY = "sk-canary-1234567890"
GREEDY = Sampling(max_new_tokens=77)
DRAWN = Sampling(max_new_tokens=77, temperature=0.7, top_p=0.9, seed=4)
QUICK = Patience(attempts=4, first_seconds=0.01, most_seconds=0.2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "tasks.jsonl", [task(number) for number in range(6)])


def served(url: str, **options: Any) -> ServedModel:
    ends = {
        name: options.pop(name) for name in ("key_variable", "timeout_seconds") if name in options
    }
    return ServedModel(open_endpoint(url, **ends), "mine", patience=QUICK, **options)


def run(model: ServedModel, data: Path, output: Path | None = None, **options: Any) -> Predictions:
    options = {"sampling": GREEDY, **options}
    return predict(lambda: model, read_questions(str(data)), output=output, **options)


def test_what_is_asked_and_what_comes_back(data: Path) -> None:
    with serving() as place:
        made = run(served(place.url), data)
    assert [row["raw_output"] for row in made.rows] == [
        f"echo add({n}, 1) returns a wrong value" for n in range(6)
    ]
    assert {row["model_name_or_path"] for row in made.rows} == {"mine"}
    assert made.rows[0]["stopped"] is True
    assert (made.rows[0]["prompt_tokens"], made.rows[0]["completion_tokens"]) == (21, 5)
    request = next(seen for seen in place.seen if "add(0," in seen.body["messages"][0]["content"])
    assert request.path == "/v1/chat/completions"
    seed = request.body.pop("seed")
    assert 0 <= seed < 2**31
    assert request.body == {
        "model": "mine",
        "messages": [{"role": "user", "content": "add(0, 1) returns a wrong value"}],
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 77,
        "n": 1,
        "stream": False,
    }
    assert "Authorization" not in request.headers
    assert made.facts["model"] == {"kind": "server", "name": "mine", "api_base": place.url}


def test_every_sample_has_a_seed_of_its_own_and_the_same_one_again(data: Path) -> None:
    with serving() as place:
        run(served(place.url), data, samples=3, sampling=DRAWN)
        first = {(p, s.body["seed"]) for p, s in zip(place.prompts(), place.seen, strict=True)}
        run(served(place.url, concurrency=1), data, samples=3, sampling=DRAWN)
        again = {(p, s.body["seed"]) for p, s in zip(place.prompts(), place.seen, strict=True)}
    assert len(first) == 18
    assert first == again
    assert {seen.body["temperature"] for seen in place.seen} == {0.7}


def test_a_chat_is_sent_as_it_is_with_its_tools_and_its_calls_come_back(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "open", "parameters": {}}}
    call = {"type": "function", "function": {"name": "open", "arguments": {"path": "é"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "text", "tool_call_id": "c1"},
        {"role": "assistant", "content": "never sent"},
    ]
    data = write_rows(tmp_path / "c.jsonl", [{"messages": messages, "tools": [tool]}])
    answer = {"id": "c2", "type": "function", "function": {"name": "open", "arguments": "{}"}}

    def calls(handler: Handler, _: Seen, __: int) -> None:
        handler.complete(None, "tool_calls", tool_calls=[answer])

    with serving(calls) as place:
        made = run(served(place.url), data)
    [request] = place.seen
    assert request.body["tools"] == [tool]
    assert [message["role"] for message in request.body["messages"]] == [
        *("system", "user", "assistant", "tool"),
    ]
    [sent] = request.body["messages"][2]["tool_calls"]
    assert sent["id"]
    assert json.loads(sent["function"]["arguments"]) == {"path": "é"}
    assert request.body["messages"][3]["tool_call_id"] == "c1"
    [row] = made.rows
    assert row["message"] == {"role": "assistant", "content": "", "tool_calls": [answer]}
    assert row["stopped"] is True
    assert made.facts["health"]["empty"]["value"] == 0


def test_an_answer_that_ran_into_its_limit_did_not_stop(data: Path) -> None:
    with serving(lambda handler, *_: handler.complete(PATCH.rstrip("\n")[:-4], "length")) as place:
        made = run(served(place.url), data)
    assert {(row["stopped"], row["problem"]) for row in made.rows} == {(False, "truncated")}


def test_so_many_requests_at_a_time_and_the_order_of_the_rows(data: Path) -> None:
    def slow(handler: Handler, request: Seen, before: int) -> None:
        number = int(request.body["messages"][0]["content"][4])
        time.sleep(0.05 * (6 - number))
        echo(handler, request, before)

    with serving(slow) as place:
        made = run(served(place.url, concurrency=3), data)
        assert place.most_open == 3
        assert [row["instance_id"] for row in made.rows] == [f"owner__repo-{n}" for n in range(6)]
    with serving(slow) as place:
        run(served(place.url, concurrency=1), data)
        assert place.most_open == 1


def first(status_or_act: Any) -> Behave:
    """Misbehave on the first try of each request only."""

    def behave(handler: Handler, request: Seen, before: int) -> None:
        if before:
            echo(handler, request, before)
        elif isinstance(status_or_act, int):
            handler.reply(status_or_act, b'{"error": {"message": "busy"}}')
        else:
            status_or_act(handler)

    return behave


@pytest.mark.parametrize(
    "act",
    [
        429,
        500,
        502,
        503,
        408,
        lambda h: h.reply(429, b"", Retry_After="0"),
        lambda h: h.reply(503, b"", Retry_After=formatdate(time.time() - 5, usegmt=True)),
        lambda h: h.reply(503, b"", Retry_After="soon"),
        lambda h: h.cut(b'{"choices": [', 5000),
        lambda h: h.connection.close(),
        lambda h: h.wfile.write(b"garbage\r\n\r\n"),
        lambda h: time.sleep(1.0),
        lambda h: h.drip(1.0),
    ],
    # Of a function `str` tells the address, which differs between the workers of a test run.
    ids=lambda act: str(act) if isinstance(act, int) else None,
)
def test_what_may_pass_is_tried_again(data: Path, act: Any) -> None:
    with serving(first(act)) as place:
        made = run(served(place.url, timeout_seconds=0.3), data)
    assert len(made.rows) == 6
    assert len(place.seen) == 12


def test_the_server_decides_how_long_it_is_left_alone_but_not_for_ever() -> None:
    patience = Patience(first_seconds=1, most_seconds=60)
    assert patience.pause(1, 7.0) == 7
    assert patience.pause(1, 1e9) == 60
    assert 0.75 <= patience.pause(1, None) <= 1.25
    assert 6 <= patience.pause(4, None) <= 10
    assert patience.pause(30, None) == 60


@pytest.mark.parametrize(
    "act",
    [
        lambda h: h.reply(200, b"<html>not JSON</html>"),
        lambda h: h.reply(200, b"\xff\xfe"),
        lambda h: h.reply(200, b"[]"),
        lambda h: h.reply(200, b'{"choices": []}'),
        lambda h: h.reply(200, b'{"choices": [{"message": "text"}]}'),
        lambda h: h.reply(200, b'{"choices": [{"message": {"content": 5}}]}'),
        lambda h: h.reply(200, b'{"choices": [{"message": {"content": "\\ud800"}}]}'),
        lambda h: h.reply(200, b"[" * 100_000),
        lambda h: h.reply(200, b" " * (MAX_RESPONSE_BYTES + 2)),
    ],
)
def test_an_answer_that_is_none_is_counted_and_not_asked_again(data: Path, act: Any) -> None:
    def behave(handler: Handler, request: Seen, before: int) -> None:
        bad = "add(3," in request.body["messages"][0]["content"]
        act(handler) if bad else echo(handler, request, before)

    with serving(behave) as place:
        made = run(served(place.url), data)
    assert made.facts["counts"]["skipped"] == {"malformed_answer": 1}
    assert len(made.rows) == 5
    assert len(place.seen) == 6


def test_a_row_that_the_server_refuses_is_skipped_with_what_it_says(data: Path) -> None:
    said = {"error": {"message": "maximum context is 4096 tokens\x1b[31m", "code": 400}}

    def behave(handler: Handler, request: Seen, before: int) -> None:
        if "add(3," in request.body["messages"][0]["content"]:
            handler.reply(400, json.dumps(said).encode())
        else:
            echo(handler, request, before)

    with serving(behave) as place:
        made = run(served(place.url), data)
    [skipped] = made.facts["skipped"]
    assert skipped["reason"] == "refused_by_server"
    assert skipped["detail"] == (
        r"the server answers with status 400: maximum context is 4096 tokens\x1b[31m"
    )
    assert len(place.seen) == 6


@pytest.mark.parametrize("status", [401, 403, 404, 301, 307])
def test_other_refusals_end_the_run_at_once(data: Path, tmp_path: Path, status: int) -> None:
    def behave(handler: Handler, request: Seen, before: int) -> None:
        if "add(0," in request.body["messages"][0]["content"]:
            echo(handler, request, before)
        else:
            time.sleep(0.1)
            handler.reply(status, b'{"detail": "no such thing"}', Location="http://192.0.2.1/v1")

    with serving(behave) as place:
        with pytest.raises(EnvironmentFailure, match=f"status {status}.*no such thing") as failed:
            run(served(place.url, concurrency=2), data, tmp_path / "p.jsonl")
        assert len(place.seen) <= 3
        assert failed.value.hint
    assert len(read_rows(tmp_path / "p.partial.jsonl")) == 2


def test_a_server_that_stays_away_ends_the_run_and_what_is_there_is_kept(
    data: Path, tmp_path: Path
) -> None:
    def behave(handler: Handler, request: Seen, before: int) -> None:
        if len(place.seen) > 3:
            handler.reply(503, b"overloaded")
        else:
            echo(handler, request, before)

    with (
        serving(behave) as place,
        pytest.raises(EnvironmentFailure, match=r"status 503: overloaded \(4 tries\)"),
    ):
        run(served(place.url, concurrency=1), data, tmp_path / "p.jsonl")
    assert len(read_rows(tmp_path / "p.partial.jsonl")) == 4
    closed = place.url
    with pytest.raises(EnvironmentFailure, match="refuses connections"):
        run(served(closed), data)


def test_an_interrupted_run_asks_only_for_the_rest(data: Path, tmp_path: Path) -> None:
    asked = threading.Event()

    def hang(handler: Handler, request: Seen, before: int) -> None:
        if "add(5," in request.body["messages"][0]["content"] and not asked.is_set():
            asked.set()
            time.sleep(0.3)
            handler.reply(401, b"")
        else:
            echo(handler, request, before)

    with serving(hang) as place:
        model = served(place.url)
        with pytest.raises(EnvironmentFailure):
            run(model, data, tmp_path / "p.jsonl")
        assert len(read_rows(tmp_path / "p.partial.jsonl")) == 6
        run(model, data, tmp_path / "p.jsonl")
        assert len(place.seen) == 7
        run(model, data, tmp_path / "whole.jsonl")
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def tell_the_key(handler: Handler, request: Seen, _: int) -> None:
    key = request.headers.get("Authorization", "")
    handler.reply(400, json.dumps({"error": {"message": f"bad key: {key}"}}).encode())


def test_the_key_is_sent_and_told_to_nobody(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving() as place:
        model = served(place.url, key_variable="MY_KEY")
        run(model, data, tmp_path / "p.jsonl")
        assert {seen.headers["Authorization"] for seen in place.seen} == {f"Bearer {KEY}"}
    assert KEY not in repr(model)
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes(), path
    with serving(tell_the_key) as place, pytest.raises(DataError) as failed:
        run(served(place.url, key_variable="MY_KEY"), data, tmp_path / "q.jsonl")
    assert "Bearer [key]" in str(failed.value)
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes(), path


def test_a_redirect_does_not_take_the_key_along(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving() as other, serving(moved_to(other)) as place:
        with pytest.raises(EnvironmentFailure, match="points to http://127"):
            run(served(place.url, key_variable="MY_KEY"), data)
        assert other.seen == []


def moved_to(other: ChatServer) -> Behave:
    return lambda handler, *_: handler.reply(308, b"", Location=f"{other.url}/chat/completions")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://example.org/v1", "not an http or https address"),
        ("example.org/v1", "not an http or https address"),
        ("http:///v1", "not an http or https address"),
        ("http://host:99999/v1", "not an address"),
        ("http://host\r\nX: y/v1", "not an"),
        ("https://user:secret@example.org/v1", "more than host, port and path"),
        ("https://example.org/v1?key=secret", "more than host, port and path"),
        ("http://ex ample.org/", "not an http or https address"),
        ("http://example.org\n/v1", "not an http or https address"),
    ],
)
def test_addresses_that_are_none_are_refused_without_repeating_secrets(
    url: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem) as refused:
        open_endpoint(url)
    assert "secret" not in str(refused.value)


def test_a_key_is_refused_where_it_would_be_read_by_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(UsageError, match="NOT_THERE is not set"):
        open_endpoint("https://example.org/v1", key_variable="NOT_THERE")
    monkeypatch.setenv("MY_KEY", KEY)
    with pytest.raises(UsageError, match="unencrypted"):
        open_endpoint("http://192.0.2.7/v1", key_variable="MY_KEY")
    assert open_endpoint("https://192.0.2.7/v1", key_variable="MY_KEY").key == KEY
    assert open_endpoint("http://[::1]:8000/v1/", key_variable="MY_KEY").shown == (
        "http://[::1]:8000/v1"
    )
    monkeypatch.setenv("MY_KEY", "two\nlines")
    with pytest.raises(UsageError, match="cannot be a key") as refused:
        open_endpoint("https://192.0.2.7/v1", key_variable="MY_KEY")
    assert "lines" not in str(refused.value)


def test_offline_means_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert open_endpoint(f"http://{host}:1/v1", offline=True)
    for host in ("192.0.2.7", "example.org", "localhost.example.org", "0.0.0.0"):
        with pytest.raises(EnvironmentFailure, match="offline"):
            open_endpoint(f"http://{host}:1/v1", offline=True)


def test_proxies_of_the_environment_are_not_used(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    with serving() as place:
        assert len(run(served(place.url), data).rows) == 6


def test_a_slow_drip_ends_at_the_time_limit() -> None:
    with serving(lambda handler, *_: handler.drip(5.0)) as place:
        endpoint = open_endpoint(place.url, timeout_seconds=0.3)
        start = time.monotonic()
        with pytest.raises(client.NoReplyError, match=r"no answer within 0\.3 s"):
            endpoint.post("/chat/completions", {"messages": [{"content": "q"}], "seed": 1})
        assert time.monotonic() - start < 2
