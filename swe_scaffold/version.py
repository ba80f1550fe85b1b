"""The version, in one place: `pyproject.toml`, manifests and `--version` all read it here."""

from __future__ import annotations

VERSION = "0.1.0"
