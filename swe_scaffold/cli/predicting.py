"""The command that asks a model for answers: predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from swe_scaffold.cli.app import APP, Session, command
from swe_scaffold.cli.options import (
    ApiBase,
    ApiKeyEnv,
    Base,
    Temperature,
    Timeout,
    TrustTemplate,
)
from swe_scaffold.cli.tables import counts, facts, level, number, table
from swe_scaffold.errors import UsageError
from swe_scaffold.terminal import show, show_block

if TYPE_CHECKING:
    from swe_scaffold.prediction import Model, Predictions, Questions

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@command(
    APP,
    "predict",
    examples=(
        "swe-scaffold predict artifacts/checkpoints/mine rows.test.jsonl --output preds.jsonl",
        "swe-scaffold predict Qwen/Qwen2.5-3B-Instruct --text 'Why is 0.1 + 0.2 not 0.3?'",
        "swe-scaffold predict tasks.jsonl --api-base http://127.0.0.1:8000/v1 --model m "
        "--output p.jsonl",
    ),
)
def predict(  # noqa: PLR0913 one parameter per option
    session: Session,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL DATA",
            help="Run folder, model folder or hub id (none with --api-base), and the rows or tasks "
            "to answer: a file, folder or hub data set (none with --text).",
            show_default="required",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Predictions to write (.jsonl).",
            show_default="required, but not with --text",
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Answer this one text, and print the answer."),
    ] = None,
    samples: Annotated[
        int, typer.Option("-k", "--samples", metavar="N", min=1, help="Answers to each row.")
    ] = 1,
    temperature: Temperature = 0.0,
    top_p: Annotated[
        float, typer.Option(metavar="P", help="Draw from the likeliest tokens of this share.")
    ] = 1.0,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", help="Most tokens of an answer.")
    ] = 1024,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Decides what is drawn.", show_default="0")
    ] = 0,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Split of a hub data set or a folder.",
            show_default="train, else dev, else the first",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Answer the first rows only.")
    ] = None,
    repos: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Clones (owner__name, owner/name or name): search/replace edits become patches.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace earlier predictions, finished or unfinished."),
    ] = False,
    base: Base = None,
    dtype: Annotated[
        Dtype,
        typer.Option(
            metavar="auto|float32|bfloat16|float16",
            help="Numbers to compute with; auto is bfloat16 on CUDA, else float32.",
        ),
    ] = "auto",
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Most tokens of a prompt and its answer; longer prompts are shortened.",
            show_default="what the model can read",
        ),
    ] = None,
    tokens_per_batch: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Most tokens of a batch; only speed and memory change."
        ),
    ] = 16_384,
    trust_template: TrustTemplate = False,
    api_base: ApiBase = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name at the server.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="Most requests at a time.")
    ] = 8,
    api_key_env: ApiKeyEnv = None,
    timeout: Timeout = 600.0,
) -> None:
    """Ask a model for patches, or for the next turns of chats.

    Writes SWE-bench predictions, one line for each answer, and a manifest beside them. An
    interrupted run goes on where it stopped when the same command is given again.
    """
    from swe_scaffold.prediction import Sampling, ask_text, read_questions
    from swe_scaffold.prediction import predict as run

    local, data = _names(names or [], served=api_base is not None, text=text is not None)
    if output is None and text is None:
        raise UsageError("--output is missing", where="swe-scaffold predict")
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    sampling.require_samples(samples)
    if api_base is None:
        if model is not None or api_key_env:
            raise UsageError("--model and --api-key-env go with --api-base")
        open_model = _local(
            session,
            local,
            base=base,
            dtype=dtype,
            max_length=max_length,
            tokens_per_batch=tokens_per_batch,
            trust_template=trust_template,
        )
    else:
        if model is None:
            raise UsageError("--api-base needs --model, the name the server knows it by")
        if base or max_length:
            raise UsageError("--base and --max-length are for models on this machine")
        open_model = _served(
            session,
            api_base,
            model,
            concurrency=concurrency,
            key_variable=api_key_env or "",
            timeout=timeout,
        )
    questions: Questions
    if text is None:
        questions = read_questions(data, split=split, limit=limit, offline=session.offline)
    else:
        questions = ask_text(text)
    made = run(
        open_model,
        questions,
        sampling=sampling,
        samples=samples,
        output=output,
        settings={"limit": limit},
        repos=repos,
        overwrite=overwrite,
        reporter=session.reporter,
    )
    _print(session, made, one_off=text is not None)


def _names(names: list[str], *, served: bool, text: bool) -> tuple[str, str]:
    """Return the model and the data that the arguments name; empty where there is none."""
    wanted = [*([] if served else ["MODEL"]), *([] if text else ["DATA"])]
    if len(names) != len(wanted):
        because = [*(["--api-base"] if served else []), *(["--text"] if text else [])]
        said = f" with {' and '.join(because)}" if because else ""
        raise UsageError(
            f"takes {' and '.join(wanted) or 'no argument'}{said}, not {len(names)} arguments",
            where="swe-scaffold predict",
            hint="swe-scaffold predict Qwen/Qwen2.5-3B-Instruct rows.jsonl --output preds.jsonl",
        )
    found = dict(zip(wanted, names, strict=True))
    return found.get("MODEL", ""), found.get("DATA", "")


def _local(session: Session, model: str, **options: Any) -> Callable[[], Model]:
    def load() -> Model:
        from swe_scaffold.prediction.local import load_local

        return load_local(model, offline=session.offline, reporter=session.reporter, **options)

    return load


def _served(
    session: Session,
    url: str,
    model: str,
    *,
    concurrency: int,
    key_variable: str,
    timeout: float,
) -> Callable[[], Model]:
    from swe_scaffold.prediction.http import open_endpoint
    from swe_scaffold.prediction.server import ServedModel

    endpoint = open_endpoint(
        url, key_variable=key_variable, timeout_seconds=timeout, offline=session.offline
    )
    served = ServedModel(endpoint, model, concurrency, reporter=session.reporter)
    return lambda: served


def _print(session: Session, made: Predictions, *, one_off: bool) -> None:
    value = {**made.facts, "output": None if made.path is None else str(made.path)}
    if one_off:
        value["predictions"] = list(made.rows)
        text = "\n\n".join(map(_answer_text, made.rows))
    else:
        text = _summary_text(made)
    session.result(value, text)


def _answer_text(row: Mapping[str, Any]) -> str:
    lines = [show_block(row["raw_output"]).rstrip("\n")]
    if not row["stopped"]:
        lines.append(f"[cut after {row['completion_tokens']} tokens]")
    if row["model_patch"]:
        repaired = f", repaired: {counts(row['repairs'])}" if row["repairs"] else ""
        lines += ["", f"patch ({row['form']}{repaired}):", show_block(row["model_patch"])]
    return "\n".join(lines)


def _summary_text(made: Predictions) -> str:
    value = made.facts
    ledger, health = value["counts"], value["health"]
    rows: list[tuple[str, object]] = [
        ("model", value["model"]["name"]),
        ("rows", ledger["rows"]),
        ("predicted", ledger["predicted"]),
        ("skipped", f"{sum(ledger['skipped'].values())} ({counts(ledger['skipped'])})"),
        ("beyond the limit", ledger["beyond_limit"]),
        ("answers", ledger["predictions"]),
        ("prompts shortened", ledger["prompts_shortened"]),
        ("forms", counts(value["forms"])),
        ("repairs", counts(value["repairs"])),
        ("problems", counts(value["problems"])),
    ]
    if "code" in value:
        rows.append(("clones", counts(value["code"])))
    rows.append(("written", made.path))
    shares = [[name, number(metric), metric["n"]] for name, metric in health.items() if metric["n"]]
    title = f"share [{level(health['stopped'])} interval]"
    note = f"intervals: {show(health['stopped']['ci_method'])}"
    return "\n\n".join([facts("predictions", rows), table(["answers", title, "n"], shares), note])
