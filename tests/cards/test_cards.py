"""Cards say what manifests say, say what is missing, and are not steered by what they repeat."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from swe_scaffold.cards import ModelFacts, data_card, model_card, published
from swe_scaffold.cards.markdown import front_matter, plain, table
from swe_scaffold.config import SpeedrunConfig, dump_config

HOSTILE = (
    "](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "a\n---\nlicense: mit\n# heading",
    "```\nend of the fence",
    "`code` | cell | $math$ {{ template }}",
    "![x](https://evil.example/x.png) https://evil.example www.evil.example a@evil.example",
    "\x1b[31mred\x1b[0m \u202e\u200b\x00",
    "key: [value, &anchor *alias !!python/object:os.system",
    "'; rm -rf ~; echo '",
)


def metric(value: float, *, clusters: int = 12) -> dict[str, Any]:
    return {
        "value": value,
        "ci": [value - 0.1, value + 0.1],
        "n": 40,
        "tokens": 900,
        "clusters": clusters,
        "level": 0.95,
        "ci_method": "clustered t",
        "reason": "few clusters (4 < 8)" if clusters < 8 else None,
    }


def evaluation(**changes: Any) -> dict[str, Any]:
    part = {"nll": metric(1.5), "perplexity": metric(4.48), "bits_per_byte": metric(0.7)}
    return {
        "schema": 1,
        "model": {"dtype": "float32", "device": "cpu"},
        "data": {
            "path": "/home/someone/data/rows.test.jsonl",
            "sha256": "c" * 64,
            "rows": 41,
            "scored": 40,
        },
        "settings": {"cluster_by": "group"},
        "rows_seen_in_training": 0,
        "rows_unseen": 40,
        "unseen": part,
        "base": part,
        "comparison": {
            "effect": metric(-0.5),
            "rows": {"better": 30, "worse": 9, "equal": 1},
            "minimum_detectable_effect": 0.21,
            "sign_flip": {"p_value": 0.004, "smallest_p": 0.0005},
            "verdict": "better",
        },
        "compared_rows": "unseen",
        "shuffled_prompts": {"comparison": {"effect": metric(-0.01)}, "left_out": 2},
        "notes": [],
    } | changes


def run(**changes: Any) -> dict[str, Any]:
    config = dump_config(SpeedrunConfig())
    config["training"] |= {"learning_rate": 0.001, "model_name": "/home/someone/models/qwen"}
    return {
        "tool": "swe-speedrun-scaffold",
        "version": "0.1.0",
        "base_name": "qwen",
        "base": {"name": "qwen", "local": True, "path": "../../models/qwen"},
        "data": {"name": "rows.jsonl", "path": "../rows.jsonl"},
        "config": config,
        "fingerprint": {"data": "d" * 64, "base": "b" * 64, "holdout": "e" * 64},
        "counts": {
            "rows": 60,
            "trained": 40,
            "held_out": 18,
            "skipped": {"over_length": 2},
            "target_tokens": 1234,
            "tokens": 4000,
        },
        "result": {"steps": 12, "eval_nll": 1.51234, "train_loss": 1.9},
        "notes": ["hold-out: rows.test.jsonl, 18 rows"],
    } | changes


def data(**changes: Any) -> dict[str, Any]:
    return {
        "sources": ["SWE-bench/SWE-bench", "data/mine.jsonl"],
        "inputs": [{"path": "data/mine.jsonl", "rows": 70, "sha256": "f" * 64}],
        "outputs": {"rows.jsonl": {"role": "dev", "rows": 42, "sha256": "d" * 64}},
        "counts": {
            "read": 70,
            "dev": 42,
            "test": 18,
            "skipped": 10,
            "beyond_limit": 0,
            "skipped_by_reason": {"empty_response": 10},
            "dev_labels": {"success": 42},
            "dev_repos": 3,
            "stages": [{"name": "empty_response", "rows": 70, "skipped": {}}],
        },
        "split": {"method": "repo", "seed": 42, "dev_split": 0.7, "held_out_repos": ["a/b"]},
        "notes": ["using split test of SWE-bench/SWE-bench, revision 0123456789ab"],
    } | changes


def front(card: str) -> Any:
    assert card.startswith("---\n")
    return yaml.safe_load(card[4:].split("\n---\n", 1)[0])


def body(card: str) -> str:
    return card[4:].split("\n---\n", 1)[1]


def html(card: str) -> str:
    return str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(body(card)))


def test_a_card_holds_the_numbers_with_their_intervals() -> None:
    facts = ModelFacts("tuned", "merged", run(), data(), [evaluation()])
    card = model_card(facts)
    assert (
        "| unseen rows | NLL, nats per response token | 1.50 | 95 % \\[1.40, 1.60\\] | 40 | 900 | "
        "12 | clustered t |" in card.replace("\u00a0", " ")
    )
    assert "Verdict: better: the interval lies below zero. Rows: better 30, worse 9" in card
    assert "A true difference of about 0.21 would be found in most repetitions" in card
    assert "p = 0.004 (the smallest possible here: 0.0005)" in card
    assert "no use of the prompt is shown. Left out: 2 rows." in card
    assert "| learning_rate | 0.001 | 0.0002 |" in card.replace("\\_", "_")
    assert "| skipped, by reason | over\\_length 2 |" in card
    assert "swe-scaffold evaluate tuned rows.jsonl" in card
    assert "/home/someone" not in card


def test_the_hub_reads_what_is_known_and_nothing_else() -> None:
    found = front(model_card(ModelFacts("tuned", "merged", run(), data(), [evaluation()])))
    assert found["library_name"] == "transformers"
    assert (found["base_model"], found["pipeline_tag"]) == ("qwen", "text-generation")
    assert found["datasets"] == ["SWE-bench/SWE-bench"]
    (result,) = found["model-index"][0]["results"]
    assert {entry["type"]: entry["value"] for entry in result["metrics"]} == {
        "nll": 1.5,
        "perplexity": 4.48,
        "bits_per_byte": 0.7,
    }
    assert "license" not in found
    hub = run(base={"name": "Qwen/Qwen2.5-3B-Instruct", "local": False})
    found = front(model_card(ModelFacts("tuned", "adapter", hub)))
    assert found["base_model_relation"] == "adapter"
    assert not {"license", "datasets", "model-index"} & set(found)


def test_a_local_folder_of_two_parts_is_no_hub_data_set() -> None:
    local = data(sources=["data/raw"], notes=["using split test of other/data, revision 0123456"])
    assert "datasets" not in front(model_card(ModelFacts("m", "merged", run(), local)))


def test_a_verdict_beyond_its_interval_is_not_repeated() -> None:
    report = evaluation()
    report["comparison"]["effect"]["ci"] = [-1.0, 0.5]
    card = model_card(ModelFacts("tuned", "merged", run(), {}, [report]))
    assert "Verdict: no difference shown, which is not the same as no difference." in card
    assert "better: the interval" not in card


def test_weak_numbers_are_named_among_the_limits() -> None:
    weak = {"nll": metric(1.5, clusters=4)}
    seen = evaluation(unseen=None, trained=weak, rows_unseen=0, rows_seen_in_training=40)
    limits = model_card(ModelFacts("m", "merged", run(), {}, [seen])).partition("## Limits")[2]
    assert "- rows.test.jsonl, rows seen in training: few clusters (4 \\< 8)." in limits
    assert "40 rows had been seen in training, none was unseen." in limits
    assert "how many issues this model resolves was not measured" in limits


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_what_is_missing_is_said(kind: Any) -> None:
    card = model_card(ModelFacts("", kind, {}, {}, [{}]))
    for text in (
        "a base whose name is not recorded",
        "How many rows were trained, and for how many steps: not recorded.",
        "This report holds no likelihoods that could be read.",
        "**Tuned against base:** not compared in this evaluation.",
        "**Shuffled-prompt control:** not run in this evaluation.",
        "Configuration: not recorded.",
        "No manifest of a build was found for this training file",
        "License: not recorded.",
        "| base SHA-256 (config and weights) | not recorded |",
    ):
        assert text in card
    assert "No evaluation of these weights is on record" in model_card(ModelFacts("m", kind, {}))


def test_a_data_card_holds_the_ledger_or_says_that_there_is_none() -> None:
    card = data_card(data(), run=run())
    assert front(card)["size_categories"] == ["n<1K"]
    for text in (
        "| rows read | 70 |",
        "| skipped, by reason | empty\\_response 10 |",
        "| repositories held out | a/b |",
        "| prompt and response | 4,000 | 100 |",
        "| repositories in test | not recorded |",
        f"`{'d' * 64}`",
    ):
        assert text in card
    assert "does not add up" not in card
    changed = data(counts={**data()["counts"], "read": 71})
    assert "The ledger of this manifest does not add up" in data_card(changed, run=run())
    card = data_card({}, run={})
    assert "No manifest of a build was found beside the training file." in card
    assert "size_categories" not in front(card)


def everywhere(value: Any, text: str) -> Any:
    """Put a text in place of every text, and beside every key, of a manifest."""
    if isinstance(value, dict):
        return {**{k: everywhere(v, text) for k, v in value.items()}, text: text}
    if isinstance(value, list):
        return [*(everywhere(item, text) for item in value), text]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_shown_and_does_nothing(text: str) -> None:
    facts = ModelFacts(
        text,
        "merged",
        everywhere(run(), text),
        everywhere(data(), text),
        [everywhere(evaluation(), text)],
        1,
        everywhere({"proof": {"difference": 0.1}}, text),
    )
    for card in (model_card(facts), data_card(facts.data, run=facts.manifest)):
        assert not re.search("[\x00-\x09\x0b-\x1f\u200b\u202e]", card)
        found = front(card)
        assert set(found) <= {
            "base_model",
            "library_name",
            "pipeline_tag",
            "tags",
            "datasets",
            "model-index",
            "task_categories",
            "language",
            "size_categories",
        }
        page = html(card)
        assert not re.search(
            r"<(?!/?(h[1-6]|p|table|thead|tbody|tr|th|td|code|pre|ul|li|strong)\b)",
            page.replace("<br>", ""),
        ), page
        assert len(re.findall(r"<h1>", page)) == 1
        # No row of a table has grown a cell.
        for rows in re.findall(r"<table>.*?</table>", page, flags=re.DOTALL):
            assert len({len(re.findall(r"<t[hd]>", row)) for row in rows.split("</tr>")[:-1]}) == 1


@pytest.mark.parametrize("text", [*HOSTILE, "a|b", "a\\|b"])
def test_a_hostile_cell_stays_one_cell(text: str) -> None:
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        "\n".join(table(["a", "b"], [[plain(text), "last"]]))
    )
    assert "<td>last</td>" in page


@given(st.text(max_size=60))
def test_any_text_stays_one_cell_on_one_line(text: str) -> None:
    shown = plain(text)
    assert "\n" not in shown
    lines = table(["a", "b"], [[shown, "last"]])
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render("\n".join(lines))
    assert page.count("<td>") == 2
    assert "<td>last</td>" in page
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td)>)", page)


TEXTS = st.text(max_size=20)
TREES = st.recursive(
    TEXTS, lambda s: st.lists(s, max_size=3) | st.dictionaries(TEXTS, s, max_size=3), max_leaves=6
)


@given(TREES)
def test_yaml_is_read_back_as_it_was_meant(value: Any) -> None:
    lines = front_matter({"key": value, "last": "end"})
    assert lines.count("---") == 2
    assert lines[-2:] == ["---", ""]
    assert yaml.safe_load("\n".join(lines[1:-2]))["last"] == "end"


def test_addresses_are_no_links() -> None:
    assert plain("https://a.b www.a.b c@a.b a: b") == r"https\://a.b www\.a.b c\@a.b a: b"


def test_a_published_manifest_names_no_place() -> None:
    notes = ["splits of /home/someone/data; a/b / c", "from ~/someone/y.jsonl ('/opt/someone/z')"]
    manifest = run(inputs=[{"path": "~/x/rows.jsonl"}], notes=notes, other="data/rows.jsonl")
    text = json.dumps(published(manifest))
    assert not re.search(r"someone|\.\./|~", text)
    assert published(manifest)["config"]["training"]["model_name"] == "qwen"
    assert published(manifest)["notes"] == ["splits of data; a/b / c", "from y.jsonl ('z')"]
    assert published(manifest)["other"] == "data/rows.jsonl"
    assert published(manifest)["data"] == {"name": "rows.jsonl"}
    assert manifest["base"]["path"] == "../../models/qwen"


def test_cards_of_every_reading_are_the_same() -> None:
    facts = ModelFacts("tuned", "merged", run(), data(), [evaluation()])
    again = json.loads(json.dumps([run(), data(), evaluation()]))
    assert model_card(facts) == model_card(ModelFacts("tuned", "merged", *again[:2], again[2:]))
