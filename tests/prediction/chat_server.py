"""A small server that speaks the chat completions protocol, and misbehaves as a test wants."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Behave = Callable[["Handler", Seen, int], None]


@dataclass
class ChatServer:
    """What happens at the server; `behave` gets each request and how often it came before."""

    behave: Behave
    seen: list[Seen] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    open_now: int = 0
    most_open: int = 0
    lock: Any = field(default_factory=threading.Lock)
    url: str = ""

    def prompts(self) -> list[str]:
        return [request.body["messages"][-1]["content"] for request in self.seen]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        request = Seen(self.path, dict(self.headers), json.loads(raw))
        place: ChatServer = self.server.place
        key = request.body["messages"][-1]["content"] + str(request.body["seed"])
        with place.lock:
            before = place.tries.get(key, 0)
            place.tries[key] = before + 1
            place.seen.append(request)
            place.open_now += 1
            place.most_open = max(place.most_open, place.open_now)
            self.is_open = True
        try:
            place.behave(self, request, before)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.close_request()

    def close_request(self) -> None:
        """Count this request no more: whoever has its answer may send the next one."""
        place: ChatServer = self.server.place
        with place.lock:
            place.open_now -= self.is_open
            self.is_open = False

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.close_request()
        self.wfile.write(body)

    def complete(self, text: str | None, finish: str = "stop", **message: Any) -> None:
        value = {
            "id": "x",
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, **message},
                    "finish_reason": finish,
                }
            ],
            "usage": {"prompt_tokens": 21, "completion_tokens": 5, "total_tokens": 26},
        }
        self.reply(200, json.dumps(value).encode("utf-8"))

    def cut(self, body: bytes, length: int) -> None:
        """Promise more than is sent."""
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def drip(self, seconds: float) -> None:
        """Send a byte now and then, without end."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.05)

    def log_message(self, *_: Any) -> None:
        pass


def echo(handler: Handler, request: Seen, _: int) -> None:
    handler.complete(f"echo {request.body['messages'][-1]['content']}")


@contextmanager
def serving(behave: Behave = echo) -> Iterator[ChatServer]:
    """Serve until the block ends; `url` is what --api-base takes."""
    place = ChatServer(behave)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.place = place  # type: ignore[attr-defined]
    place.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield place
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
