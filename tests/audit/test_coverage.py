"""Coverage: token counts are those of rendering, and our way never costs a part of an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swe_scaffold.audit import audit_files
from swe_scaffold.audit.coverage import OURS, TokenLimits, TokenReport, measure_tokens
from swe_scaffold.audit.ledger import load_file
from swe_scaffold.quality.findings import Finding
from swe_scaffold.rendering import Renderer
from swe_scaffold.types import TokenizedExample
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    rows = ({"prompt": prompt, "response": response} for prompt, response in pairs)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text(words: int) -> str:
    return "".join(f"line {n} of a text\n" for n in range(words))


PAIRS = [
    ("short", "answer"),
    (text(80), "answer to a long prompt"),
    (text(80) + "!", text(20)),
    ("short again", text(80)),
    ("empty", " "),
]


def measured(
    folder: Path, tokenizer: Path, max_length: int, compared: tuple[int, ...] = (200, 400)
) -> tuple[TokenReport, list[Finding], list[TokenizedExample]]:
    loaded = load_file(write(folder / "x.jsonl", PAIRS))
    renderer = Renderer.load(tokenizer, offline=True)
    report, findings = measure_tokens(loaded, renderer, TokenLimits(max_length, 16, compared))
    rendered = [
        row for row in renderer.render_many(loaded.examples) if isinstance(row, TokenizedExample)
    ]
    return report, findings, rendered


def test_counts_are_those_of_rendering(tmp_path: Path, tokenizer: Path) -> None:
    report, _, rendered = measured(tmp_path, tokenizer, 100_000)
    assert report.rows == len(PAIRS)
    assert report.lengths.count == len(rendered)
    assert report.tokens == sum(len(row.input_ids) for row in rendered)
    assert report.trained_tokens == sum(row.targets for row in rendered)
    assert report.trained_share == report.trained_tokens / report.tokens
    assert (report.prompts_shortened, report.reasons.get("over_length")) == (0, None)


def test_our_way_cuts_no_answer_at_any_length(tmp_path: Path, tokenizer: Path) -> None:
    report, findings, rendered = measured(tmp_path, tokenizer, 300)
    ours = {cut.max_length: cut for cut in report.cuts if cut.policy == OURS}
    assert set(ours) == {200, 300, 400}
    for cut in ours.values():
        assert cut.answers_cut == 0
        assert cut.answers_lost >= sum(1 for row in rendered if row.targets >= cut.max_length)
    assert report.reasons["over_length"] == ours[300].answers_lost
    assert report.prompts_shortened == ours[300].prompts_shortened > 0
    assert report.trained_tokens == ours[300].targets - ours[300].targets_lost
    assert {"over_length", "prompt_shortened"} <= {finding.code for finding in findings}


def test_the_table_counts_what_tail_cutting_would_do(tmp_path: Path, tokenizer: Path) -> None:
    report, _, rendered = measured(tmp_path, tokenizer, 300)
    for cut in report.cuts:
        if cut.policy == "tail":
            kept = [int(row.loss_mask[: cut.max_length].sum()) for row in rendered]
            whole = [row.targets for row in rendered]
            pairs = list(zip(kept, whole, strict=True))
            assert cut.answers_lost == sum(1 for k, _ in pairs if k == 0)
            assert cut.answers_cut == sum(1 for k, w in pairs if 0 < k < w)
            assert cut.targets_lost == sum(whole) - sum(kept)
    assert {cut.policy for cut in report.cuts} == {"tail", "ratio", "drop", OURS}


def test_rows_without_targets_are_named(tmp_path: Path, tokenizer: Path) -> None:
    _, findings, rendered = measured(tmp_path, tokenizer, 100_000)
    assert len(rendered) <= len(PAIRS)
    named = [finding for finding in findings if finding.code == "no_trainable_tokens"]
    assert len(rendered) == len(PAIRS) or named[0].evidence[0].startswith("row-")


def test_an_audit_with_a_model_reports_tokens_as_strict_json(
    tmp_path: Path, tokenizer: Path
) -> None:
    path = write(tmp_path / "x.jsonl", PAIRS[:4])
    report = audit_files([path], model=str(tokenizer), offline=True, max_length=300)
    value = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    tokens = value["files"][0]["tokens"]
    assert tokens["proven_rows"] == 4
    assert len(tokens["cuts"]) == 3 * 3 + 4
    assert value["model"] == str(tokenizer)
    assert report.verdict == "attention"


@pytest.mark.slow
def test_real_rows_with_the_real_tokenizer(shared_data: Path, tmp_path: Path) -> None:
    from swe_scaffold.config import DatasetConfig
    from swe_scaffold.dataset import build_dataset

    source = str(shared_data / "swe-bench-lite" / "dev.parquet")
    config = DatasetConfig(max_examples=None, dev_split=1.0)
    build_dataset(config, output=tmp_path / "x.jsonl", sources=[source])
    model = str(shared_data / "qwen2.5-tokenizer")
    report = audit_files([tmp_path / "x.jsonl"], model=model, offline=True)
    tokens = report.files[0].tokens
    assert tokens is not None
    assert tokens.rows == 23
    tail = {cut.max_length: cut for cut in tokens.cuts if cut.policy == "tail"}
    assert tail[512].answers_cut + tail[512].answers_lost > 10
    assert all(cut.answers_cut == 0 for cut in tokens.cuts if cut.policy == OURS)
