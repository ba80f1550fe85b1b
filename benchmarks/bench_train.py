"""Training of adapters: `train` against TRL, litgpt, Trainer and the seed's way.

    python benchmarks/bench_train.py prepare      [--peers DIR]
    python benchmarks/bench_train.py speed        --shape like3b|bigvocab [--no-tune]
    python benchmarks/bench_train.py start        --shape like3b|small
    python benchmarks/bench_train.py trajectories --from FOLDER
    python benchmarks/bench_train.py speed        --device cuda

Without a command it says this. `prepare` makes the peers' environments from benchmarks/peers/.
`speed` measures the training itself, `start` whole processes, `trajectories` real long chats. Each
finds the best settings of every peer, checks that everyone does the same work (exit code 9 where
not) and writes a dated page to benchmarks/results/. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
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
import train_tuning as tuning  # noqa: E402
from build_rows import describe  # noqa: E402
from measuring import CommandFailed, Contender, Run, interleave, measure, summarize  # noqa: E402
from train_judging import Agreement, Verdicts, agreement  # noqa: E402

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
        self.cores = options.cores(arguments)
        self.pythons = options.interpreters(arguments)
        self.settings, self.notes = options.peers(arguments)
        # On a device ours takes bfloat16 unasked.
        self.own = [who.OURS] if self.cuda else [*who.OWN]
        # Before anything runs: a checkout may move on meanwhile.
        self.commit = pages.commit(ROOT)
        self.load_before = pages.load_average()
        self.date = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.tables: dict[str, list[list[str]]] = {}
        self.verdicts = Verdicts()
        self.runs: dict[str, Mapping[str, Sequence[Run]]] = {}

    def run(self) -> int:
        """Make rows and model; then for each set of cores check, measure, check and write."""
        self.work.mkdir(parents=True, exist_ok=True)
        self._material()
        self._machine()
        # What is not measured runs on as many as anything that is.
        widest = max(self.cores.values(), key=len)
        if self._begin(widest):
            for cores in self.cores.values():
                self._on(cores)
        self._write()
        print(pages.page(self.result))
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
        size = self.wanted.rows_per_step
        self.step_tokens = [
            sum(len(row.input_ids) for row in part) for part in files.parts(rows_made, size)
        ]
        self.notes |= material.about(rows_made, self.shape, size, self.wanted.epochs)
        self.notes["How to read it"] = speeds.LEGEND
        if self.cuda:
            self.notes["One run each"] = speeds.ONE_RUN
        self.notes["Settings"] = tuning.UNTUNED if given.no_tune else tuning.LEGEND
        common = {
            "rows_per_step": str(size),
            "length": str(self.wanted.length),
            "epochs": str(self.wanted.epochs),
            "device": given.device,
        }
        own = dict(pair.split("=", 1) for pair in given.set)
        self.makes = who.Makes(self.made.model, self.pythons, common, own)

    def _machine(self) -> None:
        used = {next(iter(tried.values())).environment for tried in self.settings.values()}
        pythons = {"ours": Path(sys.executable)}
        pythons |= {name: self.pythons[name] for name in sorted(used)}
        self.machine = pages.machine(pythons)
        if self.cuda:
            self.machine["device"] = pages.device(Path(sys.executable))

    def _begin(self, cores: Sequence[int]) -> bool:
        """Take the gate's steps with ours and the plain loop; False where ours failed.

        All peers begin from the adapter that ours in bfloat16 has drawn: in float32 it is the same
        one less rounded, and has a plain loop of its own.
        """
        size = str(self.wanted.gate_rows)
        saved = {"training.save_strategy": "steps", "training.save_steps": "1"}
        more = {"rows_per_step": size, "epochs": str(self.wanted.gate_steps), "clip": "0", **saved}
        self.ours_found: dict[str, Agreement] = {}
        for name in self.own:
            made = self.makes.own(name, self.made.gate_rows, cores, **more)
            try:
                folder, _ = self._once(made, cores)
            except CommandFailed as error:
                self._failed(name, error)
                return False
            ours.export_step(folder / "run", folder)
            plain = self._plain(name, folder, cores)
            if name == who.OURS:
                self.reference, self.init = plain, str(folder / "init.safetensors")
            dtype = "bfloat16" if name == who.OURS else "float32"
            self.ours_found[name] = agreement(folder, plain, dtype)
        self.plain = json.loads((self.reference / "found.json").read_bytes())
        self.gate = {"rows_per_step": size, "clip": "0", "keep_gradient": "1", "init": self.init}
        return True

    def _plain(self, name: str, folder: Path, cores: Sequence[int]) -> Path:
        """Return what the plain loop makes of the gate's steps from where one of ours began."""
        what, asked = "steps", {}
        if name == who.OURS:
            what = "first+steps+gemm" if self.cuda else "first+steps"
            step = str(self.wanted.rows_per_step)
            asked = {"measured": str(self.made.tokens), "measured_step": step}
        asked |= {
            "rows_per_step": str(self.wanted.gate_rows),
            "init": str(folder / "init.safetensors"),
        }
        return self._once(self.makes.reference(what, self.made.gate_tokens, cores, asked), cores)[0]

    def _once(self, contender: Contender, cores: Sequence[int]) -> tuple[Path, Run]:
        """Run something outside the measurement; return its folder and what it took."""
        # Compilers take a blank in a folder's name for its end.
        folder = self.work / "gate" / re.sub(r"[^\w.+]+", "-", contender.name)
        shutil.rmtree(folder, ignore_errors=True)
        print(f"  {contender.name}", flush=True)
        return folder, measure(contender, folder, cores)

    def _failed(self, name: str, error: CommandFailed, where: str = "") -> None:
        """Note that someone failed, who is left out from there on; ours may not."""
        print(error, flush=True)
        self.notes[f"{name}{where}"] = f"failed: {error.last_line}"
        if name in who.OWN:
            self.verdicts.gate(f"{name} comes to its end", False, f"(failed: {error.last_line})")

    def _on(self, cores: Sequence[int]) -> None:
        """Find everyone's best settings on some cores, run everyone in turn, and judge."""
        where = f"{len(cores)} core{'s' if len(cores) > 1 else ''}"
        peers = self._tune(where, cores)
        self._write()
        begin = {} if self.what == "start" else {"init": self.init}
        contenders = [self.makes.own(name, self.made.rows, cores) for name in self.own]
        for name, peer in peers.items():
            contenders.append(self.makes.peer(name, peer, self.made.tokens, cores, begin))
        work = self._work(cores)

        def after(runs: Mapping[str, Sequence[Run]]) -> None:
            self.runs[where] = runs
            self.tables[f"On {where} (GEMM {work.peak / 1e9:,.0f} GFLOP/s)"] = speeds.table(
                self._figures(runs, peers), work
            )
            self._write()

        runs = interleave(
            contenders,
            repeats=self.given.repeats or (1 if self.cuda else 5),
            work=self.work,
            cores=cores,
            failed=lambda name, error: self._failed(name, error, f" on {where}"),
            after=after,
        )
        if any(name not in runs for name in self.own):
            return
        after(runs)
        peers = {name: peer for name, peer in peers.items() if name in runs}
        self._judge_work(where, cores, peers)
        self._judge_speed(where, peers, self._figures(runs, peers))
        if self.cuda:
            self.verdicts.device(self._figures(runs, peers)[who.OURS], work)
        self._write()

    def _tune(self, where: str, cores: Sequence[int]) -> dict[str, who.Peer]:
        """Return who is measured with which settings, those that failed left out; judge them."""
        tried: dict[str, list[tuning.Trial]] = {}
        found: dict[str, Agreement] = dict(self.ours_found)
        peers = {}
        for name, settings in self.settings.items():
            if name == who.SEED:
                peers[name] = next(iter(settings.values()))
                continue
            listed = [*settings.items()][: 1 if self.given.no_tune else None]
            tried[name] = [self._try(*one, cores) for one in listed]
            # A device is nobody else's meanwhile, and loading takes longer than steps.
            more = 0 if self.cuda else tuning.MORE_RUNS
            for place in more * tuning.finalists(tried[name]):
                again = self._try(*listed[place], cores)
                tried[name][place] = tried[name][place].and_again(again)
            best = tuning.best(tried[name])
            if best is None or best.found is None:
                self.notes[f"{name} on {where}"] = tried[name][0].trouble
                continue
            found[name] = best.found
            if name not in who.GATE_ONLY:
                peers[name] = best.peer
        self.tables[f"Settings, {where}"] = tuning.table(tried)
        self.tables[f"Gate, {where}"] = self.verdicts.first_steps(where, found)
        return peers

    def _try(self, setting: str, peer: who.Peer, cores: Sequence[int]) -> tuning.Trial:
        # Rows of all steps in one: packing would fill steps with others.
        more = {} if peer.same else {"accumulation": str(len(self.lengths))}
        name = f"{peer.what}, {setting}"
        made = self.makes.peer(name, peer, self.made.gate_tokens, cores, {**self.gate, **more})
        try:
            folder, run = self._once(replace(made, limit=who.TRIAL_LIMIT), cores)
        except CommandFailed as error:
            print(error, flush=True)
            return tuning.Trial(setting, peer, f"failed: {error.last_line}")
        found = agreement(folder, self.reference, peer.dtype, peer)
        steps = len(self.step_tokens)
        expected = tuning.expected_seconds(folder, run, steps, whole=self.what == "start")
        return tuning.Trial(setting, peer, found.trouble, run, found, (expected,))

    def _work(self, cores: Sequence[int]) -> speeds.Work:
        if "flops" in self.plain:
            peak = self.plain["flops"]
        else:
            made = self.makes.reference("gemm", self.made.tokens, cores, {})
            peak = json.loads((self._once(made, cores)[0] / "found.json").read_bytes())["flops"]
        shape = material.SHAPES[self.shape]
        flops = speeds.training_flops(shape, self.lengths, self.targets)
        return speeds.Work(sum(self.lengths), self.targets, flops, peak)

    def _figures(
        self, runs: Mapping[str, Sequence[Run]], peers: Mapping[str, who.Peer]
    ) -> dict[str, dict[str, Any]]:
        figures = {name: summarize(found) for name, found in runs.items()}
        for name in figures if self.cuda and (self.given.repeats or 1) == 1 else ():
            ends = json.loads((self._kept(name) / "found.json").read_bytes())["step_ends"]
            known = name not in peers or peers[name].same
            training = figures[name]["training_seconds"]["median"]
            figures[name]["training_seconds"] = speeds.within_one_run(
                training, ends, self.step_tokens if known else []
            )
        return figures

    def _kept(self, name: str) -> Path:
        return self.work / "kept" / name

    def _judge_work(self, where: str, cores: Sequence[int], peers: Mapping[str, who.Peer]) -> None:
        """Judge the losses of the measured runs, and what held-out rows make of the adapters."""
        folders = {name: self._kept(name) for name in (*self.own, *peers)}
        every = self.what != "start"
        self.verdicts.losses(where, folders, peers, self.plain["first"], every=every)
        if not every:
            return
        for name in self.own:
            ours.export_adapter(folders[name] / "run", folders[name])
        paths = {name: folder / "adapter.safetensors" for name, folder in folders.items()}
        paths[who.UNTRAINED] = Path(self.init)
        asked = {"adapters": ":".join(map(str, paths.values()))}
        made = self.makes.reference("score", self.made.held_out, cores, asked)
        found = json.loads((self._once(made, cores)[0] / "found.json").read_bytes())
        self.tables[f"Held-out rows, {where}"] = self.verdicts.held_out(
            where,
            dict(zip(paths, found["nll"], strict=True)),
            found["targets"],
            free=[name for name, peer in peers.items() if not peer.same],
        )

    def _judge_speed(
        self, where: str, peers: Mapping[str, who.Peer], figures: Mapping[str, Any]
    ) -> None:
        """Judge ours in bfloat16 by all goals, and as it comes by defaults and the fastest peer."""
        key, what, goals = who.asked(self.what, self.shape)
        others = [name for name, peer in peers.items() if peer.same]
        for own in self.own:
            asked = dict(goals)
            if own != who.OURS:
                asked = {name: goals[name] for name in (who.TRL_DEFAULTS,) if name in goals}
            for name, least in asked.items():
                if name in peers:
                    said = f"{where}: {what}, {own} against {name} ({peers[name].precision})"
                    self.verdicts.ratio(said, figures, (own, name), key, least)
            for of, measured in (key, what), (self._memory(figures), "peak memory"):
                if others:
                    best = min(others, key=lambda name: figures[name][of]["median"])
                    told = f"the {'fastest' if of == key else 'smallest'} peer, {best}"
                    said = f"{where}: {measured}, {own} against {told} ({peers[best].precision})"
                    self.verdicts.ratio(said, figures, (own, best), of, 1.0)
        if {who.TRL, who.TRL_DEFAULTS} <= {*peers}:
            said = f"{where}: {what}, {who.TRL} against its defaults"
            self.verdicts.ratio(said, figures, (who.TRL, who.TRL_DEFAULTS), key, 1.0)

    def _memory(self, figures: Mapping[str, Any]) -> str:
        return "device_bytes" if "device_bytes" in figures[who.OURS] else "peak_pss"

    @property
    def result(self) -> dict[str, Any]:
        """The page as it stands."""
        base = self.given.base.name if self.given.base else "the standard library"
        return {
            "title": f"{TITLES[self.what]}, {self.shape}, {len(self.lengths):,} rows",
            "date": self.date,
            "command": shlex.join(["python", "benchmarks/bench_train.py", *sys.argv[1:]]),
            "commit": self.commit,
            "cores": self.given.cores,
            "load_before": self.load_before,
            "load_after": pages.load_average(),
            "machine": self.machine,
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

    def _write(self) -> None:
        """Write the page as it stands: who is stopped has what was measured until then."""
        name = f"{self.date}-train-{self.what}-{self.shape}.md"
        pages.write(self.given.output or HERE / "results" / name, self.result)


if __name__ == "__main__":
    sys.exit(main())
