"""Names of people and hubs as names of folders."""

from __future__ import annotations

import hashlib
import re

_RESERVED = {"con", "prn", "aux", "nul", *(f"{n}{i}" for n in ("com", "lpt") for i in range(1, 10))}
_DERIVED = re.compile(r".*-[0-9a-f]{12}", re.DOTALL)


def safe_name(identifier: str) -> str:
    """Derive a file name from a foreign id: letters, digits, dot, dash, underscore, at most 100.

    Lower-case ids that are such names stay as they are; elsewhere 12 hex digits of the id's SHA-256
    keep two ids apart, also where the file system ignores case or Unicode forms.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", identifier)[:100].lstrip(".-").rstrip(".")
    reserved = name.split(".")[0].lower() in _RESERVED
    plain = name != "" and name == identifier == identifier.lower()
    if plain and not reserved and not _DERIVED.fullmatch(name):
        return name
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{'_' * reserved}{name or 'id'}"[:87] + f"-{digest}"
