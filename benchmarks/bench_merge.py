"""How far a right merge moves the logits, by dtype and depth: where export's tolerances come from.

Random models of Qwen2's shape with random adapters are merged and compared with base + adapter, as
`export` does it; wrong merges are made too, and each must be told by its weights. Prints a table in
Markdown; nothing here depends on how busy the machine is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from swe_scaffold.config import LoRAConfig  # noqa: E402
from swe_scaffold.engine import merging  # noqa: E402
from swe_scaffold.engine.adapter import attach, load_adapter, save_adapter  # noqa: E402
from swe_scaffold.engine.devices import DTYPES, Device  # noqa: E402
from swe_scaffold.engine.equality import (  # noqa: E402
    TOLERANCES,
    Equality,
    compare_logits,
    compare_weights,
)
from swe_scaffold.engine.model import load_base, quiet_library  # noqa: E402
from swe_scaffold.errors import IntegrityError  # noqa: E402
from swe_scaffold.types import SpeedrunLabel, TokenizedExample  # noqa: E402

VOCABULARY, ROWS, TOKENS, PROMPT = 400, 8, 60, 10
SHAPES = ((16, 2), (64, 4), (64, 12), (64, 36))
GAINS, ADAPTERS = (1.0, 3.0), (0.003, 0.3)
KINDS: dict[str, dict[str, bool]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "dora-rslora": {"use_dora": True, "use_rslora": True},
}
WRONG_UP_TO = 4


@dataclass(frozen=True)
class Case:
    """A base and an adapter on disk, and the dtype to merge into."""

    base: Path
    adapter: Path
    stored: str
    dtype: str
    layers: int
    kind: str


def rows() -> list[TokenizedExample]:
    generator = torch.Generator().manual_seed(0)
    mask = np.arange(TOKENS) >= PROMPT
    return [
        TokenizedExample(
            f"row-{number}",
            torch.randint(0, VOCABULARY, (TOKENS,), generator=generator).int().numpy(),
            mask,
            "repo",
            "repo",
            SpeedrunLabel.SUCCESS,
            TOKENS,
        )
        for number in range(ROWS)
    ]


def make_base(folder: Path, hidden: int, layers: int, gain: float, stored: str) -> Path:
    """Write a random model; `gain` widens its weights and with them its logits."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(hidden + layers)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad(), quiet_library():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(gain)
        model.to(DTYPES[stored]).save_pretrained(folder)
    return folder


def make_adapter(folder: Path, base: Path, deviation: float, kind: str) -> Path:
    lora = LoRAConfig(r=4, alpha=8, dropout=0.0, target_modules="all-linear", **KINDS[kind])
    model = attach(load_base(str(base), Device("cpu", torch.float32)).module, lora, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, deviation)
            if ".lora_magnitude_vector." in name:
                parameter.mul_(1 + deviation * torch.randn(parameter.shape))
    folder.mkdir()
    save_adapter(model, folder, base_name="base")
    return folder


def cases(folder: Path, kinds: list[str], quick: bool) -> Iterator[Case]:
    shapes = SHAPES[:2] if quick else SHAPES
    for number, (shape, gain, stored) in enumerate(itertools.product(shapes, GAINS, DTYPES)):
        base = make_base(folder / f"base-{number}", *shape, gain, stored)
        for deviation, kind in itertools.product(ADAPTERS, kinds):
            adapter = folder / f"adapter-{number}-{deviation}-{kind}"
            make_adapter(adapter, base, deviation, kind)
            for dtype in DTYPES:
                yield Case(base, adapter, stored, dtype, shape[1], kind)


def merge(case: Case, folder: Path, *, factor: float = 1.0) -> Path:
    """Merge; a factor other than one makes it wrong."""
    plan = merging.plan_merge(
        str(case.base), case.adapter, dtype=case.dtype, max_shard_bytes=1 << 40, offline=True
    )
    right = merging._scale
    merging._scale = lambda adapter: factor * right(adapter)
    try:
        merging.write_merged(plan, folder)
    finally:
        merging._scale = right
    (folder / "config.json").write_bytes(merging.merged_config(case.base, case.dtype))
    return folder


def compare(case: Case, folder: Path, sample: list[TokenizedExample]) -> tuple[bool, Equality]:
    """Return whether the weights pass, and the comparison of the logits."""
    one = case.dtype if case.stored == case.dtype else "float32"
    devices = (Device("cpu", DTYPES[one]), Device("cpu", DTYPES[case.dtype]))
    reference = load_adapter(load_base(str(case.base), devices[0]).module, case.adapter)
    merged = load_base(str(folder), devices[1]).module
    try:
        weights, passed = compare_weights(reference, merged, where="merged"), True
    except IntegrityError:
        weights, passed = (0, 0), False
    return passed, compare_logits(reference, merged, sample, devices=devices, weights=weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small shapes only")
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all of them")
    parser.add_argument("--json", action="store_true", help="print every case as JSON lines")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sample = rows()
    right: dict[tuple[str, str, int], list[Equality]] = {}
    kinds = arguments.kind or list(KINDS)
    told = {"weights": 0, "logits": 0, "wrong": 0, "refused": 0, "right": 0}
    with tempfile.TemporaryDirectory() as place:
        for number, case in enumerate(cases(Path(place), kinds, arguments.quick)):
            passed, result = compare(case, merge(case, Path(place) / f"right-{number}"), sample)
            right.setdefault((case.kind, case.dtype, case.layers), []).append(result)
            told["right"] += 1
            told["refused"] += not (passed and result.holds)
            if arguments.json:
                print(
                    json.dumps(
                        [
                            case.kind,
                            case.stored,
                            case.dtype,
                            case.layers,
                            passed,
                            result.difference,
                            result.difference_rms,
                            result.effect_rms,
                        ]
                    ),
                    flush=True,
                )
            for factor in (0.0, 0.9, 2.0) if case.layers <= WRONG_UP_TO else ():
                wrong = merge(case, Path(place) / f"wrong-{number}-{factor}", factor=factor)
                passed, result = compare(case, wrong, sample)
                told["wrong"] += 1
                told["weights"] += not passed
                told["logits"] += not result.holds
    print("| kind | dtype | layers | merges | largest difference | root mean square | allowed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (kind, dtype, layers), results in sorted(right.items()):
        largest = max(result.difference for result in results)
        rms = max(result.difference_rms for result in results)
        allowed = "{:.0e}, {:.0e}".format(*TOLERANCES[dtype])
        found = f"{len(results)} | {largest:.1e} | {rms:.1e} | {allowed}"
        print(f"| {kind} | {dtype} | {layers} | {found} |")
    print(f"\nright merges: {told['right']}, refused: {told['refused']}")
    print(
        f"wrong merges (none, 0.9 and 2 times the adapter): {told['wrong']}, told by the weights "
        f"{told['weights']}, by the logits alone {told['logits']}"
    )


if __name__ == "__main__":
    main()
