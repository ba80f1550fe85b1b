"""A frozen base divided among processes (FSDP2): each holds a part of every decoder layer.

What is trained stays whole everywhere, and so do embeddings, the head and norms outside of the
layers: a step is the same as with whole copies. Each pass gathers a layer's parts, uses and drops
them, which needs every process: who has no rows left takes part with nothing.
"""

from __future__ import annotations

from typing import Any

import torch

from swe_scaffold.engine.devices import Device
from swe_scaffold.engine.processes import Processes
from swe_scaffold.errors import ConfigError


class Lockstep:
    """Lets all processes do the same number of passes through a body, whatever each has to do."""

    def __init__(self, body: Any, processes: Processes) -> None:
        self._body, self._processes, self._idle = body, processes, False
        # Before a layer is gathered: all have to do the same things in the same order.
        body.register_forward_pre_hook(self._announce, prepend=True)

    def keep_up(self, *, backward: bool) -> None:
        """Pass nothing through the body while any process has passes left; to be called by all."""
        while self._processes.most(0):
            self._idle = True
            try:
                self._pass_nothing(backward)
            finally:
                self._idle = False

    def _announce(self, *_: Any) -> None:
        if not self._idle:
            self._processes.most(1)

    def _pass_nothing(self, backward: bool) -> None:
        training = self._body.training
        self._body.eval()
        ids = torch.zeros(1, 2, dtype=torch.int64, device=next(self._body.buffers()).device)
        with torch.set_grad_enabled(backward):
            hidden = self._body(input_ids=ids, use_cache=False).last_hidden_state
        if backward:
            (hidden * 0.0).sum().backward()
        self._body.train(training)


def shard(model: Any, device: Device, processes: Processes) -> Lockstep:
    """Divide the frozen weights of the decoder layers among processes, and bring all to the device.

    Args:
        model: A causal language model, or a PEFT model around one.
        device: Where this process computes.
        processes: All of them.

    Raises:
        ConfigError: There is nothing frozen to divide, or the base is quantised.
    """
    from torch.distributed.fsdp import fully_shard

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    body = causal.base_model
    layers = _layers(body)
    frozen = {
        weight for layer in layers for weight in layer.parameters() if not weight.requires_grad
    }
    if not frozen or not all(weight.is_floating_point() for weight in frozen):
        raise ConfigError(
            "only a frozen base that is not quantised can be divided among processes",
            where="training.finetuning" if not frozen else "training.quantization",
            hint="launch without FSDP: each process then holds all weights",
        )
    whole = set(body.parameters()) - frozen
    for layer in layers:
        fully_shard(layer, ignored_params=whole)
    fully_shard(body, ignored_params=whole)
    model.to(device.name)
    return Lockstep(body, processes)


def _layers(body: Any) -> list[Any]:
    """Return the decoder layers: the modules of the kinds that transformers does not split.

    Raises:
        ConfigError: The model names none.
    """
    names = set(getattr(body, "_no_split_modules", None) or ())
    layers = [module for module in body.modules() if type(module).__name__ in names]
    if not layers:
        raise ConfigError(
            "this model does not say which of its modules are layers",
            where="training.model_name",
            hint="launch without FSDP: each process then holds all weights",
        )
    return layers
