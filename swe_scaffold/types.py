"""The nouns that travel between rooms: frozen dataclasses that import nothing of ours.

What a field means is said beside it; how it is read, judged, rendered or written is left to the
rooms above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class SpeedrunLabel(StrEnum):
    """Whether a row shows success or failure; token labels are called targets."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from: the source as the user named it and its 1-based row (or line)."""

    source: str
    row: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of how an attempt ended; `None` means the source does not say."""

    resolved: bool | None = None
    pass_rate: float | None = None
    turns: int | None = None
    response_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class CodeContext:
    """A piece of source code shown in a prompt; `start_line` is 1-based."""

    path: str
    start_line: int
    text: str


@dataclass(frozen=True, slots=True)
class Task:
    """One SWE-bench-style task as its source tells it; missing text fields are empty strings."""

    instance_id: str
    repo: str
    problem_statement: str
    origin: Origin
    change_summary: str = ""
    patch: str = ""
    test_patch: str = ""
    base_commit: str = ""
    created_at: str = ""
    group: str = ""
    context: tuple[CodeContext, ...] = ()
    outcome: Outcome = field(default_factory=Outcome)
    label: SpeedrunLabel | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call of an assistant message; `arguments` is a JSON object."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `train` is None where the source does not say (then: assistant turns)."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    train: bool | None = None
    train_reason: str = ""

    @property
    def trained(self) -> bool:
        """Whether this message's tokens are targets."""
        return self.role == "assistant" if self.train is None else self.train


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One agent's attempt at a task, as the chat it was; missing text fields are empty strings.

    Assistant messages that must not be learnt say so (`train` False) and why (`train_reason`).
    `submitted` is None where the source does not say. `left_out` counts what the chat does not
    carry, by snake_case kind; `patch` is what the agent submitted.
    """

    instance_id: str
    repo: str
    messages: tuple[Message, ...]
    origin: Origin
    source_format: str
    tools: tuple[Mapping[str, Any], ...] = ()
    trajectory_id: str = ""
    model: str = ""
    patch: str = ""
    exit_status: str = ""
    submitted: bool | None = None
    group: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    label: SpeedrunLabel | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt/response pair, or a chat when `messages` is not empty.

    `meta` holds `group` (the statistical cluster), `source`, `row` and `sha256` (of prompt,
    response, messages and tools), and whatever else the source knew. For a chat, `prompt` and
    `response` are the readable text before and in the last assistant message.
    """

    instance_id: str
    repo: str
    prompt: str
    response: str
    response_source: str
    label: SpeedrunLabel
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The independent unit of resampling: the repository, or what the source names instead."""
        return str(self.meta.get("group") or self.repo or self.instance_id)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A quality stage's answer: keep (`reason` empty) or the snake_case reason to skip.

    Of a row that stays, `findings` are kinds that are counted and reported, `links` tie it to
    other rows for the split, and `example` is the row as the stage changed it.
    """

    reason: str = ""
    detail: str = ""
    findings: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    example: Example | None = None

    @property
    def keep(self) -> bool:
        """Whether the row stays."""
        return not self.reason


KEEP = Verdict()


@dataclass(frozen=True, slots=True)
class SourceFields:
    """Which of the three response fields a source row had (not blank)."""

    has_change_summary: bool = False
    has_patch: bool = False
    has_test_patch: bool = False


@dataclass(frozen=True, slots=True)
class Skip:
    """A row that was read and not kept, with its reason: one line of the skipped report."""

    instance_id: str
    reason: str
    source_fields: SourceFields
    patch_len: int
    stage: str
    origin: Origin
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedExample:
    """Token ids of one example and which of them are targets; ready for the engine.

    `input_ids` (int32) and `loss_mask` (bool) are arrays of shape (length,), seen read-only: rows
    from the cache are parts of a file that is mapped, not read. Two examples are equal if all their
    fields are, tokens included. `group`, `repo` and `label` travel along so that scores can be made
    from it alone. `response_bytes` is the UTF-8 length of the trained text. `prompt_cut` counts
    prompt tokens that `max_length` removed.

    Raises:
        TypeError: The arrays are of another type, or not of one length.
    """

    instance_id: str
    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    repo: str
    group: str
    label: SpeedrunLabel
    response_bytes: int
    prompt_cut: int = 0
    sha256: str = ""

    def __post_init__(self) -> None:
        ids, mask = self.input_ids.view(), self.loss_mask.view()
        if (
            ids.dtype != "int32"
            or mask.dtype != "bool"
            or not ids.shape == mask.shape == (ids.size,)
        ):
            raise TypeError("a row needs an array of int32 ids and a mask of as many bools")
        for name, array in (("input_ids", ids), ("loss_mask", mask)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenizedExample) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    def _value(self) -> tuple[Any, ...]:
        values = (getattr(self, entry.name) for entry in fields(self))
        # Arrays compare element by element.
        return tuple(v.tobytes() if hasattr(v, "tobytes") else v for v in values)

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.input_ids)

    @property
    def targets(self) -> int:
        """Number of trained tokens."""
        return int(self.loss_mask.sum())

    @property
    def target_positions(self) -> NDArray[np.int64]:
        """Positions of the targets that something predicts: all but one at the first token."""
        return self.loss_mask[1:].nonzero()[0] + 1

    @property
    def spans(self) -> list[tuple[int, int, bool]]:
        """The row as runs of tokens that are targets or are not: (start, stop, targets)."""
        edges = (self.loss_mask[1:] != self.loss_mask[:-1]).nonzero()[0] + 1
        bounds = [0, *edges.tolist(), self.length]
        return [(start, stop, bool(self.loss_mask[start])) for start, stop in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """Summed negative log-likelihood (nats) of one example's response tokens, end included.

    `seen_in_training` is None where nothing records what the model was trained on; `prompt_cut`
    counts prompt tokens that the length limit removed.
    """

    instance_id: str
    repo: str
    group: str
    label: SpeedrunLabel
    nll_sum: float
    tokens: int
    bytes: int
    prompt_tokens: int
    sha256: str = ""
    nll_by_class: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    response_source: str = ""
    language: str = ""
    prompt_cut: int = 0
    seen_in_training: bool | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One reported number with its uncertainty; without `ci` there is a `reason`."""

    metric: str
    value: float | None
    unit: str
    n: int
    tokens: int
    clusters: int
    ci: tuple[float, float] | None
    ci_method: str
    level: float
    resamples: int | None = None
    seed: int | None = None
    design_effect: float | None = None
    reason: str | None = None
