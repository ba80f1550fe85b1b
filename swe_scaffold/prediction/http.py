"""One POST of JSON to one host: time limit, size limit, and a key that goes nowhere else."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from swe_scaffold.errors import EnvironmentFailure, UsageError
from swe_scaffold.hub import is_offline
from swe_scaffold.strict_json import encode
from swe_scaffold.terminal import show
from swe_scaffold.version import VERSION

MAX_RESPONSE_BYTES = 4 << 20
TIMEOUT_SECONDS = 600.0
CONNECT_SECONDS = 20.0
_CHUNK = 1 << 16


class NoReplyError(Exception):
    """No whole reply came: no connection, too late, or cut off; another try may help."""


@dataclass(frozen=True, slots=True)
class Response:
    """What came back; a body that is not `complete` went on beyond the limit.

    `retry_after` are the seconds the server asks to be left alone for, `location` where it points.
    """

    status: int
    body: bytes
    complete: bool
    retry_after: float | None
    location: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address, and the key for it; `shown` has no secrets. Made by `open_endpoint`."""

    scheme: str
    host: str
    port: int | None
    path: str
    timeout_seconds: float
    key: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """The address as people and records may see it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def without_key(self, text: str) -> str:
        """Return a text of the server's in which the key is not spelt."""
        return text.replace(self.key, "[key]") if self.key else text

    def post(self, path: str, body: Mapping[str, Any]) -> Response:
        """Send a JSON object and read what comes back.

        Raises:
            NoReplyError: Nothing whole came back within the time limit.
        """
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": f"swe-scaffold/{VERSION}",
        }
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        connection = self._connection()
        late = threading.Event()
        try:
            connection.connect()
            with _deadline(connection, self.timeout_seconds, late):
                connection.request("POST", f"{self.path}{path}", encode(dict(body)), headers)
                return _read(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError) as error:
            if late.is_set() or isinstance(error, TimeoutError):
                message = f"no answer within {self.timeout_seconds:g} s"
            else:
                message = _reason(error)
            raise NoReplyError(message) from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        seconds = min(CONNECT_SECONDS, self.timeout_seconds)
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self.host, self.port, timeout=seconds, context=context)


def open_endpoint(
    url: str,
    *,
    key_variable: str = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
    offline: bool = False,
) -> Endpoint:
    """Check an address, and read the key for it from the environment.

    Args:
        url: Where `/chat/completions` begins, such as `http://127.0.0.1:8000/v1`.
        key_variable: Name of the environment variable that holds the key; empty for none.
        timeout_seconds: Longest wait for one answer.
        offline: Take only servers of this machine.

    Raises:
        UsageError: No such address, no such variable, or a key that would go over plain HTTP.
        EnvironmentFailure: The run is offline and the server is elsewhere.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError("not an address", where=f"--api-base {show(url)}") from None
    host = parts.hostname or ""
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not host or not plain:
        hint = "as in http://127.0.0.1:8000/v1"
        raise UsageError("not an http or https address", where=f"--api-base {show(url)}", hint=hint)
    if parts.username is not None or parts.query or parts.fragment:
        hint = "a key is read from the environment: --api-key-env NAME"
        raise UsageError("has more than host, port and path", where="--api-base", hint=hint)
    if not 0 < timeout_seconds <= 86_400:
        raise UsageError(
            f"the time limit must be above 0 s and at most a day, not {timeout_seconds:g} s"
        )
    near = _is_this_machine(host)
    if not near and is_offline(offline):
        raise EnvironmentFailure(
            "the run is offline, and this server is not on this machine", where=host
        )
    key = _key(key_variable) if key_variable else ""
    if key and parts.scheme == "http" and not near:
        hint = "use https, or leave --api-key-env out"
        raise UsageError("the key would be sent unencrypted", where=f"--api-base {url}", hint=hint)
    return Endpoint(parts.scheme, host, port, parts.path.rstrip("/"), timeout_seconds, key)


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"the environment variable {show(variable, width=80)} is not set", where="--api-key-env"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError(f"what {variable} holds cannot be a key", where="--api-key-env")
    return key


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def _deadline(
    connection: http.client.HTTPConnection, seconds: float, late: threading.Event
) -> Iterator[None]:
    """Break the connection off after some seconds, however slowly something still comes."""
    sock = connection.sock
    sock.settimeout(seconds)

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _read(response: http.client.HTTPResponse) -> Response:
    chunks: list[bytes] = []
    size = 0
    # `read` of an amount does not tell a body that ends early; what is left of its length does.
    while size <= MAX_RESPONSE_BYTES and (chunk := response.read(_CHUNK)):
        chunks.append(chunk)
        size += len(chunk)
    if size <= MAX_RESPONSE_BYTES and response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return Response(
        status=response.status,
        body=b"".join(chunks)[:MAX_RESPONSE_BYTES],
        complete=size <= MAX_RESPONSE_BYTES,
        retry_after=_seconds(response.getheader("Retry-After", "")),
        location=response.getheader("Location", ""),
    )


def _seconds(value: str) -> float | None:
    """Read Retry-After: seconds, or a date."""
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _reason(error: Exception) -> str:
    """Put a failed request into a few words."""
    if isinstance(error, http.client.IncompleteRead):
        return "the server's answer was cut off"
    if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
        broken = isinstance(error, ConnectionRefusedError)
        return "the server refuses connections" if broken else "the server broke the connection off"
    if isinstance(error, socket.gaierror):
        return "the server's name is not known"
    if isinstance(error, ssl.SSLError):
        return f"no safe connection: {show(error.reason or error, width=120)}"
    if isinstance(error, http.client.HTTPException):
        return f"the server does not speak HTTP ({type(error).__name__})"
    return f"the server cannot be reached ({show(error, width=120)})"
