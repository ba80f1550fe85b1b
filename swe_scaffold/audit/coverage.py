"""What training would see of a file with a given tokenizer, and what cutting long rows would cost.

Our own way shortens prompts and never an answer; it is measured by rendering. The other ways are
counted from the uncut masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swe_scaffold.audit.ledger import LoadedFile
from swe_scaffold.errors import IntegrityError
from swe_scaffold.quality.findings import MAX_EVIDENCE, Finding
from swe_scaffold.quality.length import POLICIES, CutCost, Lengths, count_cut, measure
from swe_scaffold.rendering import Renderer, RenderProof
from swe_scaffold.terminal import SILENT, Reporter
from swe_scaffold.types import Example, TokenizedExample, Verdict

OURS = "prompt"
PROOF_ROWS = 200
WAYS = {
    "tail": "cut the tail (TRL)",
    "ratio": "share the room (LLaMA-Factory)",
    "drop": "drop the row (axolotl)",
    OURS: "shorten the prompt (train, here)",
}


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """The length training will use, what shortening leaves of a prompt, lengths to compare."""

    max_length: int
    min_prompt_tokens: int
    compared: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenReport:
    """Token counts of a file before any cut, and what becomes of it at `max_length`.

    `reasons` counts rows that come to no tokens at `max_length` (over_length, no_trainable_tokens).
    `cuts` has one line per way and length; the way `prompt` is ours. `proof` is None if it failed.
    """

    max_length: int
    rows: int
    lengths: Lengths
    prompt_lengths: Lengths
    target_lengths: Lengths
    reasons: dict[str, int]
    prompts_shortened: int
    trained_tokens: int
    tokens: int
    proof: RenderProof | None
    cuts: tuple[CutCost, ...]

    @property
    def trained_share(self) -> float:
        """Share of the rendered tokens that are targets, at `max_length`."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        proof = self.proof
        return {
            "max_length": self.max_length,
            "rows": self.rows,
            "lengths": self.lengths.to_dict(),
            "prompt_lengths": self.prompt_lengths.to_dict(),
            "target_lengths": self.target_lengths.to_dict(),
            "reasons": self.reasons,
            "prompts_shortened": self.prompts_shortened,
            "trained_tokens": self.trained_tokens,
            "tokens": self.tokens,
            "trained_share": round(self.trained_share, 6),
            "boundary_merges": proof.boundary_merges if proof else None,
            "identical_to_template": proof.identical if proof else None,
            "spelt_controls": proof.spelt_controls if proof else None,
            "proven_rows": proof.rows if proof else 0,
            "cuts": [cut.to_dict() for cut in self.cuts],
        }


def measure_tokens(
    file: LoadedFile, renderer: Renderer, limits: TokenLimits, reporter: Reporter = SILENT
) -> tuple[TokenReport, list[Finding]]:
    """Render every row, uncut and at each length, and count."""
    masks: list[bytes] = []
    unusable: dict[int, Verdict] = {}
    with reporter.progress(f"rendering {file.path.name}", len(file.examples)) as track:
        for index, result in enumerate(renderer.render_many(file.examples)):
            if isinstance(result, Verdict):
                unusable[index] = result
            masks.append(b"" if isinstance(result, Verdict) else result.loss_mask.tobytes())
            track.advance()
    rendered = [mask for mask in masks if mask]
    cuts = [
        count_cut(policy, rendered, length) for length in limits.compared for policy in POLICIES
    ]
    ours = {}
    lengths = sorted({*limits.compared, limits.max_length})
    with reporter.progress("shortening prompts", len(lengths), unit="lengths") as track:
        for length in lengths:
            at = replace(limits, max_length=length)
            ours[length] = _Ours(file.examples, masks, renderer, at)
            track.advance()
    final = ours[limits.max_length]
    verdicts = unusable | final.skipped
    proof, findings = _prove(file, renderer)
    report = TokenReport(
        max_length=limits.max_length,
        rows=len(masks),
        lengths=measure(map(len, rendered)),
        prompt_lengths=measure(len(mask) - sum(mask) for mask in rendered),
        target_lengths=measure(map(sum, rendered)),
        reasons=_reasons(verdicts),
        prompts_shortened=final.shortened,
        trained_tokens=sum(sum(mask) for mask in rendered) - final.targets_lost,
        tokens=sum(map(len, rendered)) - final.tokens_lost,
        proof=proof,
        cuts=(*cuts, *(entry.cost() for entry in ours.values())),
    )
    return report, [*findings, *_judge(file, verdicts, report)]


class _Ours:
    """Shortening at one length: only rows that are too long are rendered again."""

    def __init__(
        self,
        examples: Sequence[Example],
        masks: Sequence[bytes],
        renderer: Renderer,
        limits: TokenLimits,
    ) -> None:
        self.max_length = limits.max_length
        self.rows = sum(1 for mask in masks if mask)
        self.targets = sum(map(sum, masks))
        self.shortened = self.targets_lost = self.tokens_lost = self.cut = 0
        self.skipped: dict[int, Verdict] = {}
        long = []
        for index, mask in enumerate(masks):
            if sum(mask) >= self.max_length:
                # No room for any prompt: the answer need not be encoded again to know that.
                self._count(index, mask, _too_long(mask, self.max_length))
            elif len(mask) > self.max_length:
                long.append(index)
        results = renderer.render_many(
            [examples[index] for index in long],
            max_length=limits.max_length,
            min_prompt_tokens=limits.min_prompt_tokens,
        )
        for index, result in zip(long, results, strict=True):
            self._count(index, masks[index], result)

    def _count(self, index: int, mask: bytes, result: TokenizedExample | Verdict) -> None:
        if isinstance(result, Verdict):
            self.skipped[index] = result
            self.targets_lost += sum(mask)
            self.tokens_lost += len(mask)
            return
        self.shortened += 1
        self.tokens_lost += len(mask) - result.length
        gone = sum(mask) - result.targets
        self.cut += gone > 0
        self.targets_lost += gone

    def cost(self) -> CutCost:
        return CutCost(
            policy=OURS,
            max_length=self.max_length,
            rows=self.rows,
            answers_cut=self.cut,
            answers_lost=len(self.skipped),
            prompts_shortened=self.shortened,
            targets=self.targets,
            targets_lost=self.targets_lost,
        )


def _too_long(mask: bytes, max_length: int) -> Verdict:
    detail = f"{len(mask)} tokens, {sum(mask)} of them targets, but max_length is {max_length}"
    return Verdict("over_length", detail)


def _prove(file: LoadedFile, renderer: Renderer) -> tuple[RenderProof | None, list[Finding]]:
    sample = file.examples[:: max(1, -(-len(file.examples) // PROOF_ROWS))]
    try:
        return renderer.prove(sample), []
    except IntegrityError as error:
        where = f"{file.path}: {error.where}" if error.where else str(file.path)
        return None, [Finding("error", "render_proof_failed", error.message, where)]


def _reasons(verdicts: dict[int, Verdict]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for verdict in verdicts.values():
        counts[verdict.reason] = counts.get(verdict.reason, 0) + 1
    return dict(sorted(counts.items()))


def _judge(
    file: LoadedFile, verdicts: dict[int, Verdict], report: TokenReport
) -> Iterator[Finding]:
    where = str(file.path)
    for reason, count in report.reasons.items():
        rows = [index for index, verdict in verdicts.items() if verdict.reason == reason]
        evidence = tuple(
            f"{file.name(index)}: {verdicts[index].detail}" for index in sorted(rows)[:MAX_EVIDENCE]
        )
        message = f"{count} of {report.rows} rows are not trained at max_length {report.max_length}"
        yield Finding("warning", reason, message, where, evidence)
    if report.rows and not report.trained_tokens:
        yield Finding("error", "nothing_to_train", "no row has a trained token", where)
    if report.prompts_shortened:
        limit = report.max_length
        message = f"{report.prompts_shortened} prompts are shortened to fit max_length {limit}"
        yield Finding("info", "prompt_shortened", message, where)
