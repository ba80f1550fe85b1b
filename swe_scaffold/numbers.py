"""Numbers for people: digits follow the half width of the interval, a minus is a minus.

`Estimate` is a metric as a report file holds it, checked: what is no finite number is absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["better", "worse", "none", "silent"]
# What evaluation promises to reproduce; a smaller difference is none.
EQUAL_WITHIN = 1e-6
_MOST_DECIMALS = 6
_PLAIN_BELOW = 1e7
_PLAIN_FROM = 1e-4
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, if it has one, and what both rest on."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    tokens: int | None = None
    clusters: int | None = None
    level: float = 0.95
    method: str = ""
    reason: str = ""

    @classmethod
    def read(cls, metric: object) -> Estimate | None:
        """Read a metric of a report; None where it holds no number."""
        if not isinstance(metric, Mapping) or (value := finite(metric.get("value"))) is None:
            return None
        low, high = _interval(metric.get("ci"))
        level = finite(metric.get("level"))
        return cls(
            value=value,
            low=low,
            high=high,
            n=whole(metric.get("n")),
            tokens=whole(metric.get("tokens")),
            clusters=whole(metric.get("clusters")),
            level=level if level is not None and 0 < level < 1 else 0.95,
            method=wording(metric, "ci_method"),
            reason=wording(metric, "reason"),
        )

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether value and interval lie on one side of zero, both ends included."""
        if self.low is None or self.high is None or not self.low <= self.value <= self.high:
            return False
        return self.high < 0 or self.low > 0


def precision(dtype: str, quantization: object) -> str:
    """Say in what a model computes: its dtype, and the bits of its base where they are fewer."""
    return dtype if quantization in ("none", None) else f"{dtype}, base in {quantization}"


def claim(comparison: Mapping[str, Any]) -> Kind:
    """Return what an interval supports: better, worse, none shown, or silent without one."""
    effect = Estimate.read(comparison.get("effect"))
    if effect is None or effect.interval is None:
        return "silent"
    kind: Kind = "none"
    if effect.excludes_zero and abs(effect.value) > EQUAL_WITHIN:
        kind = "better" if effect.value < 0 else "worse"
    recorded = comparison.get("verdict")
    return kind if recorded in (None, kind) else "none"


def finite(value: object) -> float | None:
    """Return a finite number as float, None for anything else (true and false included)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole(value: object) -> int | None:
    """Return a whole number from zero up, None for anything else."""
    number = finite(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def count(value: int) -> str:
    """Return a count with thousands set apart."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """Return `1 row`, `2 rows`."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def percent(share: float) -> str:
    """Return a level or share such as 95 %, 99.9 %."""
    return f"{round(100 * share, 2):g}\u00a0%"


def decimals(half_width: float) -> int:
    """Return the decimals that show the first two significant digits of a half width."""
    if half_width <= 0 or not math.isfinite(half_width):
        return 4
    return max(0, min(_MOST_DECIMALS, 1 - math.floor(math.log10(half_width))))


def fixed(value: float, digits: int, *, signed: bool = False) -> str:
    """Return a number with so many decimals, a true minus, and a plus where `signed`."""
    if abs(value) >= _PLAIN_BELOW:
        return scientific(value)
    text = f"{abs(value):,.{digits}f}"
    if not text.strip("0.,"):
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def point(value: float, *, signed: bool = False) -> str:
    """Return a number without an interval, to four significant digits."""
    if value == 0:
        return "0"
    if not _PLAIN_FROM <= abs(value) < _PLAIN_BELOW:
        return scientific(value)
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    text = fixed(value, digits, signed=signed)
    return text.rstrip("0").rstrip(".") if "." in text else text


def scientific(value: float) -> str:
    """Return a number as 1.2 × 10⁶."""
    mantissa, _, exponent = f"{abs(value):.2e}".partition("e")
    shown = mantissa.rstrip("0").rstrip(".")
    power = str(int(exponent)).translate(_SUPERSCRIPTS)
    return f"{'−' if value < 0 else ''}{shown} × 10{power}"


def shown(estimate: Estimate, *, signed: bool = False) -> tuple[str, str]:
    """Return value and interval as text; the interval is empty where there is none.

    An end of a difference that is not zero is never rounded to zero: digits are added instead.
    """
    if estimate.low is None or estimate.high is None:
        return point(estimate.value, signed=signed), ""
    digits = decimals((estimate.high - estimate.low) / 2)
    ends = [end for end in (estimate.low, estimate.high) if signed and end]
    while digits < _MOST_DECIMALS and any(abs(end) < 0.5 * 10**-digits for end in ends):
        digits += 1
    low, high = (fixed(end, digits, signed=signed) for end in (estimate.low, estimate.high))
    return fixed(estimate.value, digits, signed=signed), f"[{low}, {high}]"


def pick(tree: object, *path: str) -> Any:
    """Return what lies at a path of nested mappings, None where there is nothing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def wording(tree: object, *path: str) -> str:
    """Return the text at a path, an empty one where there is none."""
    found = pick(tree, *path)
    return found if isinstance(found, str) else ""


def texts(values: object) -> list[str]:
    """Return the texts of a list, none where it is no list."""
    given = values if isinstance(values, list | tuple) else ()
    return [value for value in given if isinstance(value, str)]


def branch(tree: object, *path: str) -> Mapping[str, Any]:
    """Return the mapping at a path, an empty one where there is none."""
    found = pick(tree, *path)
    return found if isinstance(found, Mapping) else {}


def _interval(ends: object) -> tuple[float | None, float | None]:
    if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
        return None, None
    low, high = finite(ends[0]), finite(ends[1])
    return (None, None) if low is None or high is None or low > high else (low, high)


def gibibytes(size: int) -> str:
    """Return a size as `3.25 GiB`."""
    return f"{size / (1 << 30):.2f} GiB"
