"""An export to the hub: only when asked, private unless asked otherwise, nothing but its files.

The token is taken from the environment, is sent to the configured hub alone, over https or to this
very machine, and is never printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from swe_scaffold.errors import EnvironmentFailure, IntegrityError, MissingExtra, UsageError
from swe_scaffold.hub import is_hub_id, is_offline
from swe_scaffold.terminal import Reporter, show

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_DEFAULT = "https://huggingface.co"
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Hub:
    """A repository that may be written, as far as was asked; `existing` if it was there before."""

    repository: str
    public: bool
    existing: bool
    api: Any

    @property
    def visibility(self) -> str:
        """In a word."""
        return "public" if self.public else "private"


def open_hub(repository: str, *, public: bool, offline: bool) -> Hub:
    """Ask the hub about a repository, before any work is done.

    Raises:
        UsageError: Not `owner/name`, or the run is offline.
        EnvironmentFailure: No token, or the hub refuses or does not answer.
        IntegrityError: The repository is there with another visibility.
    """
    if not is_hub_id(repository):
        raise UsageError(f"{show(repository)} is not owner/name", where="--push")
    if is_offline(offline):
        raise UsageError("needs the network, and the run is offline", where="--push")
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT
    address = urlsplit(endpoint)
    if address.scheme != "https" and address.hostname not in _LOCAL:
        raise UsageError(
            "the token is sent over https only", where="HF_ENDPOINT", hint="name an https address"
        )
    token = next((value for name in TOKENS if (value := os.environ.get(name, "").strip())), "")
    if not token:
        raise EnvironmentFailure(
            "there is no token for the hub", where="HF_TOKEN", hint="set it to one that may write"
        )
    api = _library().HfApi(endpoint=endpoint, token=token)
    private = _visibility(api, repository)
    hub = Hub(repository, public, private is not None, api)
    if private is not None:
        _require_same(hub, private)
    return hub


def push(hub: Hub, folder: Path, names: Iterable[str], reporter: Reporter) -> str:
    """Show what is uploaded, upload it, and return its address.

    Raises:
        EnvironmentFailure: The hub refuses or does not answer; the export stays where it is.
        IntegrityError: The new repository has another visibility than was asked for.
    """
    files = sorted(names)
    total = 0
    for name in files:
        size = (folder / name).stat().st_size
        total += size
        reporter.say(f"to upload: {show(name)}  {size:,} bytes")
    reporter.say(
        f"uploading {len(files)} files, {total:,} bytes, to {hub.repository} ({hub.visibility}"
        f"{', a further commit' if hub.existing else ''})"
    )
    hint = f"the export is complete in {folder}; to try again: export --overwrite --push"
    if not hub.existing:
        _ask(
            hub.repository,
            hint,
            lambda: hub.api.create_repo(
                hub.repository, repo_type="model", private=not hub.public, exist_ok=False
            ),
        )
        _require_same(hub, bool(_visibility(hub.api, hub.repository)))
    commit = _ask(
        hub.repository,
        hint,
        lambda: hub.api.upload_folder(
            repo_id=hub.repository,
            repo_type="model",
            folder_path=folder,
            allow_patterns=files,
            commit_message="Export by swe-scaffold",
        ),
    )
    return str(getattr(commit, "commit_url", "") or hub.repository)


def _require_same(hub: Hub, private: bool) -> None:
    if private is hub.public:
        there = "private" if private else "public"
        raise IntegrityError(
            f"the repository is {there}, and {hub.visibility} was asked for; nothing is uploaded",
            where=hub.repository,
            hint="choose another name, or change the repository on the hub",
        )


def _visibility(api: Any, repository: str) -> bool | None:
    """Return whether a repository is private, None where there is none that we may see."""
    errors = _library().errors

    def ask() -> Any:
        try:
            return api.repo_info(repository, repo_type="model", timeout=30)
        except errors.GatedRepoError:
            raise
        except errors.RepositoryNotFoundError:
            return None

    info = _ask(repository, "", ask)
    return None if info is None else bool(info.private)


def _ask(repository: str, hint: str, call: Any) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 the library raises its own, httpx's and OS errors
        status = getattr(getattr(error, "response", None), "status_code", None)
        # No text of the error: it may repeat the request.
        said = f"the hub answers with status {status}" if status else type(error).__name__
        raise EnvironmentFailure(said, where=repository, hint=hint) from None


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "train") from error
    return huggingface_hub
