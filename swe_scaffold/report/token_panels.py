"""A response with its tokens in colour: what surprised each model, and what changed.

Colours are never alone: hovering tells the numbers, the last steps are underlined, and the same
numbers stand in tables. Which step a number is on is decided in `shades`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swe_scaffold.numbers import count, counted, fixed
from swe_scaffold.report.html import (
    NOTHING,
    Html,
    code,
    code_lines,
    details,
    element,
    escape_block,
    join_lines,
    paragraph,
    section,
    table,
)
from swe_scaffold.report.row_scores import RowScores, Token, lines_of, mean_nll
from swe_scaffold.report.shades import (
    CHANGE_BOUNDS,
    NLL_BOUNDS,
    change_shade,
    shade,
    shade_names,
)

# A page with more coloured tokens is slow to open; the rest is in the JSON.
MOST_TOKENS = 6000
MOST_LISTED = 2000
TOP = 10
_DECIMALS = 3
_END = "↵"

Line = Sequence[tuple[int, str]]


def panels(scores: RowScores) -> Html:
    """Return the sections with the response's tokens in colour."""
    lines = lines_of(scores.tokens, scores.spans)
    kept, left = _within(lines)
    note = (
        paragraph(
            f"{count(left)} of {counted(len(lines), 'line')} in the middle are not drawn; "
            "show with --json lists every token.",
            kind="note",
        )
        if left
        else NOTHING
    )
    if len(scores.sides) < 2:
        return section("nll", "NLL of each response token", note, *_nll(scores, kept))
    change = [
        _steps(_change_steps(), "nats, after − before"),
        code_lines([_change_line(n, line, scores) for n, line in kept], longest=_longest(kept)),
        _extremes(scores),
    ]
    return join_lines(
        [
            section("change", "What changed, token by token", note, *change),
            section("nll", "Before and after, line by line", note, *_nll(scores, kept)),
        ]
    )


def mask(scores: RowScores) -> Html:
    """Return the whole row as the model read it, what is trained set off."""
    parts: list[Html] = []
    for span in scores.spans:
        if span.trained:
            text = "".join(token.text for token in scores.tokens[span.start : span.stop])
            parts.append(element("span", escape_block(_middle(text)), class_="trained"))
        else:
            parts.append(element("span", escape_block(_middle(span.text)), class_="muted"))
    side = scores.sides[-1].score
    cut = f", {count(side.prompt_cut)} more were cut to fit" if side.prompt_cut else ""
    told = (
        f"{count(side.tokens)} of {count(side.tokens + side.prompt_tokens)} tokens are trained "
        f"(set off); {count(side.prompt_tokens)} are only read{cut}."
    )
    return section(
        "mask",
        "What is trained",
        paragraph(told),
        element("pre", *parts, class_="tall", tabindex=0),
    )


def _nll(scores: RowScores, kept: Sequence[tuple[int, Line]]) -> list[Html]:
    rows: list[Html] = []
    for number, line in kept:
        for side in range(len(scores.sides)):
            rows.append(_nll_line(number, line, scores, side))
    return [
        _steps(_nll_steps(), "nats per token"),
        code_lines(rows, longest=_longest(kept)),
        _all_tokens(scores),
    ]


def _nll_line(number: int, line: Line, scores: RowScores, side: int) -> Html:
    mean = _mean(scores, line, side)
    name = f"{scores.sides[side].role:>6} " if len(scores.sides) > 1 else ""
    # Where a screen is narrow the style sheet leaves the name out.
    role = element("span", Html(name), class_="role")
    label = Html(f"{number if side == 0 else '':>4} {role}{mean:>6}")

    def kind(token: Token) -> str:
        return f"s{shade(token.nll[side])}"

    return _line(label, line, scores, kind, first=side == 0 and len(scores.sides) > 1)


def _change_line(number: int, line: Line, scores: RowScores) -> Html:
    numbers = [token for token, _ in line]
    mean = ""
    if numbers:
        change = mean_nll(scores.tokens, numbers, 1) - mean_nll(scores.tokens, numbers, 0)
        mean = fixed(change, 2, signed=True)

    def kind(token: Token) -> str:
        step = change_shade(token.change or 0.0)
        return f"{'g' if step < 0 else 'w'}{abs(step)}"

    return _line(Html(f"{number:>4} {mean:>6}"), line, scores, kind)


def _line(
    label: Html,
    line: Line,
    scores: RowScores,
    kind: Callable[[Token], str],
    *,
    first: bool = False,
) -> Html:
    cells = [element("span", label, class_="gut")]
    for number, text in line:
        token = scores.tokens[number]
        step = kind(token)
        cells.append(
            element(
                "span",
                escape_block(text.replace("\n", _END)),
                class_="tok" if step.endswith("0") else f"tok {step}",
                title=_tip(token, scores),
            )
        )
    return element("span", *cells, class_="line pair" if first else "line")


def _tip(token: Token, scores: RowScores) -> str:
    parts = [
        f"{side.role} {fixed(value, _DECIMALS)}"
        for side, value in zip(scores.sides, token.nll, strict=True)
    ]
    if token.change is not None:
        parts.append(f"change {fixed(token.change, _DECIMALS, signed=True)}")
    return f"{', '.join(parts)} nats; {token.token_class}"


def _longest(lines: Sequence[tuple[int, Line]]) -> int:
    return max((sum(len(text) for _, text in line) for _, line in lines), default=0)


def _steps(steps: Sequence[tuple[str, str]], unit: str) -> Html:
    keys = [element("li", element("span", name, class_=f"tok {kind}")) for kind, name in steps]
    return element("ul", element("li", f"{unit}:"), *keys, class_="steps")


def _nll_steps() -> list[tuple[str, str]]:
    return [(f"s{step}", name) for step, name in enumerate(shade_names(NLL_BOUNDS))]


def _change_steps() -> list[tuple[str, str]]:
    ends = [f"{bound:g}" for bound in CHANGE_BOUNDS]
    last = len(ends)
    between = [(step, f"{ends[step - 1]} to {{0}}{ends[step]}") for step in range(1, last)]
    gains = [(f"g{step}", f"−{name.format('−')}") for step, name in reversed(between)]
    losses = [(f"w{step}", f"+{name.format('+')}") for step, name in between]
    gains = [(f"g{last}", f"−{ends[-1]} or lower"), *gains]
    losses = [*losses, (f"w{last}", f"+{ends[-1]} or higher")]
    return [*gains, ("s0", f"within ±{ends[0]}"), *losses]


def _mean(scores: RowScores, line: Line, side: int) -> str:
    numbers = [number for number, _ in line]
    return fixed(mean_nll(scores.tokens, numbers, side), 2) if numbers else ""


def _within(lines: Sequence[Line]) -> tuple[list[tuple[int, Line]], int]:
    """Return numbered lines of both ends, `MOST_TOKENS` tokens at most, and how many are left."""
    numbered = list(enumerate(lines, start=1))
    if sum(map(len, lines)) <= MOST_TOKENS:
        return numbered, 0
    head, room = 0, MOST_TOKENS * 3 // 4
    while head < len(lines) and room >= len(lines[head]):
        room -= len(lines[head])
        head += 1
    if not head:
        return [(1, lines[0][:MOST_TOKENS])], len(lines) - 1
    tail, room = len(lines), MOST_TOKENS // 4
    while tail > head and room >= len(lines[tail - 1]):
        tail -= 1
        room -= len(lines[tail])
    return [*numbered[:head], *numbered[tail:]], tail - head


def _middle(text: str, most: int = 6000) -> str:
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail]}\n… {len(text) - most:,} characters more …\n{text[-tail:]}"


def _extremes(scores: RowScores) -> Html:
    """Return the tokens that gained and lost most."""
    order = sorted(range(len(scores.tokens)), key=lambda n: (scores.tokens[n].change or 0.0, n))
    gains = [n for n in order[:TOP] if (scores.tokens[n].change or 0.0) < 0]
    losses = [n for n in order[::-1][:TOP] if (scores.tokens[n].change or 0.0) > 0]
    return join_lines(
        [
            details("Tokens that gained most", _token_table(scores, gains, "Largest gains")),
            details("Tokens that lost most", _token_table(scores, losses, "Largest losses")),
        ]
    )


def _all_tokens(scores: RowScores) -> Html:
    numbers = range(min(len(scores.tokens), MOST_LISTED))
    left = len(scores.tokens) - len(numbers)
    caption = "NLL of each response token, nats"
    if left:
        caption += f"; {counted(left, 'token')} more are in the JSON"
    return details("Every token's numbers", _token_table(scores, numbers, caption))


def _token_table(scores: RowScores, numbers: Sequence[int], caption: str) -> Html:
    if not numbers:
        return paragraph("None.")
    roles = [side.role.capitalize() for side in scores.sides]
    both = len(roles) > 1
    lines = []
    for number in numbers:
        token = scores.tokens[number]
        cells: list[object] = [fixed(value, _DECIMALS) for value in token.nll]
        if token.change is not None:
            cells.append(fixed(token.change, _DECIMALS, signed=True))
        # Spaces at the ends of a token would not be seen.
        spelt = token.text.replace(" ", "␣")
        text = code(spelt) if spelt else element("span", "(same character)")
        lines.append([count(number + 1), text, token.token_class, *cells])
    headers = ["#", "Token", "Class", *roles, *(["Change"] if both else [])]
    return table(headers, lines, caption=caption, text_columns=3)


def token_class_rows(scores: RowScores) -> list[list[object]]:
    """Return one line for each token class: name, tokens, NLL per token of each side, change."""
    after = scores.sides[-1].score.nll_by_class
    lines = []
    for name, (nll, tokens) in after.items():
        if not tokens:
            continue
        sides = [side.score.nll_by_class.get(name, (0.0, 0)) for side in scores.sides]
        cells: list[object] = [fixed(one / tokens, _DECIMALS) for one, _ in sides]
        if len(sides) > 1:
            cells.append(fixed((nll - sides[0][0]) / tokens, _DECIMALS, signed=True))
        lines.append([name, count(tokens), *cells])
    return lines
