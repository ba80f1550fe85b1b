"""One way out of a sandbox without a network: a port in it leads to one address outside.

    python -I -S relay.py PORT SOCKET COMMAND...

Inside, this program listens on 127.0.0.1:PORT, passes what comes to the Unix socket SOCKET, and
becomes COMMAND. Outside, `passing_to` listens on that socket and passes on to one address.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator

_CHUNK = 1 << 16
_CONNECT_SECONDS = 20.0

Connect = Callable[[], socket.socket]


@contextlib.contextmanager
def passing_to(path: str, host: str, port: int) -> Iterator[None]:
    """Pass whatever connects to a Unix socket on to an address, until the block ends.

    Args:
        path: Where the socket is made; its folder is private.
        host: The one host that can be reached.
        port: The one port.

    Raises:
        OSError: The socket cannot be made there.
    """
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(
            target=_serve,
            args=(listener, lambda: socket.create_connection((host, port), _CONNECT_SECONDS)),
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            # Closing alone would not wake who waits for the next one.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, connect: Connect) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_carry, args=(client, connect), daemon=True).start()


def _carry(client: socket.socket, connect: Connect) -> None:
    """Be the two directions of one connection, until both have ended."""
    with client:
        try:
            server = connect()
        except OSError:
            return
        with server:
            server.settimeout(None)
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(_CHUNK):
            target.sendall(block)
    # The other side learns that there is no more, and may still answer.
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _to_socket(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(path)
    except OSError:
        server.close()
        raise
    return server


def main() -> None:
    """Listen, leave a child to pass on, and become the command."""
    port, path, *command = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", int(port)))
    if os.fork() == 0:
        # What the command says must have an end when the command has.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        _serve(listener, lambda: _to_socket(path))
        os._exit(0)
    listener.close()
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
