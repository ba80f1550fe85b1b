"""The commands that measure models: evaluate, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swe_scaffold.cli.app import APP, NoCache, Session, command
from swe_scaffold.cli.comparison_text import comparison_text
from swe_scaffold.cli.evaluation_text import evaluation_text
from swe_scaffold.cli.help import from_config
from swe_scaffold.cli.options import Config, Set, TrustTemplate, load_resolved, require_page
from swe_scaffold.cli.tables import place
from swe_scaffold.errors import CheckFailed, UsageError
from swe_scaffold.files import write_text
from swe_scaffold.terminal import show

if TYPE_CHECKING:
    from swe_scaffold.config import EvaluationConfig

Base = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Base of adapters, where their manifests name none."),
]
ShuffledControl = Annotated[
    bool,
    typer.Option("--shuffled-control", help="Score with another prompt of the same group too."),
]
Generate = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, help="Let the models answer N prompts, and look at the answers' health."
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="Processes that score; on CUDA each takes a device of its own."
    ),
]
TokensPerBatch = Annotated[
    int | None,
    from_config(
        "evaluation.tokens_per_batch",
        8192,
        "Most tokens of a pass; only speed and memory change.",
        metavar="N",
        min=1,
    ),
]
BatchSize = Annotated[
    int | None,
    from_config(
        "evaluation.batch_size", None, "Most rows of a pass, likewise.", metavar="N", min=1
    ),
]
ClusterBy = Annotated[
    str | None,
    from_config(
        "evaluation.cluster_by", "group", "Unit of the intervals.", metavar="group|repo|row"
    ),
]


@command(
    APP,
    "evaluate",
    examples=(
        "swe-scaffold evaluate artifacts/checkpoints/qwen-speedrun rows.test.jsonl --compare-base",
        "swe-scaffold evaluate runs/first runs/second Qwen/Qwen2.5-3B-Instruct rows.test.jsonl",
    ),
)
def evaluate(  # noqa: PLR0913 one parameter per option
    session: Session,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... DATA",
            help="Run folders, model folders or hub ids; and rows to score (JSONL).",
        ),
    ],
    config: Config = None,
    base: Base = None,
    compare_base: Annotated[
        bool, typer.Option("--compare-base", help="Score the base too, and pair the two.")
    ] = False,
    shuffled_control: ShuffledControl = False,
    generate: Generate = 0,
    tokens_per_batch: TokensPerBatch = None,
    batch_size: BatchSize = None,
    processes: Processes = 1,
    cluster_by: ClusterBy = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the results.",
            show_default="evaluation/ in the run folder, else artifacts/evaluation/",
        ),
    ] = None,
    set_: Set = None,
    trust_template: TrustTemplate = False,
    no_cache: NoCache = False,
) -> None:
    """Score models on the same rows: NLL, perplexity and bits per byte.

    Every number comes with its interval; rows that an adapter was trained on are reported apart.
    Results are written as evaluation.json and, row by row as they come, scores.jsonl: an
    interrupted evaluation goes on, and what is there for the same model, data and settings is used.
    """
    flags = {
        "evaluation.tokens_per_batch": tokens_per_batch,
        "evaluation.batch_size": batch_size,
        "evaluation.cluster_by": cluster_by,
    }
    if len(paths) < 2:
        raise UsageError(
            "takes models and a file of rows",
            where="swe-scaffold evaluate",
            hint="swe-scaffold evaluate artifacts/checkpoints/qwen-speedrun rows.test.jsonl",
        )
    resolved = load_resolved(session, config, set_, flags, part="evaluation")
    from swe_scaffold.evaluation import evaluate_models

    found = evaluate_models(
        paths[:-1],
        paths[-1],
        config=resolved.evaluation,
        base=base,
        compare_base=compare_base,
        shuffled_control=shuffled_control,
        generate=generate,
        processes=processes,
        output=output,
        fresh=no_cache,
        offline=session.offline,
        trust_template=trust_template,
        cache=session.cache(off=no_cache),
        reporter=session.reporter,
    )
    texts = [
        f"{evaluation_text(one.report)}\n\nwritten: {place(one.path)}/evaluation.json"
        for one in found
    ]
    if len(found) > 1:
        folders = " ".join(place(one.path) for one in found)
        texts.append(f"next: swe-scaffold compare {folders}")
    reports = [one.report for one in found]
    session.result(reports[0] if len(found) == 1 else reports, "\n\n".join(texts))


@command(
    APP,
    "compare",
    examples=(
        "swe-scaffold compare Qwen/Qwen2.5-3B-Instruct runs/mine --data rows.test.jsonl",
        "swe-scaffold compare FIRST/evaluation/HASH SECOND/evaluation/HASH --gate better",
    ),
)
def compare(  # noqa: PLR0913 one parameter per option
    session: Session,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="BASELINE MODEL...",
            help="Folders of evaluations, or models to evaluate first (with --data).",
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows to score models on (JSONL).")
    ] = None,
    config: Config = None,
    seen: Annotated[
        str,
        typer.Option(
            metavar="refuse|drop|include", help="What to do with rows that a model was trained on."
        ),
    ] = "refuse",
    common: Annotated[
        bool, typer.Option("--common", help="Compare the rows that all have, where some lack some.")
    ] = False,
    gate: Annotated[
        str | None,
        typer.Option(
            metavar="better|not-worse", help="End with exit code 9 unless this is shown of each."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="By how much, in nats per token.",
            show_default="0 for better, 0.02 for not-worse",
        ),
    ] = None,
    base: Base = None,
    shuffled_control: ShuffledControl = False,
    generate: Generate = 0,
    processes: Processes = 1,
    cluster_by: ClusterBy = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the comparison as a page, too.")
    ] = None,
    set_: Set = None,
    trust_template: TrustTemplate = False,
    no_cache: NoCache = False,
) -> None:
    """Compare models with a baseline on the same rows, paired.

    Differences carry clustered intervals and sign-flip tests, as a whole and by repository, label,
    response source, length, language and token class; beside every "no difference" stands what
    could have been found.
    """
    flags = {"evaluation.cluster_by": cluster_by}
    resolved = load_resolved(session, config, set_, flags, part="evaluation")
    asked = _gate(gate, margin)
    if html is not None:
        require_page(html, [] if data is None else [data])
    options = {
        "base": base,
        "shuffled_control": shuffled_control,
        "generate": generate,
        "processes": processes,
        "fresh": no_cache,
        "offline": session.offline,
        "trust_template": trust_template,
        "cache": session.cache(off=no_cache),
        "reporter": session.reporter,
    }
    places = _evaluations(models, data, resolved.evaluation, options)
    from swe_scaffold.comparison import compare_evaluations

    result = compare_evaluations(
        places,
        config=resolved.evaluation,
        seen=_one_of(("refuse", "drop", "include"), seen, "--seen"),
        common=common,
        gate=asked,
    )
    if html is not None:
        from swe_scaffold.report.comparison_page import comparison_page

        write_text(html, comparison_page(result.report))
        session.reporter.say(f"wrote {place(html)}")
    session.result(result.report, comparison_text(result.report))
    if result.passes is False:
        raise CheckFailed("the gate says no", where=f"--gate {gate}")


def _evaluations(
    names: Sequence[str],
    data: Path | None,
    config: EvaluationConfig,
    options: dict[str, Any],
) -> list[Path]:
    """Return the folder of each evaluation; models are evaluated first."""
    from swe_scaffold.scores import is_evaluation

    models = [name for name in names if not is_evaluation(Path(name))]
    if len(names) < 2:
        raise UsageError("takes a baseline and at least one model", where="swe-scaffold compare")
    if models and data is None:
        raise UsageError(
            "is no evaluation",
            where=models[0],
            hint="give the rows to score it on: --data rows.test.jsonl",
        )
    if not models or data is None:
        return [Path(name) for name in names]
    from swe_scaffold.evaluation import evaluate_models

    found = evaluate_models(models, data, config=config, **options)
    made = {name: one.path for name, one in zip(models, found, strict=True)}
    return [made.get(name, Path(name)) for name in names]


def _gate(wanted: str | None, margin: float | None) -> Any:
    from swe_scaffold.comparison import Gate

    if wanted is None:
        if margin is not None:
            raise UsageError("goes with --gate", where="--margin")
        return None
    return Gate(_one_of(("better", "not-worse"), wanted, "--gate"), margin)


def _one_of(known: Sequence[str], wanted: str, option: str) -> Any:
    if wanted not in known:
        raise UsageError(f"must be {' or '.join(known)}, not {show(wanted)}", where=option)
    return wanted
