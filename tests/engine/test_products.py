"""Float32 products by the faster library: float32's own numbers, and settings as they were."""

from __future__ import annotations

import pytest
import torch

from swe_scaffold.engine import products
from swe_scaffold.engine.products import fast_float32, may_use_bfloat16

SETTING = torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def ask_anew() -> None:
    products._onednn_is_exact.cache_clear()


@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [(1, 64, 64), (7, 16, 512), (300, 512, 16), (512, 64, 2048), (1024, 2752, 512)],
)
def test_products_are_float32s(rows: int, inner: int, columns: int) -> None:
    """No further off than torch's own are, for numbers that bfloat16 cannot hold."""
    generator = torch.Generator().manual_seed(rows)
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(inner, columns, generator=generator)
    wanted = left.double() @ right.double()
    with fast_float32():
        found = left @ right
    own, peer = (float((one - wanted).norm() / wanted.norm()) for one in (found, left @ right))
    assert own <= 2 * peer + 1e-7


def test_the_setting_is_put_back() -> None:
    before = SETTING.fp32_precision
    with pytest.raises(ValueError, match="in the middle"), fast_float32():
        raise ValueError("in the middle")
    with may_use_bfloat16():
        assert SETTING.fp32_precision == "bf16"
    assert SETTING.fp32_precision == before


@pytest.mark.parametrize("feature", ["amx_tile", "avx10_2"])
def test_a_processor_that_would_round_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, feature: str
) -> None:
    features = {**torch.cpu.get_capabilities(), "avx512_f": True, feature: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    before = SETTING.fp32_precision
    with fast_float32():
        assert SETTING.fp32_precision == before


def test_a_product_that_is_rounded_all_the_same_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the features say: the factors of one product are rounded, and it is looked at."""
    features = {**torch.cpu.get_capabilities(), "avx512_f": True}
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: features | {"amx_tile": False, "avx10_2": False}
    )
    real = torch.Tensor.__matmul__

    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype != torch.float32:
            return real(left, right)
        return real(left.bfloat16().float(), right.bfloat16().float())

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not products._onednn_is_exact()


def test_what_was_bfloat16_comes_out_the_same() -> None:
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(2, 128, 64, generator=generator).bfloat16() for _ in range(2))
    exact = left.double() @ right.double().transpose(1, 2)
    with may_use_bfloat16():
        found = torch.bmm(left.float(), right.float().transpose(1, 2))
    torch.testing.assert_close(found, exact.float(), rtol=1e-6, atol=1e-5)
