"""Which library multiplies float32 matrices on a CPU: the faster of two exact ones.

torch takes MKL, whose float32 products reach half of what a processor of AMD's with AVX-512 can.
Where a product may be computed from bfloat16, torch takes oneDNN; and oneDNN, on a processor
without AMX, has nothing for that but its float32 products, which are exact and reach all of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache

import torch

_SIZE = 256
# 2^-12: lost where a number near one is rounded to bfloat16.
_FINE = 1 / 4096


@contextlib.contextmanager
def fast_float32() -> Iterator[None]:
    """Multiply float32 matrices by oneDNN inside, where that is exact; then as before."""
    with may_use_bfloat16() if _onednn_is_exact() else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def may_use_bfloat16() -> Iterator[None]:
    """Let float32 products be computed from their factors in bfloat16, where a CPU is fast at it.

    For factors that were bfloat16 before that changes nothing.
    """
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


@cache
def _onednn_is_exact() -> bool:
    """Whether products that may be computed from bfloat16 are not, and are worth asking for."""
    features = torch.cpu.get_capabilities()
    if not features.get("avx512_f") or any(features.get(key) for key in ("amx_tile", "avx10_2")):
        return False
    left = 1 + _FINE * torch.arange(_SIZE * _SIZE).remainder_(7).view(_SIZE, _SIZE)
    with may_use_bfloat16():
        found = left @ left
    wanted = left.double() @ left.double()
    return bool(((found - wanted).abs() <= 1e-6 * wanted).all())
