"""Manifests as they may be published: no place of one machine in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from swe_scaffold.numbers import branch, wording

# A path within a sentence, such as a note; its last part is kept.
_WITHIN = re.compile(r"(?<![^\s\"'(=:])(?:~|\.\.)?/(?:[^\s/\"'();,]+/)*([^\s/\"'();,]+)")


def published(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest in which every path that leaves its folder is only its last part.

    A local base keeps its folder's name, and the places where base and data lay are left out.
    """
    tree: dict[str, Any] = _public(manifest)
    base = wording(manifest, "base", "name")
    training = branch(tree, "config", "training")
    if base and "model_name" in training:
        config = {**branch(tree, "config"), "training": {**training, "model_name": base}}
        tree["config"] = config
    for key in ("base", "data", "holdout"):
        # An evaluation's own account of its data has no name besides the path.
        if "name" in branch(tree, key):
            tree[key] = {name: item for name, item in tree[key].items() if name != "path"}
    return tree


def is_place(text: str) -> bool:
    """Say whether a text is a path that begins elsewhere than in the folder it is read from."""
    parts = PurePath(text).parts
    return len(text) > 1 and (text.startswith(("/", "~")) or ".." in parts)


def _public(value: Any) -> Any:
    if isinstance(value, str):
        if is_place(value):
            return PurePath(value).name or "elsewhere"
        return _WITHIN.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {_public(key): _public(item) for key, item in value.items()}
    return [_public(item) for item in value] if isinstance(value, list | tuple) else value
