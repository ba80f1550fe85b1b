"""Proof that a merged model is base + adapter: its weights, and its logits on rows.

The reference is peft's own arithmetic on the loaded base; nothing is shared with `merging`. Which
rows are asked, and what follows from a failed proof, is decided elsewhere.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from swe_scaffold.engine.devices import Device, out_of_memory
from swe_scaffold.errors import IntegrityError
from swe_scaffold.terminal import show
from swe_scaffold.types import TokenizedExample

# The largest difference of a logit and the root mean square of all, as shares of the largest logit;
# docs/export.md says how they were found.
TOLERANCES = {"float32": (1e-4, 1e-5), "float16": (4e-2, 2e-3), "bfloat16": (2e-1, 1.5e-2)}
# Elements of a weight that rounding may send to the neighbour, at least two of them.
_FLIPPED = 1e-3
_CHUNK_ELEMENTS = 1 << 26


@dataclass(frozen=True, slots=True)
class Equality:
    """How far a merged model is from base + adapter on some rows.

    Logits are those of every supervised position; differences of logits are shares of the largest
    absolute logit. `difference_rms` and `effect_rms` are root mean squares of the difference and of
    what the adapter changes. `nll_difference` is the largest of any row, in nats per token.
    """

    rows: int
    positions: int
    reference_dtype: str
    dtype: str
    device: str
    weights_compared: int
    weights_merged: int
    largest_logit: float
    difference: float
    tolerance: float
    difference_rms: float
    tolerance_rms: float
    effect_rms: float
    reference_nll: float
    merged_nll: float
    nll_difference: float
    argmax_agreement: float

    @property
    def holds(self) -> bool:
        """Whether the logits agree within both tolerances."""
        return self.difference <= self.tolerance and self.difference_rms <= self.tolerance_rms


def compare_weights(reference: Any, merged: Any, *, where: str) -> tuple[int, int]:
    """Compare every tensor of a merged model with base + adapter, cast to its dtype.

    Rounding may send a few elements to the neighbouring value; everything else must be equal.

    Args:
        reference: A PEFT model around the base.
        merged: The merged model.
        where: Its name, for errors.

    Returns:
        How many tensors were compared, and how many of them hold an adapter.

    Raises:
        IntegrityError: Names the first tensor that is missing, superfluous or different.
    """
    found = dict(merged.state_dict())
    compared = adapted = 0
    for name, weight, wanted in _expected(reference):
        other = found.pop(name, None)
        if other is None or other.shape != weight.shape:
            raise IntegrityError(f"tensor {show(name)} is missing or misshapen", where=where)
        if problem := _difference(weight, wanted, other):
            raise IntegrityError(
                f"tensor {show(name)} is not base + adapter: {problem}", where=where
            )
        compared += 1
        adapted += wanted is not None
    if found:
        raise IntegrityError(f"tensor {show(min(found))} is none of the base's", where=where)
    return compared, adapted


def compare_logits(
    reference: Any,
    merged: Any,
    rows: Sequence[TokenizedExample],
    *,
    devices: tuple[Device, Device],
    weights: tuple[int, int],
    compared: Callable[[], None] = lambda: None,
) -> Equality:
    """Compare the logits of a merged model with those of base + adapter, part of a row at a time.

    Args:
        reference: A PEFT model around the base.
        merged: The merged model.
        rows: Rendered examples.
        devices: Where the two models are, and in which dtype.
        weights: What `compare_weights` returned.
        compared: Called after each row.

    Raises:
        OutOfMemory: A row does not fit.
    """
    sums = _Sums()
    with torch.no_grad():
        for row in rows:
            with out_of_memory(f"comparing a row of {row.length} tokens"):
                sums.add(_row_parts(reference, merged, row, devices[0].name))
            compared()
    dtypes = [device.dtype_name for device in devices]
    tolerance = max(TOLERANCES[dtype] for dtype in dtypes)
    scale = sums.logit or 1.0
    return Equality(
        rows=len(rows),
        positions=sums.positions,
        reference_dtype=dtypes[0],
        dtype=dtypes[1],
        device=devices[0].name,
        weights_compared=weights[0],
        weights_merged=weights[1],
        largest_logit=sums.logit,
        difference=sums.difference / scale,
        tolerance=tolerance[0],
        difference_rms=math.sqrt(sums.difference_squares / sums.elements) / scale,
        tolerance_rms=tolerance[1],
        effect_rms=math.sqrt(sums.effect_squares / sums.elements) / scale,
        reference_nll=sums.reference_nll / sums.positions,
        merged_nll=sums.merged_nll / sums.positions,
        nll_difference=sums.row_difference,
        argmax_agreement=sums.agreed / sums.positions,
    )


@dataclass(slots=True)
class _Sums:
    positions: int = 0
    elements: int = 0
    logit: float = 0.0
    difference: float = 0.0
    difference_squares: float = 0.0
    effect_squares: float = 0.0
    reference_nll: float = 0.0
    merged_nll: float = 0.0
    row_difference: float = 0.0
    agreed: int = 0

    def add(self, parts: Iterator[_Part]) -> None:
        """Add the parts of one row."""
        nll, count = [0.0, 0.0], 0
        for part in parts:
            tuned_NV, merged_NV = part.tuned, part.merged
            gap_NV = (merged_NV - tuned_NV).nan_to_num_(nan=math.inf)
            self.logit = max(self.logit, float(tuned_NV.abs().max()))
            self.difference = max(self.difference, float(gap_NV.abs().max()))
            self.difference_squares += float(gap_NV.double().square().sum())
            self.effect_squares += float((part.base - tuned_NV).double().square().sum())
            self.elements += tuned_NV.numel()
            self.agreed += int((tuned_NV.argmax(-1) == merged_NV.argmax(-1)).sum())
            for side, logits_NV in enumerate((tuned_NV, merged_NV)):
                losses = functional.cross_entropy(logits_NV, part.targets, reduction="none")
                nll[side] += float(losses.double().sum())
            count += len(part.targets)
        self.positions += count
        self.reference_nll += nll[0]
        self.merged_nll += nll[1]
        self.row_difference = max(self.row_difference, abs(nll[1] - nll[0]) / count)


@dataclass(frozen=True, slots=True)
class _Part:
    """Logits of some positions under the three models, float32, and the targets there."""

    base: torch.Tensor
    tuned: torch.Tensor
    merged: torch.Tensor
    targets: torch.Tensor


def _row_parts(reference: Any, merged: Any, row: TokenizedExample, device: str) -> Iterator[_Part]:
    ids = torch.tensor(row.input_ids[None], dtype=torch.int64, device=device)
    places = torch.tensor(row.target_positions - 1, device=device)
    vocabulary = int(merged.get_output_embeddings().weight.shape[0])
    for part in places.split(max(1, _CHUNK_ELEMENTS // vocabulary)):
        with reference.disable_adapter():
            base = _logits(reference.get_base_model(), ids, part)
        yield _Part(
            base=base,
            tuned=_logits(reference.get_base_model(), ids, part),
            merged=_logits(merged, ids, part),
            targets=ids[0, part + 1],
        )


def _logits(model: Any, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the logits at some positions of one row, shape (positions, vocabulary), float32."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=places).logits[0]
    else:
        logits = model(input_ids=ids, use_cache=False).logits[0, places]
    return logits.float()


def _expected(reference: Any) -> Iterator[tuple[str, torch.Tensor, torch.Tensor | None]]:
    """Yield each tensor of the base, and what its adapter makes of it, in float32."""
    base = reference.get_base_model()
    layers: Mapping[str, Any] = {
        f"{name}.base_layer.weight": module
        for name, module in base.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    for name, weight in base.state_dict().items():
        if ".lora_" not in name:
            layer = layers.get(name)
            wanted = None if layer is None else _adapted(layer, weight.float())
            yield name.replace(".base_layer.", "."), weight, wanted


def _adapted(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """Return a weight with its adapter, as PEFT merges the two."""
    variant = layer.lora_variant.get("default")
    if variant is None:
        return weight + layer.get_delta_weight("default").float()
    adapted: torch.Tensor = variant.merge_safe(layer, "default", weight)
    return adapted


def _difference(weight: torch.Tensor, exact: torch.Tensor | None, other: torch.Tensor) -> str:
    """Say how a tensor differs from `exact`, or from the base's; empty where it does not."""
    if exact is None:
        same = torch.equal(weight.to(other.dtype), other)
        return "" if same else "it has no adapter, and yet it differs from the base"
    wanted = exact.to(other.dtype)
    gap = (other.float() - wanted.float()).abs()
    largest = float(gap.nan_to_num(nan=math.inf).max())
    if other.dtype == torch.float32:
        scale = float(weight.abs().max()) + float((exact - weight).abs().max())
        allowed = 8 * torch.finfo(torch.float32).eps * scale
        return "" if largest <= allowed else f"off by {largest:.3g}, {allowed:.3g} is rounding"
    ulp = torch.finfo(other.dtype).eps * wanted.float().abs() + torch.finfo(other.dtype).tiny
    if not bool((gap <= ulp).all()):  # NaN is no rounding
        return f"off by {largest:.3g}, more than rounding to {other.dtype}"
    flipped, most = int((gap > 0).sum()), max(2, math.ceil(_FLIPPED * gap.numel()))
    return "" if flipped <= most else f"{flipped} of {gap.numel()} elements are rounded otherwise"
