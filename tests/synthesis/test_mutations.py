"""What each operator makes of a few lines: every mutant it proposes, and where it keeps quiet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.synthesis import Recipe, synthesize
from swe_scaffold.synthesis.operators import OPERATORS

SEVERAL = "    if a:\n        b()\n    else:\n        c()\n"


def mutants(root: Path, operator: str, body: str, head: str = "def f(a, b, c):") -> list[str]:
    """Return the bodies that one operator makes of a function with this body."""
    root.joinpath("m.py").write_bytes(f"{head}\n    g()\n{body}".encode())
    recipe = Recipe(operators=(operator,), per_function=0, max_per_file=0, max_per_operator=0)
    rows = synthesize(root, count=10_000, seed=1, recipe=recipe).tasks
    texts = [row["context"][0]["text"] for row in rows]
    start = f"{head}\n    g()\n"
    return sorted(text.removeprefix(start) for text in texts if text.startswith(start))


CASES: dict[str, list[tuple[str, list[str]]]] = {
    "flip_comparison": [
        ("    return a < b\n", ["    return a >= b\n"]),
        ("    return a is not b\n", ["    return a is b\n"]),
        ("    return a not  in (b)\n", ["    return a in (b)\n"]),
        ("    return not (a)\n", ["    return (a)\n"]),
        ("    return (a) == (  # <\n     b)\n", ["    return (a) != (  # <\n     b)\n"]),
        ("    return a or b or c\n", ["    return a and b or c\n", "    return a or b and c\n"]),
        ("    return f'{a < b}'\n", []),
        ("    assert a < b\n", []),
        ("    if TYPE_CHECKING:\n        a = a < b\n", []),
        ("    x: Literal[a < b] = c\n", []),
        ("    return 'a < b'\n", []),
    ],
    "off_by_one": [
        ("    return a <= b\n", ["    return a < b\n"]),
        ("    return a[0]\n", ["    return a[1]\n"]),
        ("    return a[-1]\n", ["    return a[-2]\n"]),
        ("    return a[b + 1 : ]\n", ["    return a[b + 2 : ]\n"]),
        ("    return range(2)\n", ["    return range(1)\n", "    return range(3)\n"]),
        ("    return len(a) == 1\n", ["    return len(a) == 0\n", "    return len(a) == 2\n"]),
        ("    return a == 404, a[0xF], a['1'], a[True], a * 2\n", []),
    ],
    "dropped_guard": [
        ("    if a:\n        return b\n    return c\n", ["    return c\n"]),
        ("    if a: return b  # early\n    return c\n", ["    return c\n"]),
        ("    while a:\n        if b:\n            a = c\n    return a\n", []),
        (
            "    if a: b = 1\n    elif c:\n        b = 2\n    # else\n    else:\n        b = 3\n",
            [
                "    if a: b = 1\n    # else\n    else:\n        b = 3\n",
                "    if a: b = 1\n    elif c:\n        b = 2\n    # else\n",
            ],
        ),
        ("    if a:\n        pass\n    return c\n", []),
        ("    if TYPE_CHECKING:\n        import x\n    return c\n", []),
        ("    if a:\n" + "        b()\n" * 9 + "    return c\n", []),
    ],
    "swapped_arguments": [
        ("    return g(a, b)\n", ["    return g(b, a)\n"]),
        ("    return g((a), 'x', 'ü', c)\n", ["    return g((a), 'ü', 'x', c)\n"]),
        ("    return g(a, a), g(*a, b), g(a, 'x'), max(a, b), isinstance(a, b), g(a, k=b)\n", []),
    ],
    "exchanged_branches": [
        (SEVERAL, ["    if a:\n        c()\n    else:\n        b()\n"]),
        ("    return (a) if b else (c)\n", ["    return (c) if b else (a)\n"]),
        ("    if a: b()\n    else: c()\n", []),
        ("    if a:\n        b()\n    elif c:\n        a()\n", []),
        ("    if a:\n        b()\n    else:\n        b()\n", []),
        ("    if a:\n        @b\n        def h(): b()\n    else:\n        h = c\n", []),
    ],
    "dropped_return": [
        ("    return a\n", ["    return None\n"]),
        ("    return (g(a))\n", ["    (g(a))\n"]),
        ("    if a: return\n    b()\n", ["    if a: pass\n    b()\n"]),
        ("    return False\n", []),
        ("    return None\n", []),
        ("    b()\n    return\n", []),
    ],
    "changed_exception": [
        ("    raise ValueError(a)\n", ["    raise TypeError(a)\n"]),
        ("    raise KeyError\n", ["    raise IndexError\n"]),
        (
            "    try: a()\n    except (OSError, b.Error): c()\n",
            ["    try: a()\n    except OSError: c()\n"],
        ),
        (
            "    try: a()\n    except KeyError as b: c()\n",
            ["    try: a()\n    except IndexError as b: c()\n"],
        ),
        ("    try: a()\n    except: raise\n", []),
        ("    raise a.ValueError(b)\n", []),
    ],
    "swallowed_error": [
        (
            "    try:\n        a()\n    except b:\n        a = 1\n        raise c\n    return a\n",
            ["    try:\n        a()\n    except b:\n        pass\n    return a\n"],
        ),
        ("    try: a()\n    except b: pass\n", []),
        ("    try: a()\n    except b:\n" + "        c()\n" * 9, []),
    ],
    "changed_loop": [
        (
            "    for a in range(b):\n        break\n",
            [
                "    for a in range(1, b):\n        break\n",
                "    for a in range(b - 1):\n        break\n",
                "    for a in range(b):\n        continue\n",
            ],
        ),
        ("    return range(a, b.c)\n", ["    return range(a, b.c - 1)\n"]),
        ("    return enumerate(a)\n", ["    return enumerate(a, 1)\n"]),
        ("    return enumerate(a, 1)\n", ["    return enumerate(a)\n"]),
        ("    return enumerate(a, start=b)\n", ["    return enumerate(a)\n"]),
        ("    return enumerate(x for x in a), range(a, b, c), range(a, 3)\n", []),
    ],
    "dropped_update": [
        ("    a += b\n    return a\n", ["    return a\n"]),
        ("    if a: b += c\n    return b\n", ["    if a: pass\n    return b\n"]),
        ("    self.x = a\n    return b\n", ["    return b\n", "    x = a\n    return b\n"]),
        ("    for a in b:\n        c += a\n", ["    for a in b:\n        pass\n"]),
        ("    a += 1; b()\n", ["    pass; b()\n"]),
        ("    other.x = a\n    x = self.x\n    return b\n", []),
    ],
    "dropped_call": [
        ("    a.b(c)\n    return a\n", ["    return a\n"]),
        ("    a(\n        b,\n    )  # why\n    return a\n", ["    return a\n"]),
        ("    if a:\n        b()\n    return c\n", ["    if a:\n        pass\n    return c\n"]),
        ("    log.debug(a)\n    print(b)\n    return c\n", []),
    ],
    "dropped_keyword": [
        ("    return a(b, k=c)\n", ["    return a(b)\n"]),
        ("    return a((b), k=(c))\n", ["    return a((b))\n"]),
        ("    return a(k=b, j=c)\n", ["    return a(j=c)\n", "    return a(k=b)\n"]),
        ("    return a(k=b)\n", ["    return a()\n"]),
        ("    return a(\n        k=b,\n    )\n", ["    return a(\n        \n    )\n"]),
        ("    return a(b, # what\n        k=c)\n", []),
        ("    return a(**b), warn(a, stacklevel=b)\n", []),
    ],
    "dropped_condition": [
        ("    return a and b\n", ["    return a\n", "    return b\n"]),
        (
            "    return (a) or (b) or (c)\n",
            ["    return (a) or (b)\n", "    return (a) or (c)\n", "    return (b) or (c)\n"],
        ),
        ("    return [x for x in a if b]\n", ["    return [x for x in a ]\n"]),
        ("    return [x for x in a if b if c]\n", []),
        ("    return [x for x in a if (b)]\n", []),
    ],
    "changed_arithmetic": [
        ("    return a - b\n", ["    return a + b\n"]),
        ("    return (a) // (b)\n", ["    return (a) / (b)\n"]),
        ("    return a + 1\n", ["    return a - 1\n"]),
        ("    return a % 2\n", ["    return a // 2\n"]),
        ("    a += 1\n    return a\n", ["    a -= 1\n    return a\n"]),
        ("    return f(-a)\n", ["    return f(a)\n"]),
        ("    return a | b\n", ["    return a & b\n"]),
        ("    return a + b, 'x' * a, '%s' % a, a % b, [a] + b, a + 'x', -1\n", []),
    ],
    "changed_constant": [
        ("    return True\n", ["    return False\n"]),
        ("    a = 0\n    return a\n", ["    a = 1\n    return a\n"]),
        ("    return g(3)\n", ["    return g(4)\n"]),
        ("    return g(300)\n", ["    return g(30)\n"]),
        ("    return g(12)\n", ["    return g(21)\n"]),
        ("    return g(11)\n", ["    return g(12)\n"]),
        ("    return g(0.5)\n", ["    return g(0.05)\n"]),
        ("    return g(2.5)\n", ["    return g(0.25)\n"]),
        ("    return ','.join(a)\n", ["    return ';'.join(a)\n"]),
        ("    return ''.join(a)\n", ["    return ' '.join(a)\n"]),
        ("    return a[1], a == 2, a[:3], -4, 'text', 0x10, None, 1e5\n", []),
        ('    """."""\n    return a\n', []),
    ],
    "wrong_variable": [
        ("    return a\n", ["    return b\n"]),
        ("    return c\n", ["    return a\n"]),
        ("    d = 1\n    return c\n", ["    d = 1\n    return d\n"]),
        ("    return a()\n", []),
        ("    return [x for x in z]\n", []),
    ],
    "wrong_attribute": [
        (
            "    return z.x - z.y\n",
            ["    return z.x - z.x\n", "    return z.y - z.y\n"],
        ),
        ("    return z.x() - z.y()\n", []),
        ("    z.x = z.y\n", []),
    ],
    "wrong_slice": [
        ("    return a[: b]\n", ["    return a[b:]\n"]),
        ("    return a[(b):]\n", ["    return a[:(b)]\n"]),
        ("    return a[::-1]\n", ["    return a[::1]\n"]),
        ("    return a[-1]\n", ["    return a[0]\n"]),
        ("    return a[0]\n", ["    return a[-1]\n"]),
        ("    return a[b:c], a[1], a[b::], a['x'], a[False]\n", []),
    ],
    "wrong_function": [
        ("    return a.startswith(b)\n", ["    return a.endswith(b)\n"]),
        ("    return min(a, b)\n", ["    return max(a, b)\n"]),
        ("    return append(a), a.other(), a.min\n", []),
    ],
    "dropped_conversion": [
        ("    return int(a)\n", ["    return a\n"]),
        ("    return g(str(a or b))\n", ["    return g((a or b))\n"]),
        ("    return list(x for x in a)\n", ["    return (x for x in a)\n"]),
        ("    return (a).strip()\n", []),
        ("    return a.strip().b\n", ["    return a.b\n"]),
        ("    return int(a, 2), int(*a), a.strip('x'), g(a)\n", []),
        ("    a = int(a)\n    return a\n", []),
    ],
}


@pytest.mark.parametrize(
    ("operator", "body", "expected"),
    [(name, body, expected) for name, cases in CASES.items() for body, expected in cases],
)
def test_operator(tmp_path: Path, operator: str, body: str, expected: list[str]) -> None:
    assert mutants(tmp_path, operator, body) == expected


def test_await(tmp_path: Path) -> None:
    body = "    return await (a)\n"
    head = "async def f(a):"
    assert mutants(tmp_path, "dropped_await", body, head) == ["    return (a)\n"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("a=1, *, b=False", ["a=0, *, b=False", "a=1, *, b=True"]),
        ("a=None, b='x'", ["a=\"\", b='x'", "a=None, b=None"]),
        ("a=(), b=X, *c, d, **e", []),
    ],
)
def test_defaults(tmp_path: Path, parameters: str, expected: list[str]) -> None:
    text = f"def f({parameters}):\n    g()\n    return a\n"
    tmp_path.joinpath("m.py").write_text(text, "utf-8")
    recipe = Recipe(operators=("changed_default",), per_function=0)
    rows = synthesize(tmp_path, count=50, seed=0, recipe=recipe).tasks
    shown = sorted(row["context"][0]["text"].partition("\n")[0] for row in rows)
    assert shown == [f"def f({one}):" for one in expected]


def test_every_operator_is_shown_here() -> None:
    assert {*CASES, "dropped_await", "changed_default"} == set(OPERATORS)


def test_a_function_of_endless_lines_is_left_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("m.py").write_text("def f(a):\n    a = 1\n    " + "a += 1; " * 9000, "utf-8")
    result: Any = synthesize(tmp_path, count=1, seed=0)
    assert result.counts["functions_skipped"] == {"too_long": 1}
