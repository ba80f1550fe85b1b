"""Every real prediction: given as it is, found in an answer, and its counts damaged and mended."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from swe_scaffold.patches import extract_patch, repair_patch
from tests.patches.test_repairs import damage, spelled_out


@pytest.fixture(scope="module")
def predictions(shared_data: Path) -> list[str]:
    """The patches of 901 predictions by three agents; 38 have none."""
    return [
        json.loads(line)["model_patch"] or ""
        for path in sorted((shared_data / "predictions").glob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
    ]


def test_real_patches_stay_as_they_are(predictions: list[str]) -> None:
    patches = [text for text in predictions if text.strip()]
    assert (len(predictions), len(patches)) == (901, 863)
    for text in predictions:
        assert repair_patch(text) == (text, {})
    for patch in patches:
        for answer in (patch, f"I did:\n\n```diff\n{patch}```\nDone.\n", f"So:\n{patch}\n- this\n"):
            found = extract_patch(answer)
            assert (found.patch, dict(found.repairs), found.problem) == (patch, {}, "")


def test_damaged_counts_of_real_patches_are_counted_again(predictions: list[str]) -> None:
    """All but those where blank lines between files could as well be context."""
    refused = 0
    for number, patch in enumerate(filter(str.strip, predictions)):
        damaged = damage(patch, [(number + place) % 5 - 2 for place in range(7)])
        found = extract_patch(f"<patch>\n{damaged}</patch>\n")
        if found.problem:
            assert found.problem == "hunk_ambiguous"
            assert "\n\n--- " in patch
            refused += 1
        elif damaged.rstrip("\n ") + "\n" == damaged:
            assert spelled_out(found.patch) == spelled_out(patch)
    assert refused < 200


@pytest.mark.slow
def test_git_reads_every_real_patch_that_is_given(predictions: list[str], tmp_path: Path) -> None:
    for patch in filter(str.strip, predictions):
        done = subprocess.run(
            ["git", "apply", "--numstat", "-"],
            cwd=tmp_path,
            input=patch.encode(),
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
