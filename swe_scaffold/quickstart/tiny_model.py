"""The embedded model: a byte-level BPE tokenizer and tiny-qwen2, made from Python source.

Cached by the hash of its sources and recipe; the folder is an ordinary model folder (`model_name`),
with a manifest that names the packages it has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swe_scaffold.engine.tiny import (
    TinyRecipe,
    cut_windows,
    new_tiny_model,
    save_tiny_model,
    train_tiny_model,
)
from swe_scaffold.errors import IntegrityError
from swe_scaffold.files import atomic_folder, write_json, write_text
from swe_scaffold.manifest import (
    file_entries,
    fingerprint,
    provenance,
    read_manifest,
    verify_files,
    write_manifest,
)
from swe_scaffold.rendering import CHATML_TEMPLATE
from swe_scaffold.terminal import Reporter

__all__ = ["Corpus", "TinyRecipe", "tiny_model", "train_tokenizer", "write_tokenizer"]

MANIFEST = "manifest.json"
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, START, END)
NOT_SPECIAL = ("<tool_call>", "</tool_call>")
# How text is cut before merges, as Qwen2.5 does: contractions, words, digits, marks, space.
PRE_TOKENS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """What the model is made from: code, tasks with their diffs, and the packages both are from."""

    code: tuple[str, ...]
    tasks: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def documents(self) -> tuple[str, ...]:
        """All texts, code first."""
        return self.code + self.tasks

    @property
    def sha256(self) -> str:
        """Hash of every document, in order."""
        digest = hashlib.sha256(len(self.code).to_bytes(8, "big"))
        for document in self.documents:
            data = document.encode("utf-8")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()


def tiny_model(
    parent: Path, corpus: Corpus, reporter: Reporter, *, recipe: TinyRecipe | None = None
) -> Path:
    """Return the model folder below `parent` for this corpus and recipe, made if absent."""
    recipe = recipe or TinyRecipe()
    key = fingerprint({"corpus": corpus.sha256, "recipe": recipe.as_dict(), "form": 1})
    folder = parent / f"tiny-qwen2-{key[:12]}"
    if _is_complete(folder):
        reporter.say(f"tiny model: {folder} (made earlier)")
        return folder
    with atomic_folder(folder) as temporary:
        tokenizer = train_tokenizer(corpus.documents, recipe.vocab_size)
        write_tokenizer(tokenizer, temporary)
        loss = _train(tokenizer, corpus, recipe, temporary, reporter)
        names = sorted(path.name for path in temporary.iterdir())
        content = {
            "kind": "tiny-model",
            **provenance(),
            "recipe": recipe.as_dict(),
            "corpus": {
                "sha256": corpus.sha256,
                "code": len(corpus.code),
                "tasks": len(corpus.tasks),
                "packages": list(corpus.packages),
            },
            "loss": loss,
            "files": file_entries(temporary, names),
        }
        write_manifest(temporary / MANIFEST, content)
    return folder


def _is_complete(folder: Path) -> bool:
    try:
        verify_files(folder, read_manifest(folder / MANIFEST)["files"])
    except (IntegrityError, KeyError):
        return False
    return True


def _train(
    tokenizer: Any, corpus: Corpus, recipe: TinyRecipe, folder: Path, reporter: Reporter
) -> float:
    end_id, pad_id = tokenizer.token_to_id(END), tokenizer.token_to_id(END_OF_TEXT)
    encoded = tokenizer.encode_batch(list(corpus.documents), add_special_tokens=False)
    # A task ends as an answer does, so that the model knows the end token before it is tuned.
    ends = [pad_id] * len(corpus.code) + [end_id] * len(corpus.tasks)
    documents = [[*item.ids, end] for item, end in zip(encoded, ends, strict=True)]
    windows = cut_windows(documents, recipe.window, seed=recipe.seed)
    model = new_tiny_model(recipe, end_id=end_id, pad_id=pad_id)
    losses: list[float] = []
    with reporter.progress("training tiny-qwen2", recipe.steps, unit="steps") as track:

        def after_step(metrics: Any) -> None:
            losses.append(metrics.loss)
            track.advance(1, f"loss {metrics.loss:.3f}")

        train_tiny_model(model, windows, recipe, pad_id=pad_id, after_step=after_step)
    save_tiny_model(model, folder)
    return sum(losses[-20:]) / len(losses[-20:])


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> Any:
    """Return a byte-level BPE tokenizer of `vocab_size` tokens, Qwen's chat tokens among them."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_TOKENS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL) - len(NOT_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in NOT_SPECIAL])
    return tokenizer


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer as Qwen's folders have it: tokenizer.json, its config, the template."""
    write_text(folder / "tokenizer.json", tokenizer.to_str())
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    write_json(folder / "tokenizer_config.json", config)
    write_text(folder / "chat_template.jinja", CHATML_TEMPLATE)
