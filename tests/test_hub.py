"""Names of models: what counts as one, and what happens when the hub is silent or absent."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from swe_scaffold import hub
from swe_scaffold.errors import EnvironmentFailure, UsageError
from swe_scaffold.hub import is_hub_id, is_offline, resolve_model_folder, resolve_snapshot

NAME = "owner/some-model"


def get(name: str, **options: object) -> Path:
    return resolve_model_folder(name, **{"patterns": ["*.json"], "offline": False, **options})


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The hub library as it is without the tests' offline switch, with a token to lose."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    return monkeypatch


@pytest.fixture
def server(online: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """A hub that knows no repository and remembers what it was asked."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{httpd.server_port}")
    yield seen
    httpd.shutdown()
    httpd.server_close()


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get(str(tmp_path), offline=True) == tmp_path
    (tmp_path / "owner" / "some-model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert get(NAME, offline=True) == Path(NAME)


@pytest.mark.parametrize(
    "name",
    [
        *("", "-rf", "--config", "model", "a/b/c", "../x", "./x", "/no/such/folder", "~/no-such"),
        *(
            "https://huggingface.co/a/b",
            "file:///etc",
            "zip://x::http://y",
            "a/b\n",
            "a/b ",
            "a/..b",
        ),
        *("owner/\0", "ö/b", "owner/-x", "a" * 5000),
    ],
)
def test_anything_else_is_refused_before_a_connection(name: str) -> None:
    with pytest.raises(UsageError):
        get(name)


@pytest.mark.parametrize("revision", ["-x", "", "a b", "a\n"])
def test_odd_revisions_are_refused(revision: str) -> None:
    with pytest.raises(UsageError):
        get(NAME, revision=revision)


def test_offline_comes_from_the_flag_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, offline in (("1", True), ("true", True), ("0", False), ("", False)):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert is_offline() is offline
        assert is_offline(True)


def test_offline_asks_nobody_and_says_how_to_go_on(server: list[dict[str, str]]) -> None:
    with pytest.raises(EnvironmentFailure, match="offline") as caught:
        get(NAME, offline=True)
    assert "local folder" in caught.value.hint
    assert server == []


def test_a_token_stays_home_without_https(server: list[dict[str, str]]) -> None:
    with pytest.raises(EnvironmentFailure, match="no such repository"):
        get(NAME)
    assert server
    assert all("authorization" not in headers for headers in server)
    assert "hf_canary" not in str(server)


def test_a_silent_hub_ends_in_one_line_within_seconds(online: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        online.setattr(hub, "CONTACT_SECONDS", 0.3)
        start = time.monotonic()
        with pytest.raises(EnvironmentFailure) as caught:
            get(NAME)
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    assert NAME in str(caught.value)


def test_a_hub_that_trickles_ends_in_time_too(online: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not stop.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        online.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        online.setattr(hub, "CONTACT_SECONDS", 0.4)
        start = time.monotonic()
        with pytest.raises(EnvironmentFailure, match="does not answer"):
            get(NAME)
        assert time.monotonic() - start < 5
        stop.set()
        thread.join()


def test_an_earlier_download_serves_when_the_hub_is_away(online: pytest.MonkeyPatch) -> None:
    online.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    cache = Path(os.environ["HF_HOME"]) / "hub" / "models--owner--cached"
    commit = "0" * 40
    snapshot = cache / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text("{}")
    for offline in (True, False):
        found = resolve_snapshot(
            "owner/cached", repo_type="model", patterns=["*.json"], offline=offline
        )
        assert (found / "config.json").read_text() == "{}"


def test_hub_ids_have_an_owner_and_a_name() -> None:
    assert is_hub_id("Qwen/Qwen2.5-3B-Instruct")
    assert not is_hub_id("Qwen")
    assert not is_hub_id("a" * 300 + "/b")
