"""Training of adapters: `train` against TRL, litgpt, Trainer and the seed's way.

    python benchmarks/bench_train.py prepare      [--peers DIR]
    python benchmarks/bench_train.py speed        --shape like3b|bigvocab [--tune]
    python benchmarks/bench_train.py start        --shape like3b|small
    python benchmarks/bench_train.py trajectories --from FOLDER
    python benchmarks/bench_train.py speed        --device cuda

Without a command it says this. `prepare` makes the peers' environments from benchmarks/peers/.
`speed` measures the training itself, `start` whole processes, `trajectories` real long chats. Each
checks first that everyone does the same work (exit code 9 where not) and writes a dated page to
benchmarks/results/. `--shape tiny` tries everything in a minute. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import environments  # noqa: E402
import pages  # noqa: E402
import train_contenders as who  # noqa: E402
import train_files as files  # noqa: E402
import train_material as material  # noqa: E402
import train_options as options  # noqa: E402
import train_ours as ours  # noqa: E402
import train_speeds as speeds  # noqa: E402
from build_rows import describe  # noqa: E402
from measuring import CommandFailed, Contender, Run, interleave, measure, summarize  # noqa: E402
from train_judging import Verdicts  # noqa: E402

TITLES = {
    "speed": "Training of an adapter",
    "start": "Training from process start to adapter",
    "trajectories": "Training on trajectories",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 9 where contenders did not do the same work."""
    arguments = options.parser((__doc__ or "").split("\n")[0]).parse_args(argv)
    if arguments.command is None:
        print(__doc__)
        return 0
    if arguments.command == "prepare":
        for name in options.ENVIRONMENTS:
            environments.make(name, arguments.peers.expanduser())
        return 0
    return Comparison(arguments).run()


class Comparison:
    """One comparison: its rows and model, its contenders, its gates and its page."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.given = arguments
        self.what: str = arguments.command
        self.cuda: bool = arguments.device == "cuda"
        if self.cuda and arguments.shape == options.SHAPES[self.what]:
            arguments.shape = "qwen3b"
        self.shape: str = arguments.shape
        self.work: Path = arguments.work.resolve() / f"{self.what}-{self.shape}"
        self.peers: Path = arguments.peers.expanduser().resolve()
        self.cores = options.cores(arguments)
        # What is not measured runs on as many as anything that is.
        self.widest = max(self.cores.values(), key=len)
        self.chosen, absent = options.peers(arguments, self.shape)
        # Before anything runs: a checkout may move on meanwhile.
        self.commit = pages.commit(ROOT)
        self.notes = dict.fromkeys(absent, "not installed here, so not measured.")
        self.tables: dict[str, list[list[str]]] = {}
        self.verdicts = Verdicts()
        self.runs: dict[str, dict[str, list[Run]]] = {}

    def run(self) -> int:
        """Make rows and model, check, measure, check, write."""
        self.work.mkdir(parents=True, exist_ok=True)
        before = pages.load_average()
        self._material()
        if self.what != "start":
            self._gate()
        plain = self._reference("losses", self.made.tokens)
        for name, cores in self.cores.items():
            self._measure(name, cores, plain)
        if self.given.tune:
            self._tune()
        self._write(before)
        return 0 if self.verdicts.equal else 9

    def _material(self) -> None:
        given = self.given
        self.wanted = options.wanted(given)
        self.made = material.make(
            self.work, self.shape, self.wanted, source=given.base, tokenizer=given.tokenizer
        )
        rows_made = files.read_rows(self.made.tokens)
        self.lengths = [len(row.input_ids) for row in rows_made]
        self.targets = sum(row.targets for row in rows_made)
        for name, values in (
            ("Tokens of a row", self.lengths),
            ("Targets of a row", [row.targets for row in rows_made]),
        ):
            told = (f"{key} {value:,}" for key, value in material.quantiles(values).items())
            self.notes[name] = ", ".join(told) + "."
        shape = material.SHAPES[self.shape]
        sizes = ", ".join(f"{key} {value}" for key, value in vars(shape).items())
        self.notes["Model"] = f"Qwen2, random weights (seed {material.SEED}): {sizes}."
        self.notes["Steps"] = (
            f"{self.wanted.rows_per_step} rows in each of {len(self.lengths)} / "
            f"{self.wanted.rows_per_step} steps. LoRA r 8, alpha 16 on q, k, v, o, no dropout; "
            "AdamW 2e-4, constant; gradients clipped at 1."
        )
        common = {
            "rows_per_step": str(self.wanted.rows_per_step),
            "length": str(self.wanted.length),
            "epochs": str(self.wanted.epochs),
            "device": given.device,
        }
        own = dict(pair.split("=", 1) for pair in given.set)
        self.makes = who.Makes(self.made.model, self.peers, common, own)

    def _gate(self) -> None:
        """One step of everyone on a few rows, against the plain loop, from the adapter of ours."""
        folders = {}
        names = [who.OURS] if self.cuda else [who.OURS_FLOAT32, who.OURS]
        for name in names:
            made = self.makes.own(name, self.made.gate_rows, self.widest, **self._one_step())
            folders[name] = self._once(made)
            ours.export_step(folders[name] / "run", folders[name])
        self.init = str(folders[names[0]] / "init.safetensors")
        begin = {**self._one_step(), "keep_gradient": "1", "init": self.init}
        every = who.CUDA_PEERS if self.cuda else who.PEERS
        gated = [who.TRL] if self.cuda or self.what == "trajectories" else who.GATED
        for name in gated:
            peer = replace(every[name], options={**every[name].options, **begin})
            made = self.makes.peer(name, peer, self.made.gate_tokens, self.widest, {})
            folders[name] = self._once(made)
        reference = self._reference("step", self.made.gate_tokens, init=self.init)
        self.tables["Gate: one step"] = self.verdicts.first_step(folders, reference)

    def _one_step(self) -> dict[str, str]:
        return {"rows_per_step": str(self.wanted.gate_rows), "clip": "0"}

    def _once(self, contender: Contender) -> Path:
        """Run something unmeasured and return its folder."""
        folder = self.work / "gate" / contender.name
        shutil.rmtree(folder, ignore_errors=True)
        print(f"  {contender.name}", flush=True)
        measure(contender, folder, self.widest)
        return folder

    def _reference(self, what: str, rows: Path, **more: str) -> Path:
        return self._once(self.makes.reference(what, rows, self.widest, more))

    def _measure(self, name: str, cores: Sequence[int], plain: Path) -> None:
        """Run everyone in turn on some cores; judge what they computed and how long it took."""
        begin = {} if self.what == "start" else {"init": self.init}
        contenders = [self.makes.own(who.OURS, self.made.rows, cores)]
        for other, peer in self.chosen.items():
            contenders.append(self.makes.peer(other, peer, self.made.tokens, cores, begin))
        repeats = self.given.repeats or (1 if self.cuda else 5)
        runs = interleave(contenders, repeats=repeats, work=self.work, cores=cores)
        self.runs[name] = runs
        figures = {other: summarize(found) for other, found in runs.items()}
        where = f"{len(cores)} core{'s' if len(cores) > 1 else ''}"
        peak = json.loads((self._peak(cores) / "found.json").read_bytes())["flops"]
        shape = material.SHAPES[self.shape]
        flops = speeds.training_flops(shape, self.lengths, self.targets)
        work = speeds.Work(sum(self.lengths), self.targets, flops, peak)
        self.tables[f"On {where} (GEMM {peak / 1e9:,.0f} GFLOP/s)"] = speeds.table(figures, work)
        folders = {other: self.work / "kept" / other for other in runs}
        loss = json.loads((plain / "found.json").read_bytes())["loss"]
        self.verdicts.losses(folders, loss, every=self.what != "start")
        if self.what != "start":
            self._hold_out(where, folders)
        self._judge(where, runs, figures)
        if self.cuda:
            self.verdicts.device(figures, work)

    def _peak(self, cores: Sequence[int]) -> Path:
        folder = self.work / "gate" / "gemm"
        shutil.rmtree(folder, ignore_errors=True)
        measure(self.makes.reference("gemm", self.made.tokens, cores, {}), folder, cores)
        return folder

    def _hold_out(self, where: str, folders: Mapping[str, Path]) -> None:
        own = folders[who.OURS]
        ours.export_adapter(own / "run", own)
        paths = ":".join(str(folder / "adapter.safetensors") for folder in folders.values())
        score = self._reference("score", self.made.held_out, adapters=paths)
        self.tables[f"Held-out rows, {where}"] = self.verdicts.held_out([*folders], score)

    def _judge(
        self, where: str, runs: Mapping[str, Sequence[Run]], figures: Mapping[str, Any]
    ) -> None:
        judge = self.verdicts
        if self.what == "start" and self.shape in ("small", "tiny"):
            key = "first_step_seconds"
            judge.faster(who.FIRST_STEP_GOALS, runs, figures, key, f"{where}: first step of")
        elif self.what == "start":
            judge.faster(who.START_GOALS, runs, figures, "wall_seconds", f"{where}: process of")
        else:
            goals = who.SPEED_GOALS.get(self.shape, {})
            goals = who.TRAJECTORY_GOALS if self.what == "trajectories" else goals
            key = "training_seconds"
            judge.faster(goals, runs, figures, key, f"{where}: tokens/s of")
            # Whoever it is, named in a goal or not.
            others = [name for name in self.chosen if self.chosen[name].same]
            if others:
                best = min(others, key=lambda name: figures[name][key]["median"])
                what = f"{where}: tokens/s of the fastest peer,"
                judge.faster({best: 1.0}, runs, figures, key, what)
            earlier = speeds.against_earlier(self.shape, figures)
            if earlier:
                self.tables[f"Peers among themselves, {where}"] = earlier
                mean = sum(self.lengths) / len(self.lengths)
                self.notes["Peers among themselves"] = speeds.EXPLANATION.format(mean=mean)
        judge.memory(runs, figures, where)

    def _tune(self) -> None:
        """Run each other setting of the peers once; one that fails is noted."""
        lines = [["one run each", *("training s", "process s", "CPU s", "peak MB")]]
        for setting, peer in who.TUNING.items():
            made = self.makes.peer(setting, peer, self.made.tokens, self.widest, {})
            folder = self.work / "tuning" / setting
            shutil.rmtree(folder, ignore_errors=True)
            try:
                run = measure(made, folder, self.widest)
            except CommandFailed as error:
                lines.append([setting, str(error).strip().split("\n")[-1], "", "", ""])
                continue
            print(f"  {setting}: {run}", flush=True)
            memory = run.peak_pss / speeds.MB
            seconds = [run.inside["training_seconds"], run.wall_seconds, run.cpu_seconds, memory]
            lines.append([setting, *(f"{value:,.1f}" for value in seconds)])
        self.tables[f"Tuning log, {len(self.widest)} core(s)"] = lines

    def _write(self, before: list[float]) -> None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        pythons = {"ours": Path(sys.executable)}
        for name in sorted({peer.environment for peer in self.chosen.values()}):
            pythons[name] = environments.python(name, self.peers)
        base = self.given.base.name if self.given.base else "the standard library"
        result = {
            "title": f"{TITLES[self.what]}, {self.shape}, {len(self.lengths):,} rows",
            "date": today,
            "command": shlex.join(["python", "benchmarks/bench_train.py", *sys.argv[1:]]),
            "commit": self.commit,
            "cores": self.given.cores,
            "load_before": before,
            "load_after": pages.load_average(),
            "machine": pages.machine(pythons),
            "data": {**describe(self.made.rows), "base": base, "seed": material.SEED},
            "timed": False,
            "runs": {
                where: {name: [vars(run) for run in found] for name, found in runs.items()}
                for where, runs in self.runs.items()
            },
            "notes": self.notes,
            "tables": self.tables,
            "verdicts": self.verdicts.said,
        }
        name = f"{today}-train-{self.what}-{self.shape}.md"
        pages.write(self.given.output or HERE / "results" / name, result)
        print(pages.page(result))


if __name__ == "__main__":
    sys.exit(main())
