"""What `bench_evaluate` measures with: real rows, a model of random weights, and the rows' tokens.

Rows are those of `swe-scaffold build` that fit a length, taken evenly over the file. Everyone gets
the same token ids: those that `swe-scaffold evaluate` renders.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SEED = 7
# Hidden size, layers, heads, heads of keys and values, inner size; the vocabulary is the
# tokenizer's, where the shape names no size to make one of.
SHAPES: dict[str, dict[str, int]] = {
    "large-vocabulary": {"hidden": 256, "layers": 4, "heads": 4, "kv_heads": 2, "inner": 1024},
    "small-vocabulary": {
        "hidden": 320,
        "layers": 8,
        "heads": 5,
        "kv_heads": 1,
        "inner": 1408,
        "vocabulary": 8192,
    },
}
QWEN_VOCABULARY = 151_936


def build_rows(source: Path, work: Path) -> Path:
    """Return all rows that `build` makes of a file of tasks, both sides of the split."""
    folder = work / "built"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    code = "import sys; from swe_scaffold.cli import main; sys.exit(main(sys.argv[1:]))"
    options = ["--output", folder / "dev.jsonl", "--emit-test", "--limit", "0", "--offline", "-q"]
    subprocess.run(
        [sys.executable, "-c", code, "build", "--dataset", source, *options],
        check=True,
        env={"PYTHONPATH": str(ROOT), "SWE_SCAFFOLD_CACHE": str(folder / "cache")},
    )
    path = work / "built.jsonl"
    parts = (folder / "dev.jsonl", folder / "dev.test.jsonl")
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    shutil.rmtree(folder)
    return path


def make_model(shape: str, folder: Path, *, tokenizer: Path | None, rows: Path) -> None:
    """Write a Qwen2 with weights drawn from a seed, float32, its tokenizer beside it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = SHAPES[shape]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if "vocabulary" in sizes:
        _make_tokenizer(rows, folder, sizes["vocabulary"])
    else:
        if tokenizer is None:
            raise SystemExit("this shape needs --tokenizer, a folder with Qwen2.5's")
        for path in tokenizer.iterdir():
            shutil.copyfile(path, folder / path.name)
    added = json.loads((folder / "tokenizer.json").read_bytes())["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=sizes.get("vocabulary", QWEN_VOCABULARY),
        hidden_size=sizes["hidden"],
        intermediate_size=sizes["inner"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv_heads"],
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
        dtype="float32",
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


def _make_tokenizer(rows: Path, folder: Path, size: int) -> None:
    from swe_scaffold.quickstart.tiny_model import train_tokenizer, write_tokenizer

    with rows.open("rb") as file:
        texts = [text for line in file for text in _texts(json.loads(line))]
    write_tokenizer(train_tokenizer(texts, size), folder)


def _texts(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["prompt"], row["response"]


def choose_rows(
    built: Path, model: Path, *, rows: int, length: int, work: Path
) -> tuple[Path, Path, dict[str, Any]]:
    """Write the chosen rows and their tokens; return both files and what is said of them."""
    from swe_scaffold.rendering import Renderer
    from swe_scaffold.sources.examples import read_examples
    from swe_scaffold.types import TokenizedExample

    examples = read_examples(built).examples
    made = Renderer.load(model).render_many(examples, max_length=4096, min_prompt_tokens=128)
    lines = built.read_bytes().splitlines(keepends=True)
    fitting = [
        (line, row)
        for line, row in zip(lines, made, strict=True)
        if isinstance(row, TokenizedExample) and len(row.input_ids) <= length
    ]
    places = np.linspace(0, len(fitting) - 1, min(rows, len(fitting))).round().astype(int)
    chosen = [fitting[place] for place in places]
    data, tokens = work / "rows.jsonl", work / "tokens.jsonl"
    data.write_bytes(b"".join(line for line, _ in chosen))
    with tokens.open("w", encoding="ascii") as file:
        for _, row in chosen:
            file.write(json.dumps(_token_row(row)) + "\n")
    lengths = [len(row.input_ids) for _, row in chosen]
    targets = [row.targets for _, row in chosen]
    return data, tokens, {"tokens": _quantiles(lengths), "targets": _quantiles(targets)}


def _token_row(row: Any) -> dict[str, Any]:
    """A row as a context and its continuation; what stands after the last target bears on none."""
    places = row.loss_mask.nonzero()[0].tolist()
    first, last = places[0], places[-1]
    if places != list(range(first, last + 1)):
        raise SystemExit(f"{row.instance_id}: its targets are not one continuation")
    ids = row.input_ids.tolist()
    return {"key": row.instance_id, "context": ids[:first], "continuation": ids[first : last + 1]}


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    found = {f"p{at}": int(np.percentile(values, at)) for at in (0, 10, 50, 90, 100)}
    return {**found, "sum": sum(values)}
