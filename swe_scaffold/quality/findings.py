"""What a look at a file found, with a few rows to show for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
MAX_EVIDENCE = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing; `code` is stable snake_case, `evidence` names up to five rows."""

    severity: Severity
    code: str
    message: str
    where: str = ""
    evidence: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The finding as JSON values."""
        return {
            "severity": self.severity,
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "evidence": list(self.evidence),
        }
