"""What every test stands on: one thread, a hub cache of its own, no network, the shared real data.

The environment is set here, before any test imports torch or a hub library: both read it once.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

HUB_CACHE = tempfile.mkdtemp(prefix="swe-scaffold-tests-")
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HOME=HUB_CACHE,
    SWE_SCAFFOLD_CACHE="off",
    TOKENIZERS_PARALLELISM="false",
    # mini-swe-agent makes a folder for its settings where it is imported, and greets.
    MSWEA_GLOBAL_CONFIG_DIR=f"{HUB_CACHE}/mini",
    MSWEA_SILENT_STARTUP="1",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
)

# The same examples on every run, and no verdict on how busy the machine is.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

# A script's background job starts with SIGINT ignored, under nohup with SIGHUP ignored; the package
# leaves ignored signals alone, so tests that send them need what a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine; no OSError, or the code under test might forgive it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="run the tests marked network")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--network"):
        for item in items:
            if item.get_closest_marker("network"):
                item.add_marker(pytest.mark.skip(reason="needs the network: pass --network"))


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(HUB_CACHE, ignore_errors=True)


def is_local(host: object) -> bool:
    """Whether a host, as given to `socket`, is this machine."""
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name in ("", "localhost", socket.gethostname()):
        return True
    plain = str(name).partition("%")[0]
    try:
        return ipaddress.ip_address(plain).is_loopback or plain in own_addresses()
    except ValueError:
        return False


@functools.cache
def own_addresses() -> frozenset[str]:
    """The addresses of this machine's own interfaces."""
    import psutil

    interfaces = psutil.net_if_addrs().values()
    return frozenset(entry.address for entries in interfaces for entry in entries)


def guarded(method: Any) -> Any:
    """A `socket.socket` method that takes an address, refusing addresses elsewhere."""

    def call(self: socket.socket, address: Any, *rest: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_local(address[0]):
            raise NetworkBlocked(f"a test tried to connect to {address!r}")
        return method(self, address, *rest)

    return call


@pytest.fixture(scope="session", autouse=True)
def no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refuse connections and name look-ups that leave this machine, unless --network is given."""
    look_up = socket.getaddrinfo

    def local_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_local(host):
            raise NetworkBlocked(f"a test tried to look up {host!r}")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        if not request.config.getoption("--network"):
            patch.setattr(socket, "getaddrinfo", local_look_up)
            patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
            patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real tasks, trajectories and tokenizer that stand beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real data in ../shared/data")
    return SHARED_DATA
