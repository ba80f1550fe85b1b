"""The quickstart on a small tree: everything it promises, in seconds."""

from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path

import pytest

from swe_scaffold.quickstart import QuickstartResult, TinyRecipe, quickstart
from swe_scaffold.quickstart.corpus import halves, read_corpus
from swe_scaffold.quickstart.tiny_model import Corpus, tiny_model
from swe_scaffold.terminal import SILENT

PACKAGES = (
    *("json", "email", "logging", "concurrent", "urllib", "html", "http", "xml", "wsgiref"),
    *("argparse.py", "ast.py", "bdb.py", "calendar.py", "cmd.py", "code.py", "configparser.py"),
    *("csv.py", "difflib.py", "dis.py", "doctest.py", "fractions.py", "ftplib.py", "getopt.py"),
)
RECIPE = TinyRecipe(
    vocab_size=512, hidden_size=32, intermediate_size=64, layers=2, window=64, steps=6
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A handful of the standard library's packages."""
    root = tmp_path_factory.mktemp("tree")
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in PACKAGES:
        source = library / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copyfile(source, root / name)
    return root


@pytest.fixture(scope="module")
def result(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> QuickstartResult:
    folder = tmp_path_factory.mktemp("quickstart")
    return quickstart(folder, reporter=SILENT, tree=tree, count=60, steps=4, recipe=RECIPE)


def test_the_halves_share_no_package_and_miss_none(tree: Path) -> None:
    first, second = halves(tree)
    assert not set(first) & set(second)
    assert {*first, *second} == {name.removesuffix(".py") for name in PACKAGES}


@pytest.mark.slow
def test_the_corpus_holds_code_and_diffs_of_its_packages_alone(tree: Path) -> None:
    first, _ = halves(tree)
    corpus = read_corpus(tree, first, seed=1)
    assert set(corpus.packages) == set(first)
    assert corpus.code
    assert all("\n+++ b/" in text for text in corpus.tasks)
    assert corpus == read_corpus(tree, first, seed=1)


@pytest.mark.slow
def test_model_and_tasks_come_from_different_packages_and_the_audit_says_so(
    result: QuickstartResult,
) -> None:
    manifest = json.loads((result.model / "manifest.json").read_bytes())
    read = set(manifest["corpus"]["packages"])
    tasks = [json.loads(line) for line in result.tasks.read_bytes().split(b"\n") if line]
    assert tasks
    assert not read & {task["repo"] for task in tasks}
    codes = [finding.code for finding in result.audit.findings]
    assert codes.count("pretraining_disjoint") == 2


@pytest.mark.slow
def test_every_number_of_the_table_is_there_with_its_interval(result: QuickstartResult) -> None:
    report = result.evaluation.report
    assert report["rows_seen_in_training"] == 0
    assert report["rows_unseen"] == result.build.counts["test"] > 0
    for part in ("base", "unseen"):
        for metric in ("nll", "perplexity", "bits_per_byte"):
            assert report[part][metric]["ci"] is not None
        assert {"header", "context", "removed", "added", "end"} <= set(report[part]["by_class"])
    assert report["comparison"]["effect"]["n"] == result.build.counts["test"]
    assert report["shuffled_prompts"]["comparison"] is not None


@pytest.mark.slow
def test_the_hold_out_is_made_of_whole_packages(result: QuickstartResult) -> None:
    data = Path(result.build.output)

    def repos(path: Path) -> set[str]:
        return {json.loads(line)["repo"] for line in path.read_bytes().split(b"\n") if line}

    assert not repos(data) & repos(data.with_name("quickstart.test.jsonl"))


@pytest.mark.slow
def test_the_model_is_made_once_per_corpus_and_recipe(
    result: QuickstartResult, tree: Path, tmp_path: Path
) -> None:
    corpus = read_corpus(tree, halves(tree)[0], seed=42)
    parent = result.model.parent
    before = (result.model / "model.safetensors").stat().st_mtime_ns
    assert tiny_model(parent, corpus, SILENT, recipe=RECIPE) == result.model
    assert (result.model / "model.safetensors").stat().st_mtime_ns == before
    again = tiny_model(tmp_path, corpus, SILENT, recipe=RECIPE)
    for name in ("tokenizer.json", "model.safetensors"):
        assert (again / name).read_bytes() == (result.model / name).read_bytes()
    other = Corpus((*corpus.code, "x = 1\n"), corpus.tasks, corpus.packages)
    assert tiny_model(parent, other, SILENT, recipe=RECIPE) != result.model
