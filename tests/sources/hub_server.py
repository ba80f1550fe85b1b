"""A hub on this machine for one process: run with a folder, prints one JSON document of outcomes.

Each repository answers in its own way; `good/...` ones serve files. A process of its own, because
the hub library reads its environment once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROW = '{"instance_id": "a__b-%d", "problem_statement": "p", "patch": "x"}\n'
CARD = (
    "---\nconfigs:\n- config_name: other\n  data_files: []\n- config_name: default\n"
    "  data_files:\n  - split: hard\n    path: data/h*.jsonl\n"
    "  - split: dev\n    path: [data/d.jsonl]\n---\n# Card\n"
)
REPOSITORIES: dict[str, dict[str, str]] = {
    "good/named": {
        "data/test-00000-of-00001.jsonl": ROW % 1,
        "data/train-00000-of-00002.jsonl": ROW % 2,
        "data/train-00001-of-00002.jsonl": ROW % 3,
        ".hidden/train.jsonl": ROW % 9,
        "dataset_infos.json": "{}",
        "load.py": "raise SystemExit('never run')",
    },
    "good/card": {
        "README.md": CARD,
        "data/d.jsonl": ROW % 1,
        "data/h1.jsonl": ROW % 2,
        "data/h2.jsonl": ROW % 3,
        "data/more.jsonl": ROW % 9,
    },
    "good/plain": {"rows.jsonl": ROW % 1, "rows.csv": "problem_statement\np\n"},
    "good/script": {"load.py": "1"},
    "good/climbs": {"../../../../rows.jsonl": ROW % 9, "/etc/rows.jsonl": ROW % 9},
    "slow/files": {"train.jsonl": ROW % 1},
    "bad/half": {"train.jsonl": ROW % 1 * 50},
    "bad/forged": {"train.jsonl": ROW % 1},
}


class Hub(BaseHTTPRequestHandler):
    """Answers as the repository's name says."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[1:3])
        if name.startswith("status/"):
            self.answer(int(name.removeprefix("status/")), b"{}")
        elif name == "slow/start" or (name == "slow/files" and "tree" in parts):
            time.sleep(60)
        elif name not in REPOSITORIES:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif not api:
            self.send_file(name, "/".join(parts[5:]))
        elif "tree" in parts:
            self.answer(200, json.dumps(tree(name)).encode())
        else:
            self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode())

    def send_file(self, name: str, file: str) -> None:
        content = REPOSITORIES[name].get(file, "").encode()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        sent = content[: len(content) // 2] if name == "bad/half" else content
        self.answer(200, sent, {**headers, "Content-Length": str(len(content))})
        if name == "bad/half":
            self.close_connection = True

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def tree(name: str) -> list[dict[str, Any]]:
    entries = []
    for path, text in REPOSITORIES[name].items():
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(text), "oid": sha256}
        if name == "bad/forged":
            entry["lfs"] = {"oid": "f" * 64, "size": len(text), "pointerSize": 1}
        entries.append(entry)
    return entries


def attempt(name: str, **options: Any) -> dict[str, Any]:
    """What `open_source` makes of one name, in words and seconds."""
    from swe_scaffold.errors import ScaffoldError
    from swe_scaffold.sources import open_source

    start = time.monotonic()
    try:
        source = open_source(name, **options)
        ids = [item.instance_id for item in source]
        outcome: dict[str, Any] = {
            "ids": ids,
            "notes": source.notes,
            "inputs": [entry.path for entry in source.inputs],
        }
    except ScaffoldError as error:
        outcome = {"kind": type(error).__name__, "error": str(error), "hint": error.hint}
    return {**outcome, "seconds": time.monotonic() - start}


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    os.environ.update(HF_ENDPOINT=url, HF_HOME=sys.argv[1], HF_TOKEN="hf_secret")
    os.environ.pop("HF_HUB_OFFLINE", None)
    calls = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    outcomes: dict[str, dict[str, Any]] = {}

    def run(label: str, steps: list[dict[str, Any]]) -> None:
        for number, step in enumerate(steps):
            if step.pop("hub", None) == "gone":
                os.environ["HF_ENDPOINT"] = "http://127.0.0.1:1"
            outcomes[label if len(steps) == 1 else f"{label}.{number}"] = attempt(**step)

    import huggingface_hub  # noqa: F401  loaded once here, so that the seconds are those of the hub

    for batch in calls:
        threads = [threading.Thread(target=run, args=item) for item in batch.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.stdout.write(json.dumps(outcomes))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
