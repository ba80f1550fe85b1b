"""Build, tokens and near duplicates against what others would use, on one machine, in ratios.

    python benchmarks/bench_build.py prepare [--peers DIR]
    python benchmarks/bench_build.py projection|tokens|near-duplicates [--rows N] [--from FILE]

Without a command it says this. `prepare` makes the peers' environments from benchmarks/peers/;
a comparison makes its rows, runs every contender in turn, checks that all did the same work and
writes a dated page to benchmarks/results/. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import build_gates as gates  # noqa: E402
import build_rows as rows  # noqa: E402
import environments  # noqa: E402
import pages  # noqa: E402
from measuring import Contender, Run, interleave, measure, summarize  # noqa: E402

# A cache that stays is as large as the rows; beyond this the disk is for the runs.
MAX_WARM_ROWS = 200_000
PEERS = ("datasets", "trl", "near-duplicates")
CODE = "import build_ours; build_ours.main()"
TITLES = {
    "projection": "From task rows to prompt and response",
    "tokens": "From built rows to tokenised training data",
    "near-duplicates": "Near duplicates",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 9 where the contenders did not do the same work."""
    arguments = _parser().parse_args(argv)
    if arguments.command is None:
        print(__doc__)
        return 0
    if arguments.command == "prepare":
        for name in PEERS:
            environments.make(name, arguments.peers.expanduser())
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
        command.add_argument("--rows", type=int, default=100_000)
        command.add_argument("--row-bytes", type=int, default=0, help="0 keeps real lengths")
        command.add_argument("--repeats", type=int, default=5)
        command.add_argument("--seed", type=int, default=42)
        command.add_argument("--cores", default="0,1")
        command.add_argument("--from", dest="base", type=Path, help="task rows to vary")
        command.add_argument("--work", type=Path, default=Path("bench-work"))
        command.add_argument("--only", help="contenders, by commas; the gates need all")
        command.add_argument("--output", type=Path, help="page to write; numbers go beside it")
        if name == "tokens":
            command.add_argument("--tokenizer", type=Path, required=True)
            command.add_argument("--max-length", type=int, default=4096)
    return parser


class Comparison:
    """One comparison: its rows, its contenders, its gates and its page."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.given = arguments
        self.what: str = arguments.command
        self.work: Path = arguments.work.resolve()
        self.peers: Path = arguments.peers.expanduser().resolve()
        self.cores = [int(core) for core in arguments.cores.split(",")]
        self.notes: dict[str, str] = {}
        self.verdicts: list[dict[str, Any]] = []
        self.equal = True

    def run(self) -> int:
        """Make rows, measure, check, write."""
        self.work.mkdir(parents=True, exist_ok=True)
        before = pages.load_average()
        data = self._rows()
        contenders = self._chosen()
        self._warm_up(contenders)
        runs = interleave(contenders, repeats=self.given.repeats, work=self.work, cores=self.cores)
        figures = {name: summarize(found) for name, found in runs.items()}
        judges = {
            "projection": self._judge_projection,
            "tokens": self._judge_tokens,
            "near-duplicates": self._judge_near,
        }
        if self.given.only is None:
            judges[self.what](figures)
        self._write(data, figures, runs, before)
        return 0 if self.equal else 9

    def _rows(self) -> dict[str, Any]:
        """Make the rows once for these arguments; return what is said of them."""
        options = [self.given.rows, self.given.row_bytes, self.given.seed, str(self.given.base)]
        name = f"{self.what}-{self.given.rows}"
        self.input, about = self.work / f"{name}.jsonl", self.work / f"{name}.about.json"
        if about.is_file() and self.input.is_file():
            known: dict[str, Any] = json.loads(about.read_bytes())
            if known["options"] == options:
                return known
        base = self.given.base or self._synthetic()
        make = rows.Variations(rows.read_base(base), self.given.seed, self.given.row_bytes)
        if self.what == "near-duplicates":
            data = rows.write_texts(make, self.given.rows, self.input)
        else:
            data = rows.write_rows(make, self.given.rows, self.input)
        if self.what == "tokens":
            self._build_rows()
            data = rows.describe(self.input)
        data |= {"base": base.name, "seed": self.given.seed, "options": options}
        about.write_text(json.dumps(data), "ascii")
        return data

    def _synthetic(self) -> Path:
        """Make base rows of the standard library where the user names none."""
        path = self.work / "synthetic.jsonl"
        if not path.is_file():
            tree = Path(json.__file__).resolve().parents[1]
            code = "import sys; from swe_scaffold.cli import main; sys.exit(main(sys.argv[1:]))"
            options = ["--count", "300", "--output", path, "--context", "none", "-q"]
            packages = [f"--package={name}" for name in ("json", "email", "http", "logging")]
            subprocess.run(
                [sys.executable, "-c", code, "tasks", "synthesize", tree, *options, *packages],
                check=True,
                env={"PYTHONPATH": str(ROOT)},
            )
        return path

    def _build_rows(self) -> None:
        """Make built rows of task rows: what training reads."""
        folder = self.work / "built"
        measure(self._ours("build", "build", stages=""), folder, self.cores)
        parts = [folder / "dev.jsonl", folder / "dev.test.jsonl"]
        with self.input.open("wb") as file:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file)
        shutil.rmtree(folder)

    def _chosen(self) -> list[Contender]:
        """Return the contenders, ours first; those whose environment is absent are an error."""
        made = {
            "projection": self._projection,
            "tokens": self._tokens,
            "near-duplicates": self._near,
        }[self.what]()
        if self.given.only:
            names = self.given.only.split(",")
            made = [contender for contender in made if contender.name in names]
        for contender in made:
            if not Path(contender.command[0]).exists():
                raise SystemExit(f"no {contender.command[0]}: run `bench_build.py prepare` first")
        return made

    def _projection(self) -> list[Contender]:
        made = [
            self._ours("ours, quality off", "build", keep=True, stages=""),
            self._peer("datasets", "datasets", keep=True),
            self._ours("ours, cheap stages", "build", keep=True, stages="default"),
            self._peer("datasets, tuned", "datasets", keep=True, tuned="yes"),
        ]
        if self.given.rows <= MAX_WARM_ROWS:
            warm = self._ours("ours, warm cache", "build", cache=self._cache("ours"), stages="")
            made += [warm, self._peer("datasets, warm cache", "datasets", cache=self._cache("hf"))]
        return made

    def _tokens(self) -> list[Contender]:
        options = {
            "tokenizer": str(self.given.tokenizer.resolve()),
            "max_length": str(self.given.max_length),
        }
        warm = self._cache("ours")
        return [
            self._ours("ours", "tokens", keep=True, **options),
            self._peer("TRL, two processes", "trl", keep=True, jobs="2", **options),
            self._ours("ours, again (warm cache)", "tokens", keep=True, cache=warm, **options),
            self._peer("TRL, default", "trl", keep=True, jobs="default", **options),
        ]

    def _cache(self, name: str) -> str:
        """Name a cache that outlives a run, which the one that warms up fills."""
        return str(self.work / "warm" / name)

    def _near(self) -> list[Contender]:
        self._halve()
        halves = str(self.work / "halves")
        peer = "near-duplicates"
        return [
            self._ours("ours", "near", keep=True),
            self._peer("datasketch, 128 hashes", "datasketch", peer, keep=True, hashes="128"),
            self._peer("datasketch, 256 hashes", "datasketch", peer, keep=True, hashes="256"),
            self._peer("datatrove", "datatrove", peer, source=halves, keep=True),
        ]

    def _halve(self) -> None:
        """Cut the texts in two files: datatrove shares work by file."""
        folder = self.work / "halves"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        half = self.given.rows - self.given.rows // 2
        with self.input.open("rb") as source:
            for number, count in enumerate((half, self.given.rows - half)):
                with (folder / f"{number}.jsonl").open("wb") as file:
                    file.writelines(next(source) for _ in range(count))

    def _ours(
        self, name: str, what: str, *, keep: bool = False, cache: str = "", **options: str
    ) -> Contender:
        environment = {"PYTHONPATH": f"{ROOT}:{HERE}", "SWE_SCAFFOLD_CACHE": cache}
        warm = bool(cache)
        command = [sys.executable, "-c", CODE, what, str(self.input)]
        command += [f"{key}={value}" for key, value in options.items()]
        return Contender(name, command, environment, keep, warm)

    def _peer(
        self,
        name: str,
        what: str,
        environment: str = "",
        *,
        source: str = "",
        keep: bool = False,
        **options: str,
    ) -> Contender:
        python = str(environments.python(environment or what, self.peers))
        command = [python, str(HERE / "build_peers.py"), what, source or str(self.input)]
        command += [f"{key}={value}" for key, value in options.items()]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": "", "PYTHONPATH": ""}
        return Contender(name, command, offline, keep, warm="cache" in options)

    def _warm_up(self, contenders: Sequence[Contender]) -> None:
        """Read the input once, and fill the warm cache of those that have one."""
        with self.input.open("rb") as file:
            while file.read(1 << 24):
                pass
        shutil.rmtree(self.work / "warm", ignore_errors=True)
        for contender in contenders:
            if contender.warm:
                measure(contender, self.work / "warming", self.cores)
                shutil.rmtree(self.work / "warming")

    def _kept(self, name: str) -> Path:
        return self.work / "kept" / name

    def _judge_projection(self, figures: Mapping[str, Any]) -> None:
        off, cheap = figures["ours, quality off"], figures["ours, cheap stages"]
        ours = gates.content(self._kept("ours, quality off").glob("dev*.jsonl"))
        for name in ("datasets", "datasets, tuned"):
            theirs = gates.content(self._kept(name).glob("*.jsonl"))
            self._gate(f"the rows of {name}: same prompts and responses", ours == theirs)
            peer = figures[name]
            self._ratio(f"rows/s of {name}, quality off", off, peer, "wall_seconds", 2)
            self._ratio(f"rows/s of {name}, cheap stages on", cheap, peer, "wall_seconds", 1)
            self._ratio(f"peak memory of {name}", off, peer, "peak_pss", 2)
        kept = sum(gates.content(self._kept("ours, cheap stages").glob("dev*.jsonl")).values())
        self.notes["Cheap stages"] = f"The default ones; they kept {kept:,} rows."

    def _judge_tokens(self, figures: Mapping[str, Any]) -> None:
        for name in ("TRL, two processes", "TRL, default"):
            peer = figures[name]
            self._ratio(f"wall of {name}", figures["ours"], peer, "wall_seconds", 5)
            warm = figures["ours, again (warm cache)"]
            self._ratio(f"wall of {name}, warm cache", warm, peer, "wall_seconds", 5)
        notes = {
            name: json.loads((self._kept(name) / "note.json").read_bytes()) for name in figures
        }
        inside = ", ".join(f"{k} {v['prepare_seconds']:.1f} s" for k, v in notes.items())
        self.notes["Preparation alone"] = f"Imports and model left out, last run: {inside}."
        self._compare_tokens()

    def _compare_tokens(self) -> None:
        """Run both once more, unmeasured, with their ids written down."""
        folders = []
        for contender in self._tokens()[:2]:
            command = [*contender.command, "save=yes"]
            saving = Contender(contender.name, command, contender.environment)
            folders.append(self.work / "ids" / contender.name)
            measure(saving, folders[-1], self.cores)
        added = json.loads((self.given.tokenizer / "tokenizer.json").read_bytes())["added_tokens"]
        classes = gates.compare_tokens(
            *(folder / "tokens.jsonl" for folder in folders),
            built=self.input,
            specials=[token["content"] for token in added],
        )
        shutil.rmtree(self.work / "ids")
        text = "; ".join(f"{name}: {count:,}" for name, count in classes.most_common())
        self.notes["Ids, row by row"] = f"{text}."
        self._gate("ids equal to TRL's wherever TRL's are right", gates.right_rows(classes))

    def _judge_near(self, figures: Mapping[str, Any]) -> None:
        texts, planted = rows.read_texts(self.input), rows.planted_pairs(self.given.rows)
        exact = [rows.pair_similarity(texts[a], texts[b]) for a, b in planted]
        found = {
            name: gates.judge_pairs(
                gates.near_pairs(name, self._kept(name), self.given.rows), planted, exact, texts
            )
            for name in figures
        }
        peers = [name for name in figures if name != "ours"]
        fastest = min(peers, key=lambda name: figures[name]["wall_seconds"]["median"])
        self._ratio(
            f"wall of {fastest}, the fastest", figures["ours"], figures[fastest], "wall_seconds", 3
        )
        for name in peers:
            ours, theirs = (found[key]["recall_from_0.7"] for key in ("ours", name))
            detail = f"({ours:.1%} against {theirs:.1%})"
            self.verdicts.append(
                pages.holds(f"recall from 0.7 no lower than {name}'s", ours >= theirs, detail)
            )
        for name, value in found.items():
            bins = ", ".join(f"{k}: {v:.1%}" for k, v in value["recall_by_similarity"].items())
            self.notes[name] = (
                f"{value['pairs']:,} pairs; recall by least similarity {bins}; precision "
                f"{value['precision_at_0.7']:.1%} at 0.7, {value['precision_at_0.65']:.1%} at 0.65."
            )

    def _gate(self, goal: str, met: bool) -> None:
        self.equal &= met
        self.verdicts.append(pages.holds(goal, met))

    def _ratio(
        self,
        goal: str,
        ours: Mapping[str, Any],
        theirs: Mapping[str, Any],
        figure: str,
        least: float,
    ) -> None:
        self.verdicts.append(
            pages.ratio(goal, ours=ours[figure], theirs=theirs[figure], least=least)
        )

    def _write(
        self,
        data: Mapping[str, Any],
        figures: Mapping[str, Any],
        runs: Mapping[str, Sequence[Run]],
        before: list[float],
    ) -> None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        pythons = {name: environments.python(name, self.peers) for name in PEERS}
        result = {
            "title": f"{TITLES[self.what]}, {self.given.rows:,} rows",
            "date": today,
            "command": shlex.join(["python", "benchmarks/bench_build.py", *sys.argv[1:]]),
            "commit": pages.commit(ROOT),
            "cores": self.given.cores,
            "load_before": before,
            "load_after": pages.load_average(),
            "machine": pages.machine({"ours": Path(sys.executable), **pythons}),
            "data": {**data, "options": None},
            "rows": self.given.rows,
            "contenders": figures,
            "runs": {name: [vars(run) for run in found] for name, found in runs.items()},
            "notes": self.notes,
            "verdicts": self.verdicts,
        }
        path = self.given.output or HERE / "results" / f"{today}-build-{self.what}.md"
        pages.write(path, result)
        print(pages.page(result))


if __name__ == "__main__":
    sys.exit(main())
