"""The way from a sandbox to one address: whole streams both ways, until the block ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swe_scaffold.walkthrough import relay

SIZE = 3_000_000


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that reads to the end, and then says it all again."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with client:
            read = bytearray()
            while block := client.recv(65536):
                read += block
            client.sendall(read)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def exchange(client: socket.socket, data: bytes) -> bytes:
    with client:
        client.settimeout(20)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def test_what_is_sent_arrives_whole_both_ways(echo: int, tmp_path: Path) -> None:
    data = bytes(range(256)) * (SIZE // 256)
    with relay.passing_to(str(tmp_path / "s"), "127.0.0.1", echo):
        first, second = connected(tmp_path / "s"), connected(tmp_path / "s")
        assert exchange(second, b"short") == b"short"
        assert exchange(first, data) == data
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(tmp_path / "s"))


def test_a_server_that_is_not_there_ends_the_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with relay.passing_to(str(tmp_path / "s"), "127.0.0.1", port):
        client = connected(tmp_path / "s")
        client.settimeout(20)
        with client:
            assert client.recv(1) == b""


def test_the_program_inside_becomes_the_command(echo: int, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5);"
        "s.sendall(b'hello'); s.shutdown(1); print(s.recv(9).decode()); raise SystemExit(7)"
    )
    line = [sys.executable, "-I", "-S", relay.__file__, str(port), str(tmp_path / "s")]
    with relay.passing_to(str(tmp_path / "s"), "127.0.0.1", echo):
        child = subprocess.Popen(
            [*line, sys.executable, "-c", code, str(port)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            said, _ = child.communicate(timeout=20)
        finally:
            # In a sandbox what passes on ends with it.
            os.killpg(child.pid, signal.SIGKILL)
    assert (said, child.returncode) == (b"hello\n", 7)
