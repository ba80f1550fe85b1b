"""Likelihoods of real rows: `evaluate` against lm-evaluation-harness and Trainer.evaluate.

    python benchmarks/bench_evaluate.py prepare [--peers DIR]
    python benchmarks/bench_evaluate.py speed   --from TASKS --shape SHAPE [--tokenizer FOLDER]
    python benchmarks/bench_evaluate.py numbers --from TASKS --shape SHAPE [--tokenizer FOLDER]

Without a command it says this. `prepare` makes the peers' environment from benchmarks/peers/;
`speed` runs every contender in turn; `numbers` says which reported numbers depend on batch size or
dtype. Both compare row sums with a plain loop first and write a dated page to benchmarks/results/.
See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import environments  # noqa: E402
import evaluate_gates as gates  # noqa: E402
import evaluate_material as material  # noqa: E402
import pages  # noqa: E402
from build_rows import describe  # noqa: E402
from measuring import Contender, Run, interleave, measure, summarize  # noqa: E402

PEER = "lm-eval"
CODE = "import evaluate_ours; evaluate_ours.main()"
GOAL = 1.4
TITLES = {
    "speed": "Likelihoods of rows",
    "numbers": "Which reported numbers depend on batch size or dtype",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 9 where row sums in float32 are not the plain ones."""
    arguments = _parser().parse_args(argv)
    if arguments.command is None:
        print(__doc__)
        return 0
    if arguments.command == "prepare":
        environments.make(PEER, arguments.peers.expanduser())
        return 0
    return Comparison(arguments).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command")
    for name in ("prepare", *TITLES):
        command = commands.add_parser(name)
        command.add_argument("--peers", type=Path, default=Path("~/.cache/swe-bench-peers"))
        if name == "prepare":
            continue
        command.add_argument("--from", dest="base", type=Path, required=True, help="task rows")
        command.add_argument("--shape", choices=[*material.SHAPES], default="large-vocabulary")
        command.add_argument("--tokenizer", type=Path, help="folder with Qwen2.5's tokenizer")
        command.add_argument("--rows", type=int, default=16)
        command.add_argument("--length", type=int, default=1024, help="most tokens of a row")
        command.add_argument("--cores", default="0,1")
        command.add_argument("--work", type=Path, default=Path("bench-work"))
        command.add_argument("--output", type=Path, help="page to write; numbers go beside it")
        if name == "speed":
            command.add_argument("--repeats", type=int, default=5)
            command.add_argument(
                "--auto", action="store_true", help="lm-eval's batch size auto too"
            )
        else:
            command.add_argument("--batches", default="1,2,8,32")
            command.add_argument("--dtypes", default="float32,bfloat16")
    return parser


class Comparison:
    """One comparison: its rows and model, its contenders, its gates and its page."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.given = arguments
        self.what: str = arguments.command
        self.work: Path = arguments.work.resolve() / arguments.shape
        self.peers: Path = arguments.peers.expanduser().resolve()
        self.cores = [int(core) for core in arguments.cores.split(",")]
        # Before anything runs: a checkout may move on meanwhile.
        self.commit = pages.commit(ROOT)
        self.notes: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.verdicts: list[dict[str, Any]] = []
        self.equal = True

    def run(self) -> int:
        """Make rows and model, check, measure, write."""
        self.work.mkdir(parents=True, exist_ok=True)
        if not environments.python(PEER, self.peers).exists():
            raise SystemExit("no environment of the peers: run `bench_evaluate.py prepare` first")
        before = pages.load_average()
        data = self._material()
        self.right = self._plain()
        speed = self.what == "speed"
        contenders = self._fast() if speed else self._reported()
        repeats = self.given.repeats if speed else 1
        runs = interleave(contenders, repeats=repeats, work=self.work, cores=self.cores)
        figures = {name: summarize(found) for name, found in runs.items()}
        self.found = {name: self._found(name) for name in figures}
        if speed:
            self._judge_speed(figures)
        else:
            self._judge_numbers()
        self._write(data, figures, runs, before)
        return 0 if self.equal else 9

    def _material(self) -> dict[str, Any]:
        built = material.build_rows(self.given.base, self.work)
        self.model = self.work / "model"
        material.make_model(
            self.given.shape, self.model, tokenizer=self.given.tokenizer, rows=built
        )
        self.rows, self.tokens, lengths = material.choose_rows(
            built, self.model, rows=self.given.rows, length=self.given.length, work=self.work
        )
        for name, quantiles in lengths.items():
            told = ", ".join(f"{key} {value:,}" for key, value in quantiles.items())
            self.notes[f"{name.capitalize()} of a row"] = f"{told}."
        sizes = ", ".join(f"{key} {size:,}" for key, size in self._sizes().items())
        self.notes["Model"] = f"Qwen2, random weights (seed {material.SEED}), float32: {sizes}."
        return {**describe(self.rows), "base": self.given.base.name, "seed": material.SEED}

    def _sizes(self) -> dict[str, int]:
        vocabulary = {"vocabulary": material.QWEN_VOCABULARY}
        return {**vocabulary, **material.SHAPES[self.given.shape]}

    def _plain(self) -> dict[str, float]:
        """Return the sum of each row as plain transformers gives it, in an unmeasured run."""
        folder = self.work / "plain"
        shutil.rmtree(folder, ignore_errors=True)
        measure(self._ours("plain", "plain", self.tokens), folder, self.cores)
        sums: dict[str, float] = json.loads((folder / "found.json").read_bytes())["sums"]
        return sums

    def _fast(self) -> list[Contender]:
        made = [
            self._ours("ours", "evaluate", self.rows),
            self._peer("lm-eval, batch 1", "lm-eval", batch="1"),
            self._peer("Trainer, batch 1", "trainer", batch="1"),
            self._peer("lm-eval, batch 8", "lm-eval", batch="8"),
            self._peer("Trainer, batch 8", "trainer", batch="8"),
        ]
        auto = self._peer("lm-eval, batch auto (one run)", "lm-eval", once=True, batch="auto")
        return [*made, auto] if self.given.auto else made

    def _reported(self) -> list[Contender]:
        made = []
        dtypes, batches = self.given.dtypes.split(","), self.given.batches.split(",")
        for dtype in dtypes:
            for batch in batches:
                options = {"batch": batch, "dtype": dtype}
                end = f", {dtype}, batch {batch}"
                made += [
                    self._ours(f"ours{end}", "evaluate", self.rows, **options),
                    self._peer(f"lm-eval{end}", "lm-eval", **options),
                    self._peer(f"Trainer{end}", "trainer", **options),
                ]
            if dtype == "bfloat16":
                options = {"batch": batches[0], "dtype": dtype, "softmax": "float32"}
                name = f"lm-eval (softmax_dtype float32), {dtype}, batch {batches[0]}"
                made.append(self._peer(name, "lm-eval", **options))
        return made

    def _ours(self, name: str, what: str, source: Path, **options: str) -> Contender:
        command = [sys.executable, "-c", CODE, what, str(self.model), str(source)]
        command += [f"{key}={value}" for key, value in options.items()]
        found = os.pathsep.join([str(ROOT), str(HERE)])
        return Contender(name, command, self._environment(found), keep=True)

    def _peer(self, name: str, what: str, *, once: bool = False, **options: str) -> Contender:
        python = str(environments.python(PEER, self.peers))
        command = [python, str(HERE / "evaluate_peers.py"), what, str(self.model), str(self.tokens)]
        command += [f"{key}={value}" for key, value in options.items()]
        return Contender(name, command, self._environment(""), keep=True, once=once)

    def _environment(self, path: str) -> dict[str, str]:
        threads = str(len(self.cores))
        return {"HF_HUB_OFFLINE": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": threads}

    def _found(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.work / "kept" / name / "found.json").read_bytes())
        return found

    def _judge_speed(self, figures: Mapping[str, Any]) -> None:
        for name, found in self.found.items():
            if "sums" in found:
                self._gate(name, found["sums"])
        ours = figures["ours"]
        for tool in ("lm-eval", "Trainer"):
            names = [name for name in figures if name.startswith(tool)]
            for figure, what, least in (
                ("scoring_seconds", "rows/s of", GOAL),
                ("wall_seconds", "whole process of", 1),
                ("peak_pss", "peak memory of", 1),
            ):
                best = min(names, key=lambda name: figures[name][figure]["median"])
                self.verdicts.append(
                    pages.ratio(
                        f"{what} {best}",
                        ours=ours[figure],
                        theirs=figures[best][figure],
                        least=least,
                    )
                )

    def _judge_numbers(self) -> None:
        for name, found in self.found.items():
            if "sums" in found and ", float32, " in name:
                self._gate(name, found["sums"])
        self.tables["Reported numbers against plain float32"] = gates.table(
            self.found, self.right, self._targets()
        )
        self.notes["How to read it"] = gates.LEGEND

    def _targets(self) -> int:
        with self.tokens.open("rb") as file:
            return sum(len(json.loads(line)["continuation"]) for line in file)

    def _gate(self, name: str, sums: Mapping[str, float]) -> None:
        worst = gates.worst_difference(sums, self.right)
        met = worst <= gates.TOLERANCE
        self.equal &= met
        self.verdicts.append(
            pages.holds(
                f"row sums of {name} equal the plain loop's within {gates.TOLERANCE:g}",
                met,
                f"(largest relative difference {worst:.1e}, {len(sums)} rows)",
            )
        )

    def _write(
        self,
        data: Mapping[str, Any],
        figures: Mapping[str, Any],
        runs: Mapping[str, Sequence[Run]],
        before: list[float],
    ) -> None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        pythons = {"ours": Path(sys.executable), PEER: environments.python(PEER, self.peers)}
        result = {
            "title": f"{TITLES[self.what]}, {self.given.shape.replace('-', ' ')}, "
            f"{data['rows']:,} rows",
            "date": today,
            "command": shlex.join(["python", "benchmarks/bench_evaluate.py", *sys.argv[1:]]),
            "commit": self.commit,
            "cores": self.given.cores,
            "load_before": before,
            "load_after": pages.load_average(),
            "machine": pages.machine(pythons),
            "data": data,
            "rows": data["rows"],
            "contenders": figures,
            "timed": self.what == "speed",
            "runs": {name: [vars(run) for run in found] for name, found in runs.items()},
            "notes": self.notes,
            "tables": self.tables,
            "verdicts": self.verdicts,
        }
        name = f"{today}-evaluate-{self.what}-{self.given.shape}.md"
        pages.write(self.given.output or HERE / "results" / name, result)
        print(pages.page(result))


if __name__ == "__main__":
    sys.exit(main())
