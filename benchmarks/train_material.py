"""What `bench_train` measures with: a model of random weights, rows, and the ids everyone trains.

The ids are those that `swe-scaffold train` renders from the rows, in the order in which it trains
them; ours gets the rows, everyone else the ids.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import train_files as files
import train_rows as rows_of
from evaluate_material import build_rows

SEED = 42
POOL = 512
TRAINED_VOCABULARY = 8192
TRAJECTORY_BYTES = 4_000_000


@dataclass(frozen=True)
class Shape:
    """A Qwen2 architecture, input and output embeddings tied."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    dtype: str = "float32"

    @property
    def trunk(self) -> int:
        """Weights of the matrices of all layers."""
        width = self.hidden // self.heads * self.kv_heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * width
        return self.layers * (attention + 3 * self.hidden * self.inner)


# The head's share of the work is a tenth in like3b, as in Qwen2.5-3B; it is nearly all in bigvocab.
SHAPES = {
    "tiny": Shape(64, 2, 4, 2, 128, 1024),
    "small": Shape(128, 4, 4, 2, 512, 8448),
    "long": Shape(256, 6, 4, 1, 1376, 4224),
    "like3b": Shape(512, 8, 8, 1, 2752, 8448),
    "bigvocab": Shape(384, 6, 6, 2, 2048, 151_936),
    "qwen3b": Shape(2048, 36, 16, 2, 11008, 151_936, "bfloat16"),
}


@dataclass(frozen=True)
class Material:
    """Where everything lies, and how long the rows are."""

    model: Path
    rows: Path
    tokens: Path
    held_out: Path
    gate_rows: Path
    gate_tokens: Path


@dataclass(frozen=True)
class Wanted:
    """Which rows: how many in an optimizer step, how many steps, of what length.

    The gate takes all of its rows in each of its steps.
    """

    rows_per_step: int
    steps: int
    epochs: int
    least: int
    length: int
    held_out: int
    gate_rows: int
    gate_steps: int


def make(
    work: Path, shape: str, wanted: Wanted, *, source: Path | None, tokenizer: Path | None
) -> Material:
    """Make model and rows; `source` is a file of tasks, a folder of trajectories, or None."""
    model = work / "model"
    texts = rows_of.library_texts()
    told = json.dumps([vars(SHAPES[shape]), SEED, str(tokenizer and tokenizer.resolve())])
    mark = work / "model.made"
    if not mark.is_file() or mark.read_text("utf-8") != told:
        mark.unlink(missing_ok=True)
        # In a process of its own, which takes its hold of a device with it.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool_of_one:
            making = pool_of_one.submit(
                make_model, SHAPES[shape], model, texts=texts, tokenizer=tokenizer
            )
            making.result()
        mark.write_text(told, "utf-8")
    pool = work / "pool.jsonl"
    if source is None:
        _write_synthetic(pool, model, texts, max(POOL, 2 * wanted.rows_per_step * wanted.steps))
    else:
        tasks = source if source.is_file() else gather_trajectories(source, work)
        pool = build_rows(tasks, work)
    return choose(pool, model, work, wanted)


def qwen2(shape: Shape, ends: Mapping[str, int]) -> Any:
    """Return the config of a shape; `ends` has the ids of the tokens that end a text and a turn."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=ends["<|endoftext|>"],
        eos_token_id=ends["<|im_end|>"],
        pad_token_id=ends["<|endoftext|>"],
        dtype=shape.dtype,
    )


def make_model(shape: Shape, folder: Path, *, texts: Sequence[str], tokenizer: Path | None) -> None:
    """Write a Qwen2 with weights drawn from a seed, its tokenizer beside it.

    Shapes with Qwen's vocabulary take its tokenizer, where it is given; else one is made from
    `texts`, whose ids are a part of the vocabulary.
    """
    import torch
    from transformers import Qwen2ForCausalLM

    from swe_scaffold.quickstart.tiny_model import train_tokenizer, write_tokenizer

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if tokenizer is not None and shape.vocabulary >= SHAPES["qwen3b"].vocabulary:
        for path in tokenizer.iterdir():
            shutil.copyfile(path, folder / path.name)
    else:
        size = min(TRAINED_VOCABULARY, shape.vocabulary)
        write_tokenizer(train_tokenizer(texts, size), folder)
    added = json.loads((folder / "tokenizer.json").read_bytes())["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    config = qwen2(shape, ids)
    torch.manual_seed(SEED)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(config).to(getattr(torch, shape.dtype))
    model.save_pretrained(folder)


def _write_synthetic(path: Path, model: Path, texts: Sequence[str], count: int) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def cut(text: str, tokens: int) -> str:
        ids = tokenizer.encode(text, add_special_tokens=False).ids[:tokens]
        return str(tokenizer.decode(ids))

    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = rows_of.synthetic_row(number, texts, cut)
            file.write(json.dumps(row, ensure_ascii=True) + "\n")


def gather_trajectories(folder: Path, work: Path) -> Path:
    """Return a folder with the trajectory files below another, unpacked, huge ones left out."""
    target = work / "trajectories"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(folder.rglob("*.traj*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if len(data) <= TRAJECTORY_BYTES:
            (target / path.name.removesuffix(".gz")).write_bytes(data)
    return target


def choose(pool: Path, model: Path, work: Path, wanted: Wanted) -> Material:
    """Write the rows that are trained, those held out and those of the gate, with their ids."""
    from swe_scaffold.rendering import Renderer
    from swe_scaffold.sources.examples import read_examples
    from swe_scaffold.types import TokenizedExample

    examples = read_examples(pool).examples
    renderer = Renderer.load(model)
    found = renderer.render_many(examples, max_length=1 << 20, min_prompt_tokens=128)
    lines = pool.read_bytes().splitlines(keepends=True)
    fitting: list[tuple[bytes, files.Row]] = []
    for line, row in zip(lines, found, strict=True):
        if isinstance(row, TokenizedExample) and (
            wanted.least <= len(row.input_ids) <= wanted.length
        ):
            fitting.append((line, _row(row)))
    count = wanted.rows_per_step * wanted.steps
    lengths = [len(row.input_ids) for _, row in fitting]
    if count + wanted.held_out > len(lengths):
        raise SystemExit(
            f"{count} rows to train and {wanted.held_out} to hold out are wanted, and "
            f"{len(lengths)} have {wanted.least} to {wanted.length} tokens: see --length, --steps"
        )
    trained, held = rows_of.spread_evenly(lengths, count, held_out=wanted.held_out)
    chosen = [fitting[place] for place in trained]
    places = np.arange(wanted.gate_rows) * len(chosen) // wanted.gate_rows
    by_length = sorted(chosen, key=lambda pair: len(pair[1].input_ids))
    size = wanted.rows_per_step
    rows, tokens = _write_pair(work / "rows", chosen, size=size, epochs=wanted.epochs)
    gate = [by_length[place] for place in places]
    gate_rows, gate_tokens = _write_pair(
        work / "gated", gate, size=len(gate), epochs=wanted.gate_steps
    )
    held_out = work / "held-out.jsonl"
    files.write_rows(held_out, [fitting[place][1] for place in held])
    return Material(model, rows, tokens, held_out, gate_rows, gate_tokens)


def _write_pair(
    path: Path, chosen: Sequence[tuple[bytes, files.Row]], *, size: int, epochs: int
) -> tuple[Path, Path]:
    """Write rows as a file of text, and their ids in the order in which ours trains them."""
    from swe_scaffold.engine.batches import RowOrder

    data, tokens = path.with_suffix(".jsonl"), path.with_suffix(".tokens.jsonl")
    data.write_bytes(b"".join(line for line, _ in chosen))
    order = RowOrder(len(chosen), size, SEED)
    trained = [
        chosen[place][1]
        for step in range(order.steps_per_epoch * epochs)
        for place in order.at(step)
    ]
    files.write_rows(tokens, trained)
    return data, tokens


def _row(row: Any) -> files.Row:
    return files.Row(row.instance_id, list(map(int, row.input_ids)), list(map(int, row.loss_mask)))


def about(rows: Sequence[files.Row], shape: str, size: int, epochs: int) -> dict[str, str]:
    """Return what a page says of rows, model and recipe."""
    notes = {}
    for name, values in (
        ("Tokens of a row", [len(row.input_ids) for row in rows]),
        ("Targets of a row", [row.targets for row in rows]),
    ):
        points = [f"p{at} {int(np.percentile(values, at)):,}" for at in (0, 10, 50, 90, 100)]
        notes[name] = f"{', '.join(points)}, sum {sum(values):,}."
    sizes = ", ".join(f"{key} {value}" for key, value in vars(SHAPES[shape]).items())
    notes["Model"] = f"Qwen2, random weights (seed {SEED}): {sizes}."
    steps = len(rows) // size
    told = f"{epochs} epoch{'s' if epochs > 1 else ''}, {steps} steps of {size} rows each"
    notes["Recipe"] = (
        f"{told}. LoRA r 8, alpha 16 on q, k, v, o, no dropout; AdamW 2e-4, constant; gradients "
        "clipped at 1."
    )
    return notes
