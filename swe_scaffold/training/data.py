"""The rows of a run: which are trained, which are held out, and why the others are not.

rows of the file = trained + held out + skipped, always checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swe_scaffold.cache import Cache
from swe_scaffold.config import SpeedrunConfig
from swe_scaffold.errors import DataError, IntegrityError, ScaffoldError
from swe_scaffold.manifest import read_manifest
from swe_scaffold.rendering import Renderer, prove_rows, render_rows
from swe_scaffold.rows import BuiltFiles
from swe_scaffold.sources.examples import ExampleFile, read_examples
from swe_scaffold.splits import SplitKeys, assign
from swe_scaffold.terminal import show
from swe_scaffold.types import Example, SpeedrunLabel, TokenizedExample, Verdict

PROOF_ROWS = 1000


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """A row of the file that the run does not use."""

    instance_id: str
    reason: str
    detail: str
    side: str


@dataclass(frozen=True, slots=True)
class RunData:
    """Rendered rows and the ledger of the file they came from."""

    trained: tuple[TokenizedExample, ...]
    held_out: tuple[TokenizedExample, ...]
    skipped: tuple[SkippedRow, ...]
    rows: int
    data_sha256: str
    holdout_sha256: str
    path: Path | None = None
    holdout_path: Path | None = None
    notes: tuple[str, ...] = ()
    prompts_cut: int = 0
    proof: dict[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> dict[str, str]:
        """Hashes that a resumed run must match."""
        return {"data": self.data_sha256, "holdout": self.holdout_sha256}

    def counts(self) -> dict[str, object]:
        """The ledger as JSON values."""
        return {
            "rows": self.rows,
            "trained": len(self.trained),
            "held_out": len(self.held_out),
            "skipped": dict(sorted(Counter(row.reason for row in self.skipped).items())),
            "prompts_shortened": self.prompts_cut,
            "target_tokens": sum(row.targets for row in self.trained),
            "tokens": sum(row.length for row in self.trained),
            "proof": self.proof,
        }


def prepare(
    path: Path, config: SpeedrunConfig, renderer: Renderer, cache: Cache | None = None
) -> RunData:
    """Read, hold out, choose, render and prove the rows of a training file.

    What was rendered and proven before comes from the cache.

    Raises:
        DataError: Unreadable rows, a hold-out that leaks, or nothing left to train.
        IntegrityError: A hold-out that is not the one the manifest names, or a failed mask proof.
    """
    file = read_examples(path)
    dev, test, notes, holdout_sha256 = _hold_out(path, file, config)
    skipped: list[SkippedRow] = []
    rendering = _Rendering(config, renderer, cache, skipped)
    trained, held_out = rendering.run(dev, "dev"), rendering.run(test, "test")
    if not trained:
        reasons = dict(Counter(row.reason for row in skipped if row.side == "dev"))
        raise DataError(
            f"no rows left to train ({len(dev)} read, skipped: {reasons})",
            where=str(path),
            hint="failure rows train only with training.include_failures; see swe-scaffold audit",
        )
    rows = len(dev) + len(test)
    if rows != len(trained) + len(held_out) + len(skipped):
        raise ScaffoldError("the ledger does not add up", where=str(path))
    usable = {row.sha256 for row in (*trained, *held_out)}
    sample = [example for example in (*dev, *test) if example.meta["sha256"] in usable]
    proof = prove_rows(
        renderer,
        sample[:: max(1, -(-len(sample) // PROOF_ROWS))],
        max_length=config.training.max_length,
        min_prompt_tokens=config.training.min_prompt_tokens,
        cache=cache,
    )
    return RunData(
        trained=tuple(trained),
        held_out=tuple(held_out),
        skipped=tuple(skipped),
        rows=rows,
        data_sha256=file.sha256,
        holdout_sha256=holdout_sha256,
        path=path,
        holdout_path=beside if (beside := BuiltFiles.of(path).test).is_file() else None,
        notes=tuple(notes),
        prompts_cut=sum(1 for row in trained if row.prompt_cut),
        proof={
            "rows": proof.rows,
            "identical": proof.identical,
            "boundary_merges": proof.boundary_merges,
            "spelt_controls": proof.spelt_controls,
        },
    )


@dataclass(frozen=True, slots=True)
class _Rendering:
    config: SpeedrunConfig
    renderer: Renderer
    cache: Cache | None
    skipped: list[SkippedRow]

    def run(self, examples: Sequence[Example], side: str) -> list[TokenizedExample]:
        training = self.config.training
        failures = training.include_failures or side == "test"
        chosen = []
        for example in examples:
            verdict = _choose(example, include_failures=failures)
            if verdict.keep:
                chosen.append(example)
            else:
                self._skip(example, verdict, side)
        rendered = render_rows(
            self.renderer,
            chosen,
            max_length=training.max_length,
            min_prompt_tokens=training.min_prompt_tokens,
            cache=self.cache,
            proof_follows=True,
        )
        rows = []
        for example, result in zip(chosen, rendered, strict=True):
            if isinstance(result, Verdict):
                self._skip(example, result, side)
            else:
                rows.append(result)
        return rows

    def _skip(self, example: Example, verdict: Verdict, side: str) -> None:
        row = SkippedRow(example.instance_id, verdict.reason, verdict.detail, side)
        self.skipped.append(row)


def _choose(example: Example, *, include_failures: bool) -> Verdict:
    if not example.messages and not example.response.strip():
        return Verdict("empty_response")
    if example.label is SpeedrunLabel.FAILURE and not include_failures:
        return Verdict("failure_label", "training.include_failures is false")
    return Verdict()


def _hold_out(
    path: Path, file: ExampleFile, config: SpeedrunConfig
) -> tuple[list[Example], list[Example], list[str], str]:
    """Return dev rows, test rows, what to tell the user, and the hold-out's hash."""
    files = BuiltFiles.of(path)
    dev = list(file.examples)
    if files.test.is_file():
        test_file = read_examples(files.test)
        note = _check_sibling(file, test_file, files)
        return dev, list(test_file.examples), [note], test_file.sha256
    if config.training.eval_strategy == "no":
        return dev, [], ["eval_strategy is no: every row of the file is trained"], ""
    keys = [SplitKeys.of(example) for example in dev]
    split = config.dataset
    result = assign(keys, dev_split=split.dev_split, split_by=split.split_by, seed=split.seed)
    pairs = list(zip(dev, result.sides, strict=True))
    train = [example for example, side in pairs if side == "dev"]
    test = [example for example, side in pairs if side == "test"]
    if not train:
        raise DataError(
            "the hold-out would take every row",
            where=str(path),
            hint="training.eval_strategy no trains all rows, and so does dataset.dev_split 1",
        )
    note = (
        f"no {files.test.name} beside the file: {len(test)} of {len(dev)} rows held out "
        f"(split by {result.method})"
    )
    return train, test, [note], f"{file.sha256}:{result.method}:{split.dev_split}:{split.seed}"


def _check_sibling(dev: ExampleFile, test: ExampleFile, files: BuiltFiles) -> str:
    """Return what to say of the hold-out beside the file, if it is one."""
    about = f"hold-out: {files.test.name}, {len(test.examples)} rows"
    reason = "no manifest"
    if files.manifest.is_file():
        outputs = read_manifest(files.manifest).get("outputs")
        if _recorded_sha256(outputs, files.test.name) != test.sha256:
            raise IntegrityError(
                f"is not the hold-out that {files.manifest.name} names",
                where=str(files.test),
                hint="build both again, or remove the file to hold rows of the training file out",
            )
        if _recorded_sha256(outputs, files.dev.name) == dev.sha256:
            return f"{about}, as the manifest names it"
        reason = f"{files.dev.name} was changed since it was built"
    links = {link for example in dev.examples for link in SplitKeys.of(example).links}
    for number, example in enumerate(test.examples, start=1):
        shared = [link for link in SplitKeys.of(example).links if link in links]
        if shared:
            raise DataError(
                f"row {show(example.instance_id)} shares its {shared[0].partition(':')[0]} with a "
                "training row",
                where=f"{files.test}:{number}",
                hint="remove the file to hold rows of the training file out instead",
            )
    return f"{about} ({reason}; leak check passed)"


def _recorded_sha256(outputs: object, name: str) -> object:
    entry = outputs.get(name) if isinstance(outputs, dict) else None
    return entry.get("sha256") if isinstance(entry, dict) else None
