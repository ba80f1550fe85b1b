"""The command line of `bench_train`, and what follows from it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import environments
import train_contenders as who
import train_material as material

ENVIRONMENTS = ("trl", "litgpt")
COMMANDS = ("speed", "start", "trajectories")
# Steps, least and most tokens of a row, rows in a step, where the command line leaves them.
DEFAULTS = {
    # One step leaves matrix A where it was.
    "speed": (2, 0, 1024, 16),
    "start": (3, 0, 1024, 16),
    "trajectories": (2, 12_288, 32_768, 2),
    "cuda": (31, 0, 2048, 16),
}
SHAPES = {"speed": "like3b", "start": "like3b", "trajectories": "long"}


def parser(about: str) -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    made = argparse.ArgumentParser(description=about)
    commands = made.add_subparsers(dest="command")
    for name in ("prepare", *COMMANDS):
        command = commands.add_parser(name)
        command.add_argument("--peers", type=Path, default=Path("~/.cache/swe-bench-peers"))
        command.add_argument(
            "--peer-python", action="append", default=[], help="NAME=PATH of an interpreter"
        )
        if name == "prepare":
            continue
        command.add_argument("--shape", choices=[*material.SHAPES], default=SHAPES[name])
        command.add_argument("--from", dest="base", type=Path, help="tasks, or trajectories")
        command.add_argument("--tokenizer", type=Path, help="folder with Qwen2.5's tokenizer")
        command.add_argument("--steps", type=int, help="optimizer steps of an epoch")
        command.add_argument("--rows-per-step", type=int)
        command.add_argument("--epochs", type=int)
        command.add_argument("--length", type=int, help="most tokens of a row")
        command.add_argument("--least", type=int, help="least tokens of a row")
        command.add_argument(
            "--gate-rows", type=int, help="rows of each of the steps that are compared first"
        )
        command.add_argument("--repeats", type=int)
        command.add_argument("--cores", default="all", help="1, all or 1,all")
        command.add_argument("--only", help="names of peers, separated by semicolons")
        command.add_argument("--set", action="append", default=[], help="KEY=VALUE of our side")
        command.add_argument(
            "--no-tune", action="store_true", help="take the first of each peer's settings"
        )
        command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
        command.add_argument("--work", type=Path, default=Path("bench-work"))
        command.add_argument("--output", type=Path, help="page to write; numbers go beside it")
    return made


def wanted(given: argparse.Namespace) -> material.Wanted:
    """Return which rows are asked for."""
    name = "cuda" if given.device == "cuda" else given.command
    steps, least, length, rows = DEFAULTS[name]
    long = given.command == "trajectories"
    held_out = {"speed": 16, "start": 0, "trajectories": 4}[given.command]
    return material.Wanted(
        rows_per_step=given.rows_per_step or rows,
        steps=given.steps or steps,
        epochs=given.epochs or (2 if given.device == "cuda" else 1),
        least=least if given.least is None else given.least,
        length=given.length or length,
        held_out=held_out,
        gate_rows=given.gate_rows or (1 if long else 8),
        gate_steps=4 if given.device == "cuda" else 2,
    )


def cores(given: argparse.Namespace) -> dict[str, list[int]]:
    """Return the sets of processors to measure on, by name.

    Raises:
        SystemExit: A name that is neither `1` nor `all`.
    """
    every = sorted(os.sched_getaffinity(0))
    known = {"1": every[-1:], "all": every}
    names = ["all"] if given.device == "cuda" else given.cores.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"--cores: {unknown[0]!r} is neither 1 nor all")
    return {name: known[name] for name in names}


def interpreters(given: argparse.Namespace) -> dict[str, Path]:
    """Return where the interpreter of each peer's environment is, or would be."""
    named = dict(pair.split("=", 1) for pair in given.peer_python)
    folder = given.peers.expanduser().resolve()
    # Not resolved: an environment's interpreter is a link to the one outside it.
    return {
        name: Path(named[name]).absolute() if name in named else environments.python(name, folder)
        for name in (*ENVIRONMENTS, "unsloth")
    }


def peers(given: argparse.Namespace) -> tuple[who.Settings, dict[str, str]]:
    """Return the settings of the peers that take part, and why the others do not.

    Raises:
        SystemExit: An unknown name, or no environment where there should be one.
    """
    every = who.settings(given.command, given.device)
    absent = {} if given.only else _left_out(given)
    names = given.only.split(";") if given.only else [name for name in every if name not in absent]
    if unknown := [name for name in names if name not in every]:
        raise SystemExit(f"--only: {unknown[0]!r} is none of: {'; '.join(every)}")
    chosen, pythons = {}, interpreters(given)
    for name in names:
        environment = next(iter(every[name].values())).environment
        if pythons[environment].exists():
            chosen[name] = every[name]
        elif environment in ENVIRONMENTS:
            raise SystemExit("no environment of the peers: run `bench_train.py prepare` first")
        else:
            absent[name] = "not installed here, so not measured."
    return chosen, absent


def _left_out(given: argparse.Namespace) -> dict[str, str]:
    """Return who is left out where nobody is named, and why."""
    if given.device == "cuda":
        return {"litgpt": "its script here computes on a CPU alone, so it is not measured."}
    if given.command == "trajectories":
        return {
            "litgpt, Trainer and the seed's way": "not measured: rows of trajectories are compared "
            "with TRL alone."
        }
    if given.command == "start":
        every = who.settings(given.command, given.device)
        why = "not measured: whole processes are compared with the faster peers."
        return {name: why for name in every if name not in who.STARTED}
    if given.shape in ("like3b", "tiny"):
        return {}
    why = "not measured: all logits of rows padded to 2,048 tokens take it half an hour."
    return {who.SEED: why}
