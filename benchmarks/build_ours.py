"""Our side of each comparison: the command line, or the function a command calls.

python -c "import build_ours; build_ours.main()" NAME INPUT [OPTION=VALUE ...] OUTPUT_FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

SHINGLED_ROWS = 500


def build(rows: str, out: Path, *, stages: str = "", jobs: str = "2") -> None:
    """Run `swe-scaffold build` on all rows, with these quality stages or the default ones."""
    from swe_scaffold.cli import main as command

    chosen = () if stages == "default" else ("--set", f"dataset.quality.stages=[{stages}]")
    code = command(
        [
            *("build", "--dataset", rows, "--output", str(out / "dev.jsonl"), "--emit-test"),
            *("--limit", "0", "--jobs", jobs, "--offline", "--quiet", *chosen),
        ]
    )
    sys.exit(code)


def tokens(rows: str, out: Path, *, tokenizer: str, max_length: str, save: str = "no") -> None:
    """Do what `swe-scaffold train` does before it loads a model; every row is trained."""
    from swe_scaffold.cache import user_cache
    from swe_scaffold.config import SpeedrunConfig, TrainingConfig
    from swe_scaffold.rendering import Renderer
    from swe_scaffold.training.data import prepare

    training = TrainingConfig(
        eval_strategy="no", include_failures=True, max_length=int(max_length) or 1 << 24
    )
    start = time.perf_counter()
    made = prepare(
        Path(rows), SpeedrunConfig(training=training), Renderer.load(tokenizer), user_cache()
    )
    seconds = time.perf_counter() - start
    if save == "yes":
        with (out / "tokens.jsonl").open("w", encoding="ascii") as file:
            for row in made.trained:
                line: dict[str, Any] = {
                    "key": row.instance_id,
                    "ids": row.input_ids.tolist(),
                }
                line["targets"] = row.loss_mask.tolist()
                line["prompt_cut"] = int(row.prompt_cut)
                file.write(json.dumps(line) + "\n")
    note = {"prepare_seconds": seconds, "rows": len(made.trained), "counts": made.counts()}
    (out / "note.json").write_text(json.dumps(note), "ascii")


def near(texts: str, out: Path, *, threshold: str = "0.7") -> None:
    """Judge all texts by the stage `near_duplicate`, its keys made in two processes."""
    from swe_scaffold.executors import Executor, map_in_order
    from swe_scaffold.quality.stage import RowKey

    judge = _stage(float(threshold)).judge
    pairs = []
    with Path(texts).open("rb") as file:
        number = 0
        work = ((chunk, float(threshold)) for chunk in _chunks(file))
        for keys in map_in_order(sign_chunk, work, Executor(jobs=2), room=2):
            for key in keys:
                verdict = judge(RowKey(f"row-{number}", "", "success", f"rows:{number}", key))
                if not verdict.keep:
                    pairs.append((int(verdict.detail.rpartition(":")[2]), number))
                number += 1
    (out / "pairs.json").write_text(json.dumps(pairs), "ascii")


def sign_chunk(work: tuple[list[bytes], float]) -> list[Any]:
    """Return the stage's keys of some rows."""
    from swe_scaffold.types import Example, SpeedrunLabel

    lines, threshold = work
    key_of = _stage(threshold).key_of
    rows = map(json.loads, lines)
    return [
        key_of(Example(row["id"], "", row["text"], "", "none", SpeedrunLabel.SUCCESS), None)
        for row in rows
    ]


@lru_cache(maxsize=1)
def _stage(threshold: float) -> Any:
    from swe_scaffold.config import QualityConfig
    from swe_scaffold.quality.near_duplicates import near_duplicate_stage

    return near_duplicate_stage(QualityConfig(near_duplicate_threshold=threshold))


def _chunks(file: Any) -> Iterator[list[bytes]]:
    while chunk := list(islice(file, SHINGLED_ROWS)):
        yield chunk


OURS = {"build": build, "tokens": tokens, "near": near}


def main() -> None:
    """Run what the command line names."""
    name, source, *options, folder = sys.argv[1:]
    given = dict(option.split("=", 1) for option in options)
    # A cache of its own makes a run a cold one; a folder from outside may be warm.
    if not os.environ.get("SWE_SCAFFOLD_CACHE"):
        os.environ["SWE_SCAFFOLD_CACHE"] = str(Path(folder) / "cache")
    OURS[name](source, Path(folder), **given)
