"""The page of a run: whole, harmless, honest about what is missing, the same bytes each time."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_scaffold.errors import UsageError
from swe_scaffold.report import run_page
from tests.report import sample
from tests.report.reading import checked, read_page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\x1b[31m\x00"
SPELT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\\u{202e}\\x1b[31m\\x00"
SECTIONS = (
    *("result", "training", "classes", "groups", "slices", "lengths", "ledger", "labels"),
    *("commands", "configuration"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write_run(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture(scope="module")
def whole_page(run: Path) -> str:
    return run_page(run)


def section_of(text: str, name: str) -> str:
    return text.partition(f'id="{name}"')[2].partition("</section>")[0]


def test_a_whole_run_has_every_section(whole_page: str) -> None:
    found = checked(whole_page)
    assert not re.search(r"src=|href=|//|javascript:", whole_page)
    assert [a["id"] for tag, a in found.elements if tag == "section"] == list(SECTIONS)
    assert found.text.count("quickstart") >= 2
    assert "Lower loss than the base on unseen rows." in found.text
    assert "Responses are likelier after their own prompt." in found.text
    assert (
        "base tiny-qwen2 · 120 optimizer steps · 307 rows trained · 84 rows held out" in found.text
    )
    assert "400 rows of the file = 307 trained + 84 held out + 9 skipped" in found.text
    assert "does not add up" not in found.text


def test_every_chart_is_drawn_twice_and_has_numbers_behind(whole_page: str) -> None:
    found = checked(whole_page)
    drawn = [a["aria-labelledby"] for tag, a in found.elements if tag == "svg"]
    for width in ("wide", "narrow"):
        assert [ids.split(f"-{width}-")[0] for ids in drawn if f"-{width}-" in ids] == [
            *("differences", "loss", "rate", "classes", "groups", "both", "responses"),
            *("ledger-training", "ledger-evaluation", "labels"),
        ]
    tables = [tag for tag, _ in found.elements if tag == "table"]
    assert len(tables) >= 10


def test_the_numbers_are_those_of_the_report(run: Path) -> None:
    report = sample.evaluation()
    report["comparison"]["effect"] |= {"value": -0.4567, "ci": [-0.5012, -0.4122]}
    report["base"]["nll"] |= {"value": 2.0449, "ci": [1.91, 2.18]}
    text = read_page(run_page(run, report)).text
    assert "tuned\u00a0−\u00a0base is −0.457 nats per response token" in text
    assert "95\u00a0% interval [−0.501,\u00a0−0.412], which lies below zero." in text
    assert "2.04[1.91, 2.18]" in text


def test_the_same_inputs_give_the_same_bytes(run: Path, whole_page: str, tmp_path: Path) -> None:
    assert run_page(run) == whole_page
    assert run_page(run, sample.evaluation()) == whole_page

    def later(manifest: dict[str, Any]) -> None:
        manifest.update(finished="2031-01-01T00:00:00Z", wall_seconds=1234.5)

    again = sample.write_run(tmp_path / "quickstart", change=later)
    assert run_page(again) == whole_page


def infected(value: Any, *, keys: tuple[str, ...] = ()) -> Any:
    """The same value with the hostile text at the end of every string, and of named keys below."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, list | tuple):
        return [infected(one, keys=keys) for one in value]
    if isinstance(value, dict):
        return {
            key: {f"{name}{HOSTILE}": infected(one) for name, one in child.items()}
            if key in keys and isinstance(child, dict)
            else infected(child, keys=keys)
            for key, child in value.items()
        }
    return value


def test_hostile_text_is_only_ever_text(tmp_path: Path) -> None:
    report = infected(
        sample.evaluation(), keys=("group", "token_class", "by_class", "labels", "skipped")
    )
    report["comparison"]["verdict"] = "better"
    report["compared_rows"] = "unseen"
    report["data"]["sha256"] = sample.DATA_SHA256
    manifest = infected(sample.manifest(), keys=("skipped", "lora", "packages", "files"))
    folder = sample.write_run(tmp_path / "run", report=report, change=lambda m: m.update(manifest))
    facts = {
        "commands": [HOSTILE],
        "notes": [HOSTILE],
        f"more{HOSTILE}": {HOSTILE: HOSTILE},
        "ledger": {"rows": 1, "dev": 0, "skipped": {HOSTILE: 1}},
    }
    text = run_page(folder, title=HOSTILE, facts=facts)
    found = checked(text)
    assert found.text.count(SPELT) > 100
    for name in ("groups", "ledger", "configuration", "commands", "classes", "labels"):
        assert "&lt;script&gt;" in section_of(text, name)
    worst = report["comparison"]["worst"]
    assert not worst or SPELT[:9] in found.text


def test_a_run_without_evaluation_is_a_good_page(tmp_path: Path) -> None:
    folder = sample.write_run(tmp_path / "run")
    (folder / "evaluation").rename(tmp_path / "elsewhere")
    text = run_page(folder)
    found = checked(text)
    assert "Not evaluated yet." in found.text
    assert "The hold-out loss went from 2.31 at step 0 to 1.567 at step 120" in found.text
    assert "swe-scaffold evaluate" in section_of(text, "commands")
    assert 'id="groups"' not in text


def test_a_run_under_way_is_shown_from_its_record(tmp_path: Path) -> None:
    content = {"config": {"training": {"learning_rate": 0.125}}, "fingerprint": {"data": "f" * 64}}
    (tmp_path / "run.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.5, "lr": 0.1, "targets": 10}\n{"step": 2, "lo', encoding="utf-8"
    )
    found = checked(run_page(tmp_path, title="under way"))
    assert "0.125" in found.text
    assert "f" * 64 in found.text
    assert "this run has not finished, or is damaged" in found.text
    assert "could not be read" not in found.text


def test_an_empty_folder_is_a_page_with_notes(tmp_path: Path) -> None:
    found = checked(run_page(tmp_path))
    assert "No training steps are recorded." in found.text
    assert "There is no metrics.jsonl" in found.text


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run folder"):
        run_page(tmp_path / "nowhere")


def test_damaged_files_are_left_out_with_a_note(tmp_path: Path) -> None:
    folder = sample.write_run(tmp_path / "run")
    (folder / "manifest.json").write_bytes(b"\xff{")
    with (folder / "metrics.jsonl").open("ab") as stream:
        stream.write(b'\xff\n[1]\n{"step": "x"}\n' + b"[" * 100_000 + b"\n{}\n\n\n")
    (folder / "evaluation" / sample.DATA_SHA256[:16] / "evaluation.json").write_text("[1, 2]")
    found = checked(run_page(folder))
    assert "manifest.json could not be read and is left out." in found.text
    assert "5 lines of metrics.jsonl could not be read." in found.text
    assert "evaluation.json could not be read and is left out." in found.text
    assert "Not evaluated yet." in found.text
    assert 'id="loss-wide-title"' in run_page(folder)


def test_of_two_lines_about_a_step_the_later_counts(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 1, "loss": 7.625}', '{"step": 2, "loss": NaN}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = checked(run_page(tmp_path))
    assert "Training loss 7.625 at step 1, 7.625 at step 1." in found.text


def test_the_newest_evaluation_is_shown_and_the_others_are_told(tmp_path: Path) -> None:
    folder = sample.write_run(tmp_path / "run")
    other = sample.evaluation(sample.scores(30, seed=9))
    other["data"]["sha256"] = "9" * 64
    sample.write_evaluation(folder, other, age=3600)
    found = checked(run_page(folder))
    assert "84 unseen rows in 14 groups" in found.text
    assert "the folder holds 1 other evaluation." in found.text
    sample.write_evaluation(folder, other, age=-3600)
    assert "30 unseen rows in 14 groups" in read_page(run_page(folder)).text


def test_lengths_come_from_the_facts_or_the_scores(run: Path, tmp_path: Path) -> None:
    assert "Tokens per row over 84 scored rows" in read_page(run_page(run)).text
    given = {"lengths": {"prompt": [10, 20, 30], "response": [1, 2, 3]}}
    found = read_page(run_page(run, facts=given)).text
    assert "Tokens per row over 3 rows" in found
    assert "Both1122333366" in found
    assert 'id="lengths"' not in run_page(tmp_path, facts={"lengths": {"prompt": [1]}})


def test_a_ledger_that_does_not_add_up_is_told(tmp_path: Path) -> None:
    def lose_rows(manifest: dict[str, Any]) -> None:
        manifest["counts"]["trained"] -= 5

    folder = sample.write_run(tmp_path / "run", change=lose_rows)
    assert "This does not add up." in read_page(run_page(folder)).text


def test_the_ledger_of_a_build_is_shown(run: Path) -> None:
    counts = {
        "read": 440,
        "dev": 350,
        "test": 80,
        "skipped": 10,
        "beyond_limit": 0,
        "skipped_by_reason": {"short_patch": 7, "duplicate": 3},
    }
    text = read_page(run_page(run, facts={"ledger": counts})).text
    assert "440 rows read = 350 dev + 80 test + 0 beyond limit + 10 skipped" in text
    assert "add up" not in text


def test_the_command_makes_the_same_report(run: Path) -> None:
    report = sample.evaluation()
    report["model"]["name"] = "my runs/it's one"
    report["settings"] |= {"cluster_by": "repo", "iterations": 9999}
    text = read_page(run_page(run, report)).text
    assert (
        "swe-scaffold evaluate 'my runs/it'\"'\"'s one' data/quickstart.test.jsonl \\\n"
        "    --compare-base \\\n    --shuffled-control \\\n    --set evaluation.cluster_by=repo"
    ) in text
    assert "iterations=" not in text
    given = read_page(run_page(run, report, facts={"commands": ["make quickstart"]})).text
    assert "make quickstart" in given
    assert "evaluate" not in given.partition("To compute it again")[2].partition("Configuration")[0]


def test_many_groups_are_drawn_in_part_and_told(run: Path) -> None:
    rows = sample.scores(180, groups=[f"owner/project-{i}" for i in range(60)])
    text = run_page(run, sample.evaluation(rows, sample.moved(rows, -0.3)))
    found = checked(text)
    assert "Drawn are the 40 groups with the most tokens." in found.text
    assert section_of(text, "groups").count("<circle") == 2 * 41
    assert section_of(text, "groups").count('<th scope="row"><code>owner/') >= 60


@pytest.mark.slow
def test_a_page_of_a_long_run_stays_small(tmp_path: Path) -> None:
    lines = (json.dumps(line) + "\n" for line in sample.metrics(20_000, every=1000))
    (tmp_path / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    assert len(run_page(tmp_path)) < 150_000


JUNK = st.sampled_from(
    [None, True, -1, 10**400, float("nan"), float("inf"), 1e308, "", "x", [], [1], {}, {"a": 1}]
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a tree."""
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else ()
    for key, child in items:
        found += paths(child, (*at, key))
    return found


def replaced(tree: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.get(key) if isinstance(tree.get(key), dict) else {}
    if path[-1] in tree:
        tree[path[-1]] = value


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_inside_a_report_still_gives_a_page(run: Path, data: st.DataObject) -> None:
    report = copy.deepcopy(REPORT)
    for _ in range(data.draw(st.integers(1, 6))):
        replaced(report, data.draw(st.sampled_from(PLACES)), data.draw(JUNK))
    checked(run_page(run, report))


REPORT = sample.evaluation(sample.scores(16, groups=["a", "b"]))
PLACES = paths(REPORT)


@pytest.mark.slow
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_damage_inside_a_manifest_still_gives_a_page(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    places, folder = paths(sample.manifest()), tmp_path_factory.getbasetemp() / "damaged"

    def damage(manifest: dict[str, Any]) -> None:
        for _ in range(data.draw(st.integers(1, 6))):
            replaced(manifest, data.draw(st.sampled_from(places)), data.draw(JUNK))

    sample.write_run(folder, report=REPORT, change=damage)
    facts = {name: data.draw(JUNK) for name in ("lengths", "ledger", "commands", "notes", "other")}
    checked(run_page(folder, facts=facts))
