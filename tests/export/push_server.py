"""A hub on this machine that takes uploads: run with a run folder, prints what happened as JSON.

A process of its own, because the hub library reads its environment once.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret_of_the_user"
# Repositories that are there, and whether they are private.
PRIVATE: dict[str, bool] = {"o/private": True, "o/public": False}
REQUESTS: list[dict[str, Any]] = []
UPLOADED: dict[str, dict[str, bytes]] = {}


class Hub(BaseHTTPRequestHandler):
    """Just the requests that creating a repository and committing to it take."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4])
        self.keep(None)
        if name == "o/forbidden":
            self.answer(403, {"error": f"no, {self.headers.get('Authorization')}"})
        elif name in PRIVATE:
            known = {"id": name, "sha": COMMIT, "siblings": [], "private": PRIVATE[name]}
            self.answer(200, known)
        else:
            self.answer(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4])
        if self.path == "/api/repos/create":
            self.create(json.loads(data))
        elif "preupload" in parts:
            files = json.loads(data)["files"]
            self.answer(
                200,
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in files
                    ]
                },
            )
        elif "commit" in parts:
            self.commit(name, data)
        else:
            self.answer(200, {"errors": [], "warnings": []})

    def create(self, body: dict[str, Any]) -> None:
        self.keep(body)
        name = f"{body.get('organization')}/{body['name']}"
        # A hub may have rules of its own.
        PRIVATE[name] = name != "o/wayward" and body.get("visibility") == "private"
        self.answer(200, {"url": f"{self.url()}/{name}", "name": name, "id": name})

    def commit(self, name: str, data: bytes) -> None:
        lines = [json.loads(line) for line in data.split(b"\n") if line]
        self.keep(lines[0]["value"])
        for line in lines[1:]:
            value = line["value"]
            UPLOADED.setdefault(name, {})[value["path"]] = base64.b64decode(value["content"])
        if name == "o/broken":
            self.answer(500, {"error": "out of order"})
            return
        self.answer(
            200,
            {
                "commitUrl": f"{self.url()}/{name}/commit/{COMMIT}",
                "commitOid": COMMIT,
                "success": True,
            },
        )

    def keep(self, body: Any) -> None:
        token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        REQUESTS.append(
            {"method": self.command, "path": self.path.split("?")[0], "token": token, "body": body}
        )

    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(body)


def attempt(run: Path, output: Path, **options: Any) -> dict[str, Any]:
    """What comes of one export that is to be pushed."""
    from swe_scaffold.errors import ScaffoldError
    from swe_scaffold.export import ExportOptions, export_model
    from swe_scaffold.terminal import Reporter

    said: list[str] = []

    class Listener(Reporter):
        def say(self, message: str, *, level: int = 0) -> None:
            said.append(message)

    REQUESTS.clear()
    UPLOADED.clear()
    outcome: dict[str, Any] = {}
    try:
        result = export_model(run, output, ExportOptions(**options), reporter=Listener(0))
        outcome["url"] = result.url
    except ScaffoldError as error:
        outcome = {
            "kind": type(error).__name__,
            "error": str(error),
            "hint": error.hint,
            "code": error.exit_code,
        }
    name = options.get("push", "")
    same = {
        file: (output / file).read_bytes() == data for file, data in UPLOADED.get(name, {}).items()
    }
    here = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    return {**outcome, "said": said, "requests": list(REQUESTS), "uploaded": same, "here": here}


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run, place = Path(sys.argv[1]), Path(sys.argv[2])
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"

    def push(name: str, output: str, **options: Any) -> dict[str, Any]:
        return attempt(run, place / output, push=name, **options)

    outcomes = {"no token": push("o/new", "no-token")}
    os.environ["HF_TOKEN"] = TOKEN
    outcomes |= {
        "new": push("o/new", "new"),
        "new, public": push("o/open", "open", public=True),
        "adapter": push("o/adapter", "adapter", adapter_only=True),
        "there, private": push("o/private", "private"),
        "there, public": push("o/public", "public"),
        "there, private, public asked": push("o/private", "private-2", public=True),
        "forbidden": push("o/forbidden", "forbidden"),
        "wayward": push("o/wayward", "wayward"),
        "broken": push("o/broken", "broken"),
        "offline": push("o/new", "offline", offline=True),
        "no name": push("../new", "no-name"),
        "public alone": attempt(run, place / "alone", public=True),
        "not asked": attempt(run, place / "not-asked"),
    }
    os.environ["HF_ENDPOINT"] = "http://192.0.2.1"
    outcomes["plain http"] = push("o/new", "plain")
    sys.stdout.write(json.dumps(outcomes) + "\n")


if __name__ == "__main__":
    main()
