"""Provenance beside every artefact: hashes, config, versions, counts; and its verification.

A manifest is written last: where it stands and verifies, what it names is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from swe_scaffold.errors import IntegrityError
from swe_scaffold.files import disk_errors, sha256_file, write_json
from swe_scaffold.version import VERSION

SCHEMA = 1
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "bitsandbytes",
)
# Names only of what changes numbers or offline behaviour; other variables may hold secrets.
ENVIRONMENT = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_OFFLINE")
_MAX_NAME_BYTES = 255
_HINT = "the file was lost or changed after it was written: restore it, or make it again"
_REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REFERENCE = re.compile(r"ref: (refs/[^\s.]+(?:\.[^\s.]+)*)")


def provenance() -> dict[str, Any]:
    """Return tool version, git revision, package versions and allow-listed environment values."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "tool": "swe-speedrun-scaffold",
        "version": VERSION,
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "packages": versions,
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def git_revision() -> str | None:
    """Return the commit checked out where this package stands, None outside a checkout.

    Git's files are read as text, no program is started; uncommitted changes are not seen.
    """
    try:
        folder = _git_folder(Path(__file__).resolve().parents[1] / ".git")
        head = _first_line(folder / "HEAD")
        if reference := _REFERENCE.fullmatch(head):
            head = _look_up(reference[1], folder)
    except (OSError, ValueError):
        return None
    return head if _REVISION.fullmatch(head) else None


def _git_folder(path: Path) -> Path:
    """Follow the `gitdir:` line of a worktree or submodule."""
    if path.is_dir():
        return path
    return path.parent / _first_line(path).removeprefix("gitdir: ")


def _look_up(reference: str, folder: Path) -> str:
    common = folder / "commondir"  # in a worktree: where the branches are
    shared = folder / _first_line(common) if common.is_file() else folder
    for loose in (folder / reference, shared / reference):
        if loose.is_file():
            return _first_line(loose)
    packed = (shared / "packed-refs").read_text("utf-8").split("\n")
    lines = (line.partition(" ") for line in packed)
    return next((revision for revision, _, name in lines if name == reference), "")


def _first_line(path: Path) -> str:
    return path.read_text("utf-8").split("\n", 1)[0].strip()


def fingerprint(value: Any) -> str:
    """Return the hex SHA-256 of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_entries(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of files below `folder`, by name."""
    entries = {}
    for name in names:
        with disk_errors(folder / name):
            size = (folder / name).stat().st_size
        entries[name] = {"size": size, "sha256": sha256_file(folder / name)}
    return entries


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Write a manifest; `schema` comes first."""
    write_json(path, {"schema": SCHEMA, **content})


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        IntegrityError: It is missing, damaged, or of another schema.
        EnvironmentFailure: It is there but may not be read.
    """
    try:
        with disk_errors(path):
            value = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_no_constant)
    except OSError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise IntegrityError("there is no manifest", where=str(path)) from None
        raise
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        problem = "the manifest is damaged: it is not strict JSON"
        raise IntegrityError(problem, where=f"{path}{line}") from None
    if not isinstance(value, dict):
        raise IntegrityError("the manifest is damaged: it is not an object", where=str(path))
    if type(value.get("schema")) is not int or value["schema"] != SCHEMA:
        found = repr(value.get("schema"))[:40]
        raise IntegrityError(
            f"the manifest has schema {found}, this version reads {SCHEMA}",
            where=str(path),
            hint="use the version of swe-scaffold that wrote it",
        )
    return value


def verify_files(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Check size and SHA-256 of the files a manifest names.

    Raises:
        IntegrityError: The first file that is missing, differs or lies outside `folder`, or a
            damaged entry.
        EnvironmentFailure: A file may not be read.
    """
    named: Any = entries  # as a damaged manifest may have it
    if not isinstance(named, Mapping):
        raise IntegrityError("the manifest is damaged: it names no files", where=str(folder))
    for name, entry in named.items():
        path = _inside(folder, name)
        if not isinstance(entry, Mapping) or not {"size", "sha256"} <= set(entry):
            raise IntegrityError(f"the manifest is damaged at {name!r}", where=str(folder))
        if problem := _difference(path, entry):
            raise IntegrityError(problem, where=str(path), hint=_HINT)


def _difference(path: Path, entry: Mapping[str, Any]) -> str:
    with disk_errors(path):
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
    if size != entry["size"]:
        return f"has {size} bytes, not {repr(entry['size'])[:40]}"
    return "" if sha256_file(path) == entry["sha256"] else "does not match its recorded SHA-256"


def _inside(folder: Path, name: str) -> Path:
    path, problem = folder / name, ""
    try:
        if max(len(os.fsencode(part)) for part in path.parts) > _MAX_NAME_BYTES:
            problem = "that cannot exist"
        elif not path.resolve().is_relative_to(folder.resolve()):
            problem = "outside its folder"
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # a loop of links, a zero byte, half a surrogate pair
        problem = "that cannot exist"
    if problem:
        shown = repr(name if len(name) <= 80 else f"{name[:80]}…")
        raise IntegrityError(f"the manifest names a file {problem}: {shown}", where=str(folder))
    return path


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
