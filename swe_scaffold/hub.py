"""From a name a user wrote to a folder on this machine: local folders first, then hub ids.

Only names are judged and files fetched here; what is in the folder is read by the rooms above. The
first word from the hub must come within seconds, or the user is told how to go on without it. The
user's token goes to the configured hub alone, and over https alone.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swe_scaffold.errors import EnvironmentFailure, MissingExtra, UsageError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)
CONTACT_SECONDS = 8.0
LOCAL_HINT = "name a local folder instead, or fetch the files once while online"


def is_hub_id(name: str) -> bool:
    """Say whether a name has the shape `owner/name` of the hub."""
    return len(name) <= 200 and HUB_ID.fullmatch(name) is not None and ".." not in name


def is_offline(offline: bool = False) -> bool:
    """Say whether the hub must not be asked: the flag, or HF_HUB_OFFLINE in the environment."""
    return offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def resolve_model_folder(
    name: str, *, patterns: Sequence[str], offline: bool, revision: str | None = None
) -> Path:
    """Return the folder of a model: `name` itself if it is a folder, else a snapshot from the hub.

    Args:
        name: A local folder or a hub id.
        patterns: Glob patterns of the files wanted from the hub.
        offline: Use only what is on this machine.
        revision: Branch, tag or commit on the hub.

    Raises:
        UsageError: `name` is neither a folder nor a hub id.
        EnvironmentFailure: The hub does not answer, refuses, or has no such model.
    """
    local = local_folder(name)
    if local is not None:
        return local
    return resolve_snapshot(
        name, repo_type="model", patterns=patterns, offline=offline, revision=revision
    )


def local_folder(name: str) -> Path | None:
    """Return the existing local folder of that name, or None; odd names are refused."""
    if not name or name.startswith("-") or "\0" in name or "://" in name:
        raise UsageError(
            f"{name!r} is not a folder or a hub id", hint="a hub id looks like owner/name"
        )
    folder = Path(name).expanduser()
    try:
        return folder if folder.is_dir() else None
    except OSError:
        return None


def resolve_snapshot(
    name: str,
    *,
    repo_type: str,
    patterns: Sequence[str],
    offline: bool,
    revision: str | None = None,
) -> Path:
    """Return the local snapshot of a hub repository (`repo_type` "model" or "dataset").

    Without an answer from the hub within seconds, a complete earlier download is used.

    Raises:
        UsageError: The name or revision has no legal shape.
        EnvironmentFailure: Nothing usable here and the hub does not answer or refuses.
    """
    if not is_hub_id(name):
        raise UsageError(
            f"{name!r} is not a folder or a hub id", hint="a hub id looks like owner/name"
        )
    if revision is not None and not REVISION.fullmatch(revision):
        raise UsageError(f"{revision!r} is not a revision")
    request = {"repo_type": repo_type, "revision": revision, "allow_patterns": list(patterns)}
    if is_offline(offline):
        return _cached(name, request, "it is not in the local cache, and the run is offline")
    endpoint, token = _endpoint_and_token()
    failure = _first_contact(name, request, endpoint, token)
    if failure is not None:
        return _cached(name, request, failure)
    try:
        hub = _hub_library()
        return Path(
            hub.snapshot_download(
                name, **request, endpoint=endpoint, token=token, etag_timeout=CONTACT_SECONDS
            )
        )
    except Exception as error:  # the library raises its own, httpx's and OS errors
        raise EnvironmentFailure(
            f"cannot fetch {name} from the hub: {_first_line(error)}", hint=LOCAL_HINT
        ) from error


def _hub_library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "train") from error
    return huggingface_hub


def _endpoint_and_token() -> tuple[str, bool | None]:
    """Return the configured hub and whether the user's token may go there (None: it may)."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    return endpoint, None if endpoint.startswith("https://") else False


def _first_contact(
    name: str, request: dict[str, Any], endpoint: str, token: bool | None
) -> str | None:
    """Ask the hub for the repository once; return why it did not answer, or None when it did.

    A thread, because a name look-up that hangs obeys no timeout of the HTTP library.
    """
    hub = _hub_library()
    failures: list[str | None] = []

    def ask() -> None:
        try:
            hub.HfApi(endpoint=endpoint, token=token).repo_info(
                name,
                repo_type=request["repo_type"],
                revision=request["revision"],
                timeout=CONTACT_SECONDS,
            )
            failures.append(None)
        except Exception as error:  # noqa: BLE001  any failure becomes one line for the user
            failures.append(_reason(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(1.25 * CONTACT_SECONDS)
    return failures[0] if failures else "the hub does not answer"


def _cached(name: str, request: dict[str, Any], failure: str) -> Path:
    hub = _hub_library()
    try:
        return Path(hub.snapshot_download(name, **request, local_files_only=True))
    except (OSError, ValueError) as error:
        raise EnvironmentFailure(f"cannot get {name}: {failure}", hint=LOCAL_HINT) from error


def _reason(error: Exception) -> str:
    """Put a failed request into a few words."""
    kind = type(error).__name__
    if kind == "GatedRepoError":
        return "the hub wants you to accept its terms and log in first"
    if kind == "RepositoryNotFoundError":
        return "the hub has no such repository, or it is private"
    if kind == "RevisionNotFoundError":
        return "the hub has no such revision"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"the hub answers with status {status}" if status else "the hub cannot be reached"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
