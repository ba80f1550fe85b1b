"""What is known of a row besides its path, as people read it: scores, tokens, answers.

On a terminal each line of the response stands once for each model, tokens coloured by their NLL;
elsewhere it stands once, above rulers that say the same in digits.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence

from swe_scaffold.cli.rows import DIM, RESET, block
from swe_scaffold.cli.tables import facts as fact_lines
from swe_scaffold.cli.tables import place, table
from swe_scaffold.report.row_answers import NAMES, summary, told
from swe_scaffold.report.row_facts import RowFacts
from swe_scaffold.report.row_page import sentence
from swe_scaffold.report.row_predictions import Prediction
from swe_scaffold.report.row_scores import RowScores, lines_of, mean_nll
from swe_scaffold.report.shades import NLL_BOUNDS, change_shade, shade, shade_names
from swe_scaffold.report.token_panels import token_class_rows
from swe_scaffold.terminal import show, wants_style

MOST_LINES, MOST_DIFF_LINES, MOST_ANSWERS, TOP = 40, 60, 3, 8
TEXT_WIDTH = 2000
_WIDEST_TOKEN = 60
# Background and letters, both given, so that they are legible on a dark terminal and a light one.
_SHADES = (
    *("", "48;5;252;38;5;16", "48;5;187;38;5;16", "48;5;222;38;5;16", "48;5;214;38;5;16"),
    *("48;5;202;38;5;16", "48;5;160;38;5;231;4"),
)
_GAIN, _LOSS = "\x1b[1;34m", "\x1b[1;33m"

Line = Sequence[tuple[int, str]]


def facts_text(facts: RowFacts, *, full: bool) -> str:
    """Return the scores, the tokens and the answers of a row."""
    parts: list[str] = []
    if facts.scores:
        parts += [_score_text(facts.scores), _token_text(facts.scores, full), _tops(facts.scores)]
    shown = facts.predictions if full else facts.predictions[:MOST_ANSWERS]
    parts += [_answer_text(one, full) for one in shown]
    left = len(facts.predictions) - len(shown)
    notes = [*facts.notes, *(facts.scores.notes if facts.scores else ())]
    if left:
        notes.append(f"{left} more predictions (--full shows all)")
    return "\n\n".join([*parts, *(f"note: {show(note, width=600)}" for note in notes)])


def _score_text(scores: RowScores) -> str:
    _, lead, text = sentence(scores)
    names = [(side.role, side.model) for side in scores.sides]
    roles = [side.role for side in scores.sides]
    change = ["change"] if len(roles) > 1 else []
    classes = table(["class", "tokens", *roles, *change], token_class_rows(scores))
    last = scores.sides[-1].score
    seen = {True: "yes", False: "no", None: "not known"}[last.seen_in_training]
    sums = [(f"nats, {side.role}", f"{side.score.nll_sum:.2f}") for side in scores.sides]
    counted = f"{last.tokens} response, {last.prompt_tokens} prompt"
    facts = [*names, *sums, ("tokens", counted), ("seen in training", seen)]
    return f"{fact_lines(f'scores: {lead} {text}', facts)}\n\n{classes}"


def _token_text(scores: RowScores, full: bool) -> str:
    lines = list(enumerate(lines_of(scores.tokens, scores.spans), start=1))
    left = 0 if full else len(lines) - MOST_LINES
    styled = wants_style(sys.stdout)
    shown = _styled_line if styled else _ruled_line
    width = max(shutil.get_terminal_size().columns, 40)
    if left > 0:
        half = MOST_LINES // 2
        cut = f"… {left} lines more (--full shows all) …"
        parts = [
            *(shown(n, line, scores, width) for n, line in lines[:half]),
            cut,
            *(shown(n, line, scores, width) for n, line in lines[-half:]),
        ]
    else:
        parts = [shown(n, line, scores, width) for n, line in lines]
    return "\n".join([_legend(styled), *parts])


def _legend(styled: bool) -> str:
    if styled:
        steps = [
            f"{_colour(step)} {name} {RESET}" for step, name in enumerate(shade_names(NLL_BOUNDS))
        ]
        moved = f"{_GAIN}likelier{RESET}, {_LOSS}less likely{RESET}"
        return f"nats per token: {' '.join(steps)}\nleft of each line their mean: {moved}"
    return (
        "nats of each token below its first letter, whole ones: . for less than one, + for ten and "
        "more; left of each line their mean"
    )


def _colour(step: int) -> str:
    return f"\x1b[{_SHADES[step]}m" if _SHADES[step] else ""


def _styled_line(number: int, line: Line, scores: RowScores, width: int) -> str:
    """Return a line once for each side, tokens coloured."""
    rows = []
    for side, gutter in enumerate(_gutters(number, line, scores)):
        colour = _GAIN if side and _moved(line, scores) < 0 else _LOSS if side else DIM
        if side and not _moved(line, scores):
            colour = DIM
        for place_, pieces in enumerate(_wrapped(line, width - len(gutter))):
            texts = "".join(
                f"{_colour(shade(scores.tokens[n].nll[side]))}{text}{RESET}" for n, text in pieces
            )
            rows.append(f"{colour}{gutter if not place_ else ' ' * len(gutter)}{RESET}{texts}")
    return "\n".join(rows)


def _ruled_line(number: int, line: Line, scores: RowScores, width: int) -> str:
    """Return a line once, with a ruler below for each side."""
    gutters = _gutters(number, line, scores)
    blank = " " * len(gutters[0])
    rows = []
    for pieces in _wrapped(line, width - len(blank)):
        rows.append((f"{number:>4}".ljust(len(blank)) + "".join(t for _, t in pieces)).rstrip())
        for side, gutter in enumerate(gutters):
            ruler = "".join(
                _digit(scores.tokens[n].nll[side]) + " " * (_cells(text) - 1)
                for n, text in pieces
                if text
            )
            rows.append(f"{' ' * 4}{gutter[4:]}{ruler}".rstrip())
    return "\n".join(rows)


def _gutters(number: int, line: Line, scores: RowScores) -> list[str]:
    numbers = [n for n, _ in line]
    found = []
    for side, one in enumerate(scores.sides):
        mean = f"{mean_nll(scores.tokens, numbers, side):.2f}" if numbers else ""
        head = f"{number:>4}" if not side else " " * 4
        found.append(f"{head} {one.role:<6} {mean:>6}  ")
    return found


def _moved(line: Line, scores: RowScores) -> int:
    numbers = [n for n, _ in line]
    if not numbers:
        return 0
    before, after = (mean_nll(scores.tokens, numbers, side) for side in (0, 1))
    return change_shade(after - before)


def _wrapped(line: Line, width: int) -> Iterator[list[tuple[int, str]]]:
    """Yield the tokens as they are printed, as many as fit a row; at least one row."""
    row: list[tuple[int, str]] = []
    used = 0
    for number, text in line:
        spelt = show(text.replace("\n", "↵").replace("\t", "    "), width=_WIDEST_TOKEN)
        cells = _cells(spelt)
        if row and used + cells > width:
            yield row
            row, used = [], 0
        row.append((number, spelt))
        used += cells
    yield row


def _cells(text: str) -> int:
    """Return how many columns a terminal gives a text."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _digit(nll: float) -> str:
    return "." if nll < 1 else "+" if nll >= 10 else str(int(nll))


def _tops(scores: RowScores) -> str:
    """Return the most surprising tokens, or those that gained and lost most."""
    numbers = range(len(scores.tokens))
    if len(scores.sides) < 2:
        order = sorted(numbers, key=lambda n: -scores.tokens[n].nll[0])
        return _top_table("most surprising tokens", scores, order[:TOP])
    changes = [token.change or 0.0 for token in scores.tokens]
    gains = [n for n in sorted(numbers, key=lambda n: changes[n]) if changes[n] < 0]
    losses = [n for n in sorted(numbers, key=lambda n: -changes[n]) if changes[n] > 0]
    tables = [
        _top_table(title, scores, order[:TOP])
        for title, order in (("gained most", gains), ("lost most", losses))
        if order
    ]
    return "\n\n".join(tables)


def _top_table(title: str, scores: RowScores, numbers: Sequence[int]) -> str:
    roles = [side.role for side in scores.sides]
    rows = []
    for number in numbers:
        token = scores.tokens[number]
        change = [] if token.change is None else [f"{token.change:+.3f}"]
        text = show(token.text, width=_WIDEST_TOKEN)
        values = [f"{value:.3f}" for value in token.nll]
        rows.append([f"'{text}'", str(number + 1), token.token_class, *values, *change])
    headers = [title, "token", "class", *roles, *(["change"] if len(roles) > 1 else [])]
    return table(headers, rows)


def _answer_text(one: Prediction, full: bool) -> str:
    sample = f", sample {one.sample}" if one.sample else ""
    title = f"answer of {one.model or 'a model not named'} ({one.origin}{sample})"
    lines = [fact_lines(title, [*told(one), ("against gold", summary(one.pair))])]
    room = sys.maxsize if full else MOST_DIFF_LINES
    for file in one.pair.files:
        if file.path:
            lines.append(f"--- {place(file.path)}")
        lines += [
            f"{NAMES[side]:>5} | {show(line, width=sys.maxsize if full else TEXT_WIDTH)}"
            for side, line in file.lines[:room]
        ]
        if len(file.lines) > room:
            lines.append(f"… {len(file.lines) - room} lines more (--full shows all) …")
    if one.text:
        lines.append(f"--- what it wrote\n{block(one.text, None if full else TEXT_WIDTH)}")
    return "\n".join(lines)
