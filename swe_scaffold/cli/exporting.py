"""The command that hands a run on: export."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from swe_scaffold.cli.app import APP, NoCache, Session, command
from swe_scaffold.cli.options import TrustTemplate
from swe_scaffold.cli.tables import facts, place
from swe_scaffold.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB|TB)?", re.IGNORECASE)
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_DTYPES = ("float32", "bfloat16", "float16")


@command(
    APP,
    "export",
    examples=(
        "swe-scaffold export artifacts/checkpoints/qwen-speedrun --output artifacts/merged",
        "swe-scaffold export artifacts/checkpoints/qwen-speedrun --output artifacts/adapter "
        "--adapter-only",
    ),
)
def export(  # noqa: PLR0913 one parameter per option
    session: Session,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the export.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Rows for the proof (JSONL).",
            show_default="the run's hold-out, where it lay",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Base of the run, where it is not where it was."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(_DTYPES),
            help="Dtype of the merged weights.",
            show_default="as the base is stored",
        ),
    ] = None,
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Most bytes of a weight file, such as 500MB.")
    ] = "2GB",
    proof_rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Most rows that the proof compares.")
    ] = 16,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Export the adapter itself; nothing is merged.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export in the folder.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload to this hub repository, privately."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="With --push, to a repository that anyone can read.")
    ] = False,
    trust_template: TrustTemplate = False,
    no_cache: NoCache = False,
) -> None:
    """Merge a run's adapter into its base, prove the result equal, and write its cards.

    The written files are read again and compared with base + adapter: every weight, and the logits
    on hold-out rows. A merge that differs by more than rounding is refused (exit code 5) and
    nothing is left. The weights of a full fine-tuning are copied. README.md and DATA_CARD.md are
    written from manifests. Nothing is uploaded unless --push asks for it; that needs HF_TOKEN in
    the environment.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise UsageError(f"must be one of {', '.join(_DTYPES)}", where="--dtype")
    from swe_scaffold.export import ExportOptions, export_model

    options = ExportOptions(
        base=base,
        data=data,
        dtype=dtype,
        max_shard_bytes=_bytes(max_shard_size),
        proof_rows=proof_rows,
        adapter_only=adapter_only,
        overwrite=overwrite,
        push=push,
        public=public,
        offline=session.offline,
        trust_template=trust_template,
    )
    result = export_model(
        run, output, options, cache=session.cache(off=no_cache), reporter=session.reporter
    )
    value = {"folder": str(result.folder), "url": result.url, "manifest": dict(result.manifest)}
    session.result(value, _text(result.folder, result.manifest, result.url))


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else 0
    if size < 1:
        raise UsageError("is no size, such as 500MB or 2GB", where="--max-shard-size")
    return size


def _text(folder: Path, manifest: Mapping[str, Any], url: str | None) -> str:
    merge = manifest["export"]
    size = sum(entry["size"] for entry in manifest["files"].values())
    rows: list[tuple[str, object]] = [
        ("kind", manifest["kind"]),
        ("files", f"{len(manifest['files'])}, {size:,} bytes"),
    ]
    if proof := merge.get("proof"):
        rows += [
            ("dtype", ", ".join(merge["dtypes"])),
            ("weights equal", f"{proof['weights_compared']}, {proof['weights_merged']} merged"),
            ("logits compared", f"{proof['positions']} positions of {proof['rows']} rows"),
            (
                "difference",
                f"{proof['difference']:.2g} of the largest logit ({proof['tolerance']:.2g} "
                f"allowed), root mean square {proof['difference_rms']:.2g} "
                f"({proof['tolerance_rms']:.2g} allowed)",
            ),
            ("same top token", f"{100 * proof['argmax_agreement']:.4g} %"),
        ]
    rows += [("model card", folder / "README.md"), ("data card", folder / "DATA_CARD.md")]
    if url:
        rows.append(("uploaded", url))
    notes = "".join(f"\nbeware: {place(note)}" for note in merge.get("notes", ()))
    model = "PEFT" if manifest["kind"] == "adapter" else "transformers' AutoModelForCausalLM"
    return f"{facts('export', rows)}{notes}\n\nload it with {model}: {place(folder)}"
