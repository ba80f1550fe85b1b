"""Our side: the command `evaluate`, and the plain loop that says what is right.

python -c "import evaluate_ours; evaluate_ours.main()" NAME MODEL FILE [OPTION=VALUE ...] FOLDER
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Beyond any pass here: how many rows are in one is then what batch_size says.
NO_LIMIT = 1 << 22


def evaluate(model: str, rows: str, out: Path, *, batch: str = "", dtype: str = "float32") -> None:
    """Run `swe-scaffold evaluate`; what its engine computes, and for how long, is written down."""
    from swe_scaffold.cli import main as command
    from swe_scaffold.engine import scoring

    kept, real = Kept(), scoring.score
    scoring.score = lambda *arguments, **options: kept.listen(real, *arguments, **options)
    limits = [f"--batch-size={batch}", f"--tokens-per-batch={NO_LIMIT}"] if batch else []
    code = command(
        [
            *("evaluate", model, rows, "--output", str(out / "evaluation"), "--offline"),
            *("--quiet", "--no-cache", "--set", f"evaluation.dtype={dtype}", *limits),
        ]
    )
    if code:
        sys.exit(code)
    kept.write(out)


class Kept:
    """Seconds inside the engine, and the sum of each row that it gave."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.tokens = 0
        self.wall_seconds = self.cpu_seconds = 0.0

    def listen(self, score: Any, model: Any, rows: Any, **options: Any) -> Iterator[Any]:
        """Pass on the scores; the time between them is the caller's and does not count."""
        arriving = score(model, rows, **options)
        while True:
            wall, cpu = time.perf_counter(), time.process_time()
            part = next(arriving, None)
            self.wall_seconds += time.perf_counter() - wall
            self.cpu_seconds += time.process_time() - cpu
            if part is None:
                return
            for row in part:
                self.sums[rows[row.index].instance_id] = row.total
                self.tokens += len(row.nll)
            yield part

    def write(self, out: Path) -> None:
        """Write what the comparison reads."""
        inside = {"scoring_seconds": self.wall_seconds, "scoring_cpu_seconds": self.cpu_seconds}
        (out / "inside.json").write_text(json.dumps(inside), "ascii")
        found = {"sums": self.sums, "mean": math.fsum(self.sums.values()) / self.tokens}
        (out / "found.json").write_text(json.dumps(found), "ascii")


def plain(model: str, tokens: str, out: Path) -> None:
    """Score row by row with plain transformers: float32 logits, everything after them float64."""
    import torch
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    sums = {}
    with torch.inference_mode(), Path(tokens).open("rb") as file:
        for line in file:
            row = json.loads(line)
            ids = torch.tensor([row["context"] + row["continuation"]])
            first = len(row["context"])
            logits = module(input_ids=ids).logits[0, first - 1 : -1].double()
            nll = torch.logsumexp(logits, -1) - logits.gather(1, ids[0, first:, None])[:, 0]
            sums[row["key"]] = math.fsum(nll.tolist())
    (out / "found.json").write_text(json.dumps({"sums": sums}), "ascii")


OURS = {"evaluate": evaluate, "plain": plain}


def main() -> None:
    """Run what the command line names."""
    name, model, source, *options, folder = sys.argv[1:]
    given = dict(option.split("=", 1) for option in options)
    OURS[name](model, source, Path(folder), **given)
