"""show --eval: what models make of one row, in colour, without it, as JSON and as a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from swe_scaffold.sources.examples import read_examples
from tests.cli.conftest import HOSTILE, Run, write_rows
from tests.cli.test_showing import on_a_terminal
from tests.report.evaluated import write_evaluation, write_pair
from tests.report.reading import checked
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def evaluation(rows: Path, tokenizer: Path, folder: Path) -> Path:
    """An evaluation of the hold-out, with one of the base below it."""
    held_out = read_examples(rows.with_name("rows.test.jsonl")).examples
    return write_pair(folder / "tuned", held_out, tokenizer)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["instance_id"] for line in path.read_text("utf-8").split("\n")[:-1]]


def test_the_path_comes_first_then_scores_and_tokens(
    run: Run, rows: Path, evaluation: Path
) -> None:
    held_out = rows.with_name("rows.test.jsonl")
    name = ids(held_out)[0]
    done = run("show", held_out, name, "--eval", evaluation)
    assert done.code == 0, done.err
    path, _, rest = done.out.partition("scores: ")
    assert path.startswith(f"{name}\nended in test")
    assert "««diff --git" in path
    assert rest.startswith("This row got likelier. ")
    assert re.search(r"^  before +base$", rest, re.MULTILINE)
    assert re.search(r"^  after +tuned$", rest, re.MULTILINE)
    assert re.search(r"^header +\d+ ", rest, re.MULTILINE)
    assert "\x1b" not in done.out
    # Below each line of the response: the nats of its tokens, at their first letters.
    lines = rest.split("\n")
    at = next(
        n for n, line in enumerate(lines) if line.endswith("diff --git a/pkg/mod.py b/pkg/mod.py↵")
    )
    start = lines[at].index("diff")
    for line, role, lowest in ((lines[at + 1], "before", "2"), (lines[at + 2], "after", "2")):
        assert line.split()[0] == role
        assert re.fullmatch(r"[2-8 ]+", line[start:])
        assert line[start] == lowest
    assert "gained most" in rest
    assert "lost most" not in rest


def test_any_file_of_the_build_leads_there_and_dev_rows_were_not_scored(
    run: Run, rows: Path, evaluation: Path
) -> None:
    held_out = ids(rows.with_name("rows.test.jsonl"))
    assert run("show", rows, held_out[1], "--eval", evaluation).code == 0
    done = run("show", rows, ids(rows)[0], "--eval", evaluation)
    assert done.code == 3
    assert "the evaluation has no score of" in done.err
    skipped = run("show", rows, "owner__repo3-19", "--eval", evaluation)
    assert skipped.code == 3
    assert "a row that was skipped" in skipped.err


def test_json_lists_every_token(run: Run, rows: Path, evaluation: Path) -> None:
    held_out = rows.with_name("rows.test.jsonl")
    value = run("show", held_out, ids(held_out)[0], "--eval", evaluation, "--json").value
    [known] = value["evaluated"]
    tokens = known["scores"]["tokens"]
    assert (
        "".join(t["text"] for t in tokens) == value["places"][0]["row"]["response"] + "<|im_end|>"
    )
    assert set(tokens[0]) == {"text", "class", "before", "after"}
    assert [side["role"] for side in known["scores"]["sides"]] == ["before", "after"]
    assert known["scores"]["sides"][1]["nll_sum"] == pytest.approx(sum(t["after"] for t in tokens))
    assert known["predictions"] == []


def test_a_page_and_predictions(run: Run, rows: Path, evaluation: Path, folder: Path) -> None:
    held_out = rows.with_name("rows.test.jsonl")
    name = ids(held_out)[0]
    prediction = {"instance_id": name, "model_name_or_path": "mine", "model_patch": ""}
    write_rows(folder / "preds.jsonl", [{**prediction, "raw_output": HOSTILE}])
    flags = ["--eval", evaluation, "--predictions", "preds.jsonl", "--html", "row.html"]
    done = run("show", held_out, name, *flags)
    assert done.code == 0, done.err
    assert done.err == "wrote row.html\n"
    assert "answer of mine (preds.jsonl:1)" in done.out
    assert " gold | +    return first + second" in done.out
    assert not {"\x1b", "\x07", "\u202e", "\u200b", "\x9b"} & set(done.out)
    page = checked((folder / "row.html").read_text("utf-8"))
    assert {"result", "change", "nll", "answer-1", "mask", "row", "path"} <= set(page.ids())
    again = run("show", held_out, name, *flags)
    assert again.code == 0
    # Without an evaluation the answer is shown against the row alone.
    alone = run("show", held_out, name, "--predictions", "preds.jsonl")
    assert alone.code == 0
    assert "scores: " not in alone.out
    assert "answer of mine" in alone.out


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--eval", "tuned"], 2, "goes with the ID of a row"),
        (["ID", "--eval", "nothing"], 2, "there is no evaluation.json"),
        (["ID", "--eval", "tuned", "--html", "page.txt"], 2, "is no name of a page"),
        (["ID", "--eval", "tuned", "--max-length", 512], 5, "--max-length 40000, not 512"),
        (["ID", *["--eval", "tuned"] * 3], 2, "one evaluation or two"),
        (["ID", "--eval", "tuned", "--predictions", "none.jsonl"], 3, "none.jsonl"),
    ],
)
@pytest.mark.usefixtures("evaluation")
def test_what_cannot_be_shown_is_refused(
    run: Run, rows: Path, flags: list[Any], code: int, message: str
) -> None:
    held_out = rows.with_name("rows.test.jsonl")
    named = [ids(held_out)[0] if flag == "ID" else flag for flag in flags]
    done = run("show", held_out, *named)
    assert done.code == code
    assert message in done.err
    assert not done.out


def test_another_tokenizer_is_refused(run: Run, rows: Path, evaluation: Path, folder: Path) -> None:
    held_out = rows.with_name("rows.test.jsonl")
    other = tiny_tokenizer(folder, name="other")
    config = json.loads((other / "tokenizer.json").read_text("utf-8"))
    config["normalizer"] = None
    (other / "tokenizer.json").write_text(json.dumps(config), "utf-8")
    flags = ["--eval", evaluation, "--model", other]
    done = run("show", held_out, ids(held_out)[0], *flags)
    assert done.code == 5
    assert "not the one of the evaluation" in done.err


def test_rows_of_one_id_are_all_shown_but_make_no_page(
    run: Run, folder: Path, tokenizer: Path
) -> None:
    row = {"instance_id": "a", "prompt": "p", "response": "one"}
    path = write_rows(folder / "rows.jsonl", [row, {**row, "response": "another"}])
    place = write_evaluation(
        folder / "model", read_examples(path).examples, tokenizer, lambda *_: 1
    )
    assert run("show", path, "a", "--eval", place).out.count("scores: ") == 2
    both = run("show", path, "a", "--eval", place, "--html", "row.html")
    assert both.code == 2
    assert "a page shows one row, 2 are meant" in both.err
    assert not (folder / "row.html").exists()


def test_colours_on_a_terminal_only(rows: Path, evaluation: Path) -> None:
    held_out = rows.with_name("rows.test.jsonl")
    arguments = ("show", held_out, ids(held_out)[0], "--eval", evaluation)
    coloured = on_a_terminal(*arguments)
    assert "\x1b[48;5;214;38;5;16md" in coloured
    assert re.search(r"\x1b\[1;34m     after +[\d.]+  \x1b\[0m", coloured)
    plain = on_a_terminal(*arguments, NO_COLOR="1")
    assert "\x1b" not in plain
    assert "nats of each token below its first letter" in plain


def test_hostile_rows_are_spelt_out_and_long_ones_cut(
    run: Run, folder: Path, tokenizer: Path
) -> None:
    response = f"{HOSTILE}\t\x00\n" + "".join(f"{number} wrong\n" for number in range(3000))
    response += "x" * 5000
    path = write_rows(
        folder / "rows.jsonl", [{"instance_id": "a", "prompt": "p"} | {"response": response}]
    )
    place = write_pair(folder / "tuned", read_examples(path).examples, tokenizer)
    done = run("show", path, "a", "--eval", place)
    assert done.code == 0, done.err
    assert not {"\x1b", "\x07", "\u202e", "\u200b", "\x9b", "\x00"} & set(done.out)
    assert "\\x1b" in done.out
    assert "… 2962 lines more (--full shows all) …" in done.out
    assert len(done.out) < 60_000
    ruled = done.out.partition("nats of each token")[2].partition("gained most")[0]
    assert max(map(len, ruled.split("\n")[1:])) <= 100
    assert "lines more" not in run("show", path, "a", "--eval", place, "--full").out


@pytest.mark.slow
def test_two_models_really_evaluated(run: Run, rows: Path, tokenizer: Path, folder: Path) -> None:
    held_out = rows.with_name("rows.test.jsonl")
    models = [tiny_model(folder, tokenizer, seed=seed, hidden=16, layers=1) for seed in (0, 1)]
    done = run("evaluate", *models, held_out, "--output", "scored", "--generate", 2, "-q")
    assert done.code == 0, done.err
    places = sorted((folder / "scored").iterdir())
    flags = [flag for place in places for flag in ("--eval", place)]
    answered = json.loads((places[0] / "generations.jsonl").read_text("utf-8").split("\n")[0])
    shown = run("show", held_out, answered["instance_id"], *flags, "--html", "row.html", "--json")
    assert shown.code == 0, shown.err
    [known] = shown.value["evaluated"]
    for side in known["scores"]["sides"]:
        total = sum(token[side["role"]] for token in known["scores"]["tokens"])
        assert total == pytest.approx(side["nll_sum"], rel=1e-5)
    assert [one["origin"] for one in known["predictions"]] == ["evaluate", "evaluate"]
    checked((folder / "row.html").read_text("utf-8"))
    compared = run("compare", *places, "--html", "compared.html", "-q")
    assert compared.code == 0, compared.err
    checked((folder / "compared.html").read_text("utf-8"))
