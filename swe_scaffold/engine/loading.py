"""From a model's reference to the module that computes: its base, and its adapter on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from swe_scaffold.engine.adapter import load_adapter
from swe_scaffold.engine.devices import choose_device
from swe_scaffold.engine.model import BaseFiles, BaseModel, load_base
from swe_scaffold.errors import IntegrityError
from swe_scaffold.models import ModelReference


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that computes: `module` is the base's own, or a PEFT model around it.

    `reference.max_length` is within what the base can read.
    """

    reference: ModelReference
    base: BaseModel
    module: Any


def load_model(model: ModelReference, *, dtype: str = "auto", offline: bool = False) -> LoadedModel:
    """Load a base and, where there is one, its adapter; frozen, in evaluation mode.

    Raises:
        IntegrityError: Damaged weights, or a base that the adapter was not trained on.
        EnvironmentFailure: A hub id that cannot be fetched.
        OutOfMemory: The weights do not fit.
    """
    base = load_base(
        model.base, choose_device(dtype), offline=offline, quantization=model.quantization
    )
    return _with_adapter(model, base)


class LastBase:
    """Loads models one after the other, each in place of the last; a base they share stays.

    Args:
        dtype: See `devices.choose_device`.
        offline: Never ask the network.
        number: Which of several processes this is; each takes a device of its own where it can.
    """

    def __init__(self, *, dtype: str = "auto", offline: bool = False, number: int = 0) -> None:
        self._device, self._offline = choose_device(dtype, number), offline
        self._last: LoadedModel | None = None

    def take(self, model: ModelReference, files: BaseFiles | None = None) -> LoadedModel:
        """Return a model, loaded as by `load_model`; what was taken before is no longer usable.

        Args:
            model: The model.
            files: The files of its base, where they were found before.
        """
        last, self._last = self._last, None
        if last is not None and _base_of(last.reference) == _base_of(model):
            if last.reference.adapter == model.adapter:
                self._last = last
                return last
            if last.reference.adapter is not None:
                last.module.unload()
            base = last.base
        else:
            # Before the next is loaded: two need not fit.
            last = None
            base = load_base(
                model.base,
                self._device,
                offline=self._offline,
                files=files,
                quantization=model.quantization,
            )
        self._last = _with_adapter(model, base)
        return self._last


def _base_of(model: ModelReference) -> tuple[str, str]:
    return model.base, model.quantization


def _with_adapter(model: ModelReference, base: BaseModel) -> LoadedModel:
    if model.base_sha256 not in (None, base.sha256):
        what = "this is not the base the adapter was trained on"
        if model.adapter is None:
            what = "these are not the weights on record"
        raise IntegrityError(
            f"{what} (sha256 {base.sha256[:12]}, not {str(model.base_sha256)[:12]})",
            where=model.base,
        )
    limit = base.context_length
    within = replace(model, max_length=min(model.max_length, limit)) if limit else model
    module = base.module if model.adapter is None else load_adapter(base.module, model.adapter)
    return LoadedModel(within, base, module)
