"""Float32 weights that an optimizer changes, and the copies in another dtype that compute.

A step of bfloat16 weights would round most updates away; products in float32 would cost twice the
time. So the model holds copies, each gradient is added to its master's as soon as it is there, and
after a step the copies are written again. Where a model computes in float32 there is one of each;
so it is with DoRA, whose magnitudes and norms of rows lose more in bfloat16 than a peer's would.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


class Masters:
    """The trained parameters of a model by name, float32; `copies` are what it computes with.

    Args:
        model: Its parameters that require gradients are taken over.
        dtype: What the copies are of; float32 makes none.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self._copies: list[tuple[torch.nn.Parameter, torch.nn.Parameter]] = []
        if any("lora_magnitude_vector" in name for name, _ in model.named_parameters()):
            dtype = torch.float32
        for name, own in model.named_parameters():
            if not own.requires_grad:
                continue
            if dtype == torch.float32 and own.dtype == dtype:
                self.parameters[name] = own
                continue
            master = torch.nn.Parameter(own.detach().float())
            own.data = own.data.to(dtype)
            own.register_post_accumulate_grad_hook(_collect_into(master))
            self.parameters[name] = master
            self._copies.append((master, own))

    @torch.no_grad()
    def publish(self) -> None:
        """Write the copies again, after the masters have changed."""
        for master, copy in self._copies:
            copy.copy_(master)

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Let the model hold the masters themselves: to be saved, scored or replaced in place."""
        held = [copy.data for _, copy in self._copies]
        for master, copy in self._copies:
            copy.data = master.data
        try:
            yield
        finally:
            for (_, copy), data in zip(self._copies, held, strict=True):
                copy.data = data
            self.publish()


def _collect_into(master: torch.nn.Parameter) -> Any:
    def collect(copy: torch.Tensor) -> None:
        if copy.grad is None:
            return
        if master.grad is None:
            master.grad = copy.grad.float()
        else:
            master.grad.add_(copy.grad)
        copy.grad = None

    return collect
