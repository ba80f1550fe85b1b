"""The page of one row: its tokens and their numbers, its answers, and refusals to show others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from swe_scaffold.errors import DataError, IntegrityError, UsageError
from swe_scaffold.jsonl import loads_strict, write_jsonl
from swe_scaffold.report.row_facts import RowFacts, gather_rows
from swe_scaffold.report.row_page import ordinal, row_page
from swe_scaffold.report.row_scores import Evaluations, lines_of
from swe_scaffold.report.shades import CHANGE_BOUNDS, NLL_BOUNDS, change_shade, shade, shade_names
from swe_scaffold.report.style import STYLE
from swe_scaffold.rows import make_example
from swe_scaffold.types import Example, Message, Origin, SpeedrunLabel, ToolCall
from tests.report.evaluated import FLOOR, PATCH, row, write_evaluation, write_pair
from tests.report.reading import Page, checked
from tests.tiny import tiny_tokenizer

HOSTILE = "</pre><script>alert(1)</script>\"'&\u202e\x1b[31m\x00 <|im_end|> \u00e9\U0001f600"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def facts_of(example: Example, places: list[Path], *, predictions: Path | None = None) -> RowFacts:
    evaluations = Evaluations.read(places)
    [facts] = gather_rows(
        [example],
        evaluations,
        evaluations.renderer(None),
        predictions=predictions,
        min_prompt_tokens=FLOOR,
    )
    return facts


def tips(page: Page) -> list[str]:
    return [a["title"] for tag, a in page.elements if tag == "span" and "title" in a]


def test_every_token_stands_before_and_after_with_its_numbers(
    tmp_path: Path, tokenizer: Path
) -> None:
    rows = [row(number) for number in range(5)]
    place = write_pair(tmp_path / "tuned", rows, tokenizer, seen=[0])
    facts = facts_of(rows[3], [place])
    assert facts.scores is not None
    tokens = facts.scores.tokens
    assert "".join(token.text for token in tokens) == PATCH + "<|im_end|>"
    assert [side.role for side in facts.scores.sides] == ["before", "after"]
    assert {round(token.change or 0, 3) for token in tokens} == {-0.8}
    # Rows 1 to 4 are unseen; the last gained most, this one second most.
    assert (facts.scores.standing.place, facts.scores.standing.of) == (2, 4)
    page = checked(row_page(facts))
    assert "This row got likelier." in page.text
    assert "2nd best change of 4 unseen rows" in page.text
    lines = PATCH.count("\n") + 1
    kinds = [
        a["class"] for tag, a in page.elements if tag == "span" and "line" in a.get("class", "")
    ]
    assert kinds.count("line pair") == lines
    assert len(kinds) == 3 * lines
    found = tips(page)
    assert len(found) == 3 * len(tokens)
    assert found[0] == "before 2.500, after 1.700, change −0.800 nats; header"
    assert loads_strict(json.dumps(facts.to_dict(), allow_nan=False), "facts")


def test_one_evaluation_alone_shows_one_column(tmp_path: Path, tokenizer: Path) -> None:
    rows = [row(number) for number in range(3)]
    place = write_evaluation(tmp_path / "model", rows, tokenizer, lambda r, _: 1.0 + r)
    page = checked(row_page(facts_of(rows[0], [place])))
    assert "1.000 nats per response token. 1st lowest of 3 unseen rows." in page.text
    assert not any(a.get("id") == "change" for _, a in page.elements)
    assert {tip.partition(" nats")[0] for tip in tips(page)} == {"model 1.000"}


def test_a_base_of_another_evaluation_is_left_out_and_said(tmp_path: Path, tokenizer: Path) -> None:
    rows = [row(0)]
    place = write_evaluation(tmp_path / "tuned", rows, tokenizer, lambda *_: 1.0, key="new key")
    write_evaluation(place / "base", rows, tokenizer, lambda *_: 2.0, key="an old key")
    facts = facts_of(rows[0], [place])
    assert facts.scores is not None
    assert len(facts.scores.sides) == 1
    assert "left out" in checked(row_page(facts)).text


def test_two_evaluations_are_before_and_after(tmp_path: Path, tokenizer: Path) -> None:
    rows = [row(0), row(1)]
    first = write_evaluation(tmp_path / "first", rows, tokenizer, lambda *_: 1.0)
    second = write_evaluation(tmp_path / "second", rows, tokenizer, lambda *_: 3.0)
    text = checked(row_page(facts_of(rows[1], [first, second]))).text
    assert "This row got less likely. 1.000 → 3.000" in text
    with pytest.raises(UsageError, match="one evaluation or two"):
        Evaluations.read([first, second, first])
    other = write_evaluation(
        tmp_path / "other", rows, tokenizer, lambda *_: 3.0, rendering="f" * 64
    )
    with pytest.raises(IntegrityError, match="another tokenizer"):
        Evaluations.read([first, other])
    shorter = write_evaluation(tmp_path / "short", rows, tokenizer, lambda *_: 3.0, max_length=512)
    with pytest.raises(IntegrityError, match="max_length 512, not 40000"):
        Evaluations.read([first, shorter])


def test_tokens_that_were_not_scored_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    rows = [row(0, prompt="the second argument is wrong " * 9)]
    place = write_evaluation(tmp_path / "model", rows, tokenizer, lambda *_: 1.0)
    evaluations = Evaluations.read([place])
    with pytest.raises(DataError, match="no score of row-1") as error:
        gather_rows([row(1)], evaluations, None, min_prompt_tokens=FLOOR)
    assert error.value.hint == "it scored rows of rows.jsonl"
    foreign = write_evaluation(
        tmp_path / "foreign", rows, tokenizer, lambda *_: 1.0, rendering="f" * 64
    )
    with pytest.raises(IntegrityError, match="not the one of the evaluation"):
        Evaluations.read([foreign]).renderer(None)
    [score] = evaluations.stored[0][1].scores
    limit = score.tokens + score.prompt_tokens - 1
    cut = write_evaluation(tmp_path / "cut", rows, tokenizer, lambda *_: 1.0, max_length=limit)
    with pytest.raises(IntegrityError, match=f"scored as {score.tokens} response and"):
        facts_of(rows[0], [cut])


def test_a_prediction_stands_against_gold(tmp_path: Path, tokenizer: Path) -> None:
    example = row(0)
    place = write_evaluation(tmp_path / "model", [example], tokenizer, lambda *_: 1.0)
    wrong = PATCH.replace("first + second", "second + first")
    lines = [
        {"instance_id": "row-9", "model_name_or_path": "m", "model_patch": PATCH},
        {
            **{"instance_id": "row-0", "model_name_or_path": "m", "model_patch": wrong},
            **{"raw_output": f"So:\n{wrong}", "problem": "", "repairs": {"final_newline": 1}},
            **{"stopped": True, "form": "diff", "sample": 0},
        },
        {"instance_id": "row-0", "model_patch": None, "raw_output": "no idea", "sample": 1},
    ]
    write_jsonl(tmp_path / "preds.jsonl", lines)
    scored = {"instance_id": "row-0", "sample": 0, "file_f1": 1.0, "files": ["x"], "applies": None}
    write_jsonl(tmp_path / "preds.scored.jsonl", [scored])
    facts = facts_of(example, [place], predictions=tmp_path / "preds.jsonl")
    first, second = facts.predictions
    assert [file.lines for file in first.pair.files] == [
        (
            ("both", "-    return first - second"),
            ("gold", "+    return first + second"),
            ("prediction", "+    return second + first"),
        )
    ]
    assert first.metrics == {"file_f1": 1.0}
    assert first.repairs == {"final_newline": 1}
    assert second.problem == "no_patch"
    text = checked(row_page(facts)).text
    assert "1 changed line in both, 1 only in gold, 1 only in the prediction" in text
    assert "final_newline 1" in text
    assert "no idea" in text


def test_a_file_that_holds_no_predictions_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    place = write_evaluation(tmp_path / "model", [row(0)], tokenizer, lambda *_: 1.0)
    path = tmp_path / "preds.jsonl"
    for line, message in (
        ('{"instance_id": "row-0", "patch": ""}', "model_patch must be a text"),
        ('{"id": 1}', "no instance_id"),
        ("[1]", "no line of predictions"),
    ):
        path.write_text(line + "\n", "utf-8")
        with pytest.raises(DataError, match=message) as error:
            facts_of(row(0), [place], predictions=path)
        assert error.value.where == f"{path}:1"
    write_jsonl(path, [{"instance_id": "row-5", "model_patch": PATCH}])
    assert facts_of(row(0), [place], predictions=path).notes == (
        "preds.jsonl holds no prediction of this row",
    )


def test_answers_of_the_evaluation_are_shown(tmp_path: Path, tokenizer: Path) -> None:
    example = row(0)
    answer = {
        **{"instance_id": "row-0", "sha256": example.meta["sha256"], "text": PATCH},
        **{"stopped": True, "empty": False, "repeated": False, "parseable": True},
    }
    place = write_evaluation(
        tmp_path / "model", [example], tokenizer, lambda *_: 1.0, answers=[answer]
    )
    [one] = facts_of(example, [place]).predictions
    assert (one.origin, one.model, one.patch) == ("evaluate", "model", PATCH)
    assert one.pair.count("both") == 2
    assert one.health["parseable"] is True


def test_a_chat_shows_each_trained_turn(tmp_path: Path, tokenizer: Path) -> None:
    call = ToolCall("open_file", {"path": "pkg/mod.py", "line": 10})
    messages = (
        Message("user", "mend it"),
        Message("assistant", "shown before", train=False, train_reason="demonstration"),
        Message("user", "go on"),
        Message("assistant", "look\nhere", tool_calls=(call,)),
        Message("tool", "what is in it", tool_call_id="1"),
        Message("assistant", "the value is wrong"),
    )
    example = make_example(
        instance_id="chat",
        repo="r",
        prompt="mend it",
        response="the value is wrong",
        response_source="trajectory",
        label=SpeedrunLabel.SUCCESS,
        origin=Origin("made", 0),
        messages=messages,
    )
    place = write_pair(tmp_path / "tuned", [example], tokenizer)
    facts = facts_of(example, [place])
    assert facts.scores is not None
    text = "".join(token.text for token in facts.scores.tokens)
    assert text.startswith("look\nhere\n<tool_call>\n")
    assert text.endswith("<|im_end|>the value is wrong<|im_end|>")
    assert [span.trained for span in facts.scores.spans].count(True) == 2
    lines = lines_of(facts.scores.tokens, facts.scores.spans)
    assert [part for _, part in lines[0]][-1].endswith("\n")
    # The second turn begins a line of its own though the first ended without a line feed.
    assert "".join(part for _, part in lines[-1]) == "the value is wrong<|im_end|>"
    assert {number for line in lines for number, _ in line} == set(range(len(facts.scores.tokens)))
    page = checked(row_page(facts))
    assert "assistant, demonstration" in page.text
    assert "assistant, trained" in page.text
    assert 'open_file {"path": "pkg/mod.py", "line": 10}' in page.text


def test_hostile_rows_break_no_page(tmp_path: Path, tokenizer: Path) -> None:
    example = row(0, prompt=HOSTILE, response=f"{HOSTILE}\n{'x' * 9000}\n\n{HOSTILE}")
    place = write_pair(tmp_path / "tuned", [example], tokenizer)
    path = tmp_path / "preds.jsonl"
    hostile = {"model_name_or_path": HOSTILE, "model_patch": HOSTILE, "raw_output": HOSTILE}
    write_jsonl(path, [{"instance_id": "row-0", **hostile, "problem": HOSTILE}])
    page = checked(row_page(facts_of(example, [place], predictions=path)))
    assert "\\u{202e}\\x1b[31m\\x00" in page.text
    assert "\U0001f600" in page.text


def test_a_very_long_response_is_cut_and_said(tmp_path: Path, tokenizer: Path) -> None:
    response = "".join(f"{number} wrong value\n" for number in range(3200))
    example = row(0, response=response)
    place = write_evaluation(tmp_path / "model", [example], tokenizer, lambda *_: 1.0)
    facts = facts_of(example, [place])
    assert facts.scores is not None
    assert len(facts.scores.tokens) > 30_000
    text = row_page(facts)
    page = checked(text)
    assert re.search(r"[\d,]+ of 3,201 lines in the middle are not drawn", page.text)
    assert 5000 < len(tips(page)) <= 6000
    assert len(text) < 2_500_000


def test_shades_are_steps_of_the_numbers() -> None:
    assert [shade(nll) for nll in (0.0, 0.1, 0.7, 1.5, 3, 7.9, 8, 50)] == [0, 1, 2, 3, 4, 5, 6, 6]
    assert [change_shade(c) for c in (-9, -0.5, -0.05, 0, 0.05, 0.1, 4)] == [-4, -2, 0, 0, 0, 1, 4]
    assert shade_names(NLL_BOUNDS)[0] == "below 0.1"
    assert shade_names(CHANGE_BOUNDS)[-1] == "4 and more"


def test_letters_on_every_shade_can_be_read() -> None:
    """WCAG's contrast of 4.5 in both themes."""
    light, dark, printed = (dict(re.findall(r"--(\w+): (#\w+);", part)) for part in _themes())
    for theme in (light, dark, printed):
        for name in (
            *(f"s{n}" for n in range(1, 7)),
            *(f"{k}{n}" for k in "gw" for n in range(1, 5)),
        ):
            ink = theme["paper"] if name in ("s5", "s6", "g4", "w4") else theme["ink"]
            assert _contrast(theme[name], ink) >= 4.5, name
        # Steps differ in lightness, so that they can be told apart without seeing colours.
        for kind, steps in (("s", 6), ("g", 4), ("w", 4)):
            values = [_luminance(theme[f"{kind}{n}"]) for n in range(1, steps + 1)]
            assert values in (sorted(values), sorted(values)[::-1])
            assert len(set(values)) == steps
    assert {"s1", "g4"} <= set(light) == set(dark)


def _themes() -> list[str]:
    return [part.partition("}")[0] for part in STYLE.split(":root {")[1:]]


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    code = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(code[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (112, "112th"), (121, "121st")],
)
def test_ordinals(number: int, text: str) -> None:
    assert ordinal(number) == text
