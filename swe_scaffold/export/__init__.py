"""Export a run: its adapter merged into the base and proven equal, or its weights as they are.

- `__init__.py`: the story: find the run, choose rows, merge, read again, prove, describe.
- `proving.py`: the rows of the proof, and the proof.
- `material.py`: what is known of the run: its data's manifest, its evaluations.
- `folder.py`: where it may be written, and what lies there in the end.
- `pushing.py`: to the hub, when asked.

How weights are added and compared is the engine's; what the cards say is written by `cards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from swe_scaffold.cache import Cache
from swe_scaffold.errors import UsageError
from swe_scaffold.export.folder import (
    ADAPTER_FILES,
    GENERATION,
    copy_files,
    copy_tokenizer,
    describe,
    require_free,
    require_space,
)
from swe_scaffold.export.material import Material, gather
from swe_scaffold.export.proving import ProofRows, choose_rows, prove
from swe_scaffold.export.pushing import Hub, open_hub, push
from swe_scaffold.files import atomic_folder, write_bytes
from swe_scaffold.models import MANIFEST, TRAINED_ROWS, ModelReference, find_model, renderer_of
from swe_scaffold.rendering import Renderer
from swe_scaffold.terminal import Reporter, show

__all__ = ["Export", "ExportOptions", "export_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How to export.

    Args:
        base: Overrides the base that the run's manifest names; its hash must still match.
        data: Rows for the proof; default the run's own hold-out.
        dtype: Of the merged weights; default as the base stores them.
        max_shard_bytes: Most bytes of a weight file.
        proof_rows: Most rows that the proof asks.
        adapter_only: Export the adapter itself, with nothing merged.
        overwrite: Replace an earlier export.
        push: A hub repository to upload to, `owner/name`.
        public: Whether that repository is one that anyone can read.
        offline: Never ask the network.
        trust_template: Accept a chat template that is not a known one.
    """

    base: str | None = None
    data: Path | None = None
    dtype: str | None = None
    max_shard_bytes: int = 2_000_000_000
    proof_rows: int = 16
    adapter_only: bool = False
    overwrite: bool = False
    push: str | None = None
    public: bool = False
    offline: bool = False
    trust_template: bool = False


@dataclass(frozen=True, slots=True)
class Export:
    """What was written: the folder, its manifest, and the address on the hub if it was pushed."""

    folder: Path
    manifest: Mapping[str, Any]
    url: str | None


def export_model(
    run: str | Path,
    output: Path,
    options: ExportOptions = ExportOptions(),
    *,
    cache: Cache | None = None,
    reporter: Reporter | None = None,
) -> Export:
    """Merge a run's adapter into its base, prove the result, and write it with its cards.

    The weights of a full fine-tuning are copied: there is nothing to merge or to prove.

    Args:
        run: The folder of a finished run.
        output: Where to; the folder appears whole or not at all.
        options: See there.
        cache: Where rendered rows are looked for and kept.
        reporter: Where messages and progress go.

    Raises:
        UsageError: Not a finished run, a folder in the way, or no rows for the proof.
        IntegrityError: Files that do not match their hashes, or a merge that is not base + adapter.
        EnvironmentFailure: Not enough disk; the hub refuses or does not answer.
        OutOfMemory: The models do not fit.
    """
    reporter = reporter or Reporter(-1)
    target = find_model(str(run), base=options.base)
    if target.run is None:
        raise UsageError(
            "is no finished run with a manifest: there is nothing to export",
            where=str(run),
            hint="name the folder that `swe-scaffold train` wrote",
        )
    require_free(output, overwrite=options.overwrite, run=target.run)
    hub = _hub(options)
    renderer = renderer_of(target, offline=options.offline, trust_template=options.trust_template)
    material = gather(target.run, options.data)
    job = _Job(target, target.run, renderer, material, output, options, reporter)
    if target.adapter is None:
        manifest = _export_weights(job)
    elif options.adapter_only:
        manifest = _export_adapter(job)
    else:
        rows = choose_rows(target, renderer, material, most=options.proof_rows, cache=cache)
        manifest = _export_merged(job, rows)
    url = push(hub, output, [*manifest["files"], MANIFEST], reporter) if hub else None
    return Export(output, manifest, url)


@dataclass(frozen=True, slots=True)
class _Job:
    target: ModelReference
    run: Path
    renderer: Renderer
    material: Material
    output: Path
    options: ExportOptions
    reporter: Reporter


def _hub(options: ExportOptions) -> Hub | None:
    """Make sure, before any work, that what is asked of the hub can be done."""
    if options.push is None:
        if options.public:
            raise UsageError("goes with --push alone", where="--public")
        return None
    return open_hub(options.push, public=options.public, offline=options.offline)


def _export_adapter(job: _Job) -> dict[str, Any]:
    with atomic_folder(job.output) as folder:
        copy_files(ADAPTER_FILES, job.run, folder)
        copy_tokenizer(job.renderer, folder)
        facts = {"command": _command(job)}
        return describe(folder, job.output.name, "adapter", job.material, facts)


def _export_weights(job: _Job) -> dict[str, Any]:
    from swe_scaffold.engine.model_files import weight_files

    for flag, given in (
        ("--adapter-only", job.options.adapter_only),
        ("--dtype", job.options.dtype),
    ):
        if given:
            raise UsageError(
                "every weight was trained in this run: they are copied as they are", where=flag
            )
    names = weight_files(job.run)
    require_space(job.output, sum((job.run / name).stat().st_size for name in names))
    with atomic_folder(job.output) as folder:
        size = copy_files(names, job.run, folder)
        others = [name for name in ("config.json", GENERATION) if (job.run / name).is_file()]
        copy_files([*others, TRAINED_ROWS], job.run, folder)
        copy_tokenizer(job.renderer, folder)
        facts = {"command": _command(job), "weights": names, "bytes": size}
        sha256 = job.target.base_sha256
        return describe(folder, job.output.name, "model", job.material, facts, sha256)


def _export_merged(job: _Job, rows: ProofRows) -> dict[str, Any]:
    from swe_scaffold.engine.loading import load_model
    from swe_scaffold.engine.merging import merged_config, plan_merge, write_merged

    options, reporter = job.options, job.reporter
    plan = plan_merge(
        job.target.base,
        job.run,
        dtype=options.dtype,
        max_shard_bytes=options.max_shard_bytes,
        offline=options.offline,
    )
    require_space(job.output, plan.bytes)
    # What is merged into is what is stored, and that is never quantised.
    stored = replace(job.target, quantization="none")
    reference = load_model(stored, dtype=plan.reference_dtype, offline=options.offline)
    reporter.say(f"base: {show(job.target.base)} (sha256 {reference.base.sha256[:12]})")
    with atomic_folder(job.output) as folder:
        with reporter.progress("merging", len(plan.shards), unit="weight files") as track:
            names = write_merged(plan, folder, written=track.advance)
        write_bytes(folder / "config.json", merged_config(plan.base, options.dtype))
        copy_tokenizer(job.renderer, folder)
        generation = plan.base / GENERATION
        if generation.is_file():
            write_bytes(folder / GENERATION, generation.read_bytes())
        copy_files([TRAINED_ROWS], job.run, folder)
        proof = prove(reference, folder, plan.merged_dtype, rows, reporter)
        facts = {
            "command": _command(job),
            "dtypes": list(plan.dtypes),
            "weights": names,
            "bytes": plan.bytes,
            "rows": rows.entry(),
            "proof": asdict(proof.equality),
            "notes": [*rows.notes, *proof.notes, *_about_base(job.target)],
        }
        return describe(folder, job.output.name, "merged", job.material, facts, proof.model_sha256)


def _about_base(target: ModelReference) -> list[str]:
    if target.quantization == "none":
        return []
    return [
        f"the adapter was trained on its base in {target.quantization}, and is merged into the "
        "stored weights, which compute otherwise: the evaluations of the run are not of this model"
    ]


def _command(job: _Job) -> list[str]:
    """Return the command that makes the same export, without the places of this machine."""
    options = job.options
    words = ["swe-scaffold", "export", job.run.resolve().name, "--output", job.output.name]
    if options.adapter_only:
        return [*words, "--adapter-only"]
    if job.target.adapter is None:
        return words
    if options.data is not None:
        words += ["--data", options.data.name]
    if options.dtype is not None:
        words += ["--dtype", options.dtype]
    words += ["--max-shard-size", str(options.max_shard_bytes)]
    return [*words, "--proof-rows", str(options.proof_rows)]
