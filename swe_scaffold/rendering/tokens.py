"""A model folder's tokenizer, read as data: plain text encoder, control tokens, chat template.

The encoder made here knows no added tokens, so text can never become one. Nothing of the folder is
run; the transformers tokenizer is only loaded for the proof.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from swe_scaffold.errors import DataError, IntegrityError, MissingExtra
from swe_scaffold.hub import resolve_model_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
# Read beside the tokenizer, never copied with it.
MODEL_FILES = ("config.json", "generation_config.json")


@dataclass(frozen=True)
class ChatTokenizer:
    """What rendering needs of a tokenizer.

    `plain` encodes text without added tokens; `added` maps each added token to its id; `stop_ids`
    are the tokens that end generation as far as the folder says; `official` is the transformers
    tokenizer, given by the caller or else loaded from `folder` when the proof wants it.
    """

    plain: Tokenizer
    added: Mapping[str, int]
    special: frozenset[str]
    template: str
    pad: str
    sha256: str
    vocab_size: int
    stop_ids: frozenset[int]
    folder: Path | None = None
    given: Any = field(default=None, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The folder's tokenizer files, to be copied byte for byte beside an adapter."""
        if self.folder is None:
            return ()
        return tuple(self.folder / n for n in TOKENIZER_FILES if (self.folder / n).is_file())

    @cached_property
    def official(self) -> Any:
        """The transformers tokenizer that everybody else would use, without foreign code."""
        if self.given is not None:
            return self.given
        try:
            from transformers import AutoTokenizer, PreTrainedTokenizerFast
        except ImportError as error:
            raise MissingExtra("transformers", "train") from error
        names = ("config.json", "tokenizer_config.json")
        own_code = any("auto_map" in _json_object(self.folder, name) for name in names)
        # A folder with code of its own would make AutoTokenizer ask whether to run it.
        kind: Any = PreTrainedTokenizerFast if own_code else AutoTokenizer
        return kind.from_pretrained(str(self.folder), local_files_only=True)


def tokenizer_folder(name: str, *, offline: bool = False) -> Path:
    """Return the local folder that holds the tokenizer of a model folder or hub id."""
    return resolve_model_folder(name, patterns=(*TOKENIZER_FILES, *MODEL_FILES), offline=offline)


def read_tokenizer(folder: Path) -> ChatTokenizer:
    """Read the tokenizer of a local folder.

    Raises:
        DataError: `tokenizer.json` is missing or broken.
        IntegrityError: The folder has no chat template.
    """
    if not (folder / "tokenizer.json").is_file():
        raise DataError(
            "no tokenizer.json here",
            where=str(folder),
            hint="save the tokenizer with transformers' save_pretrained, which writes one",
        )
    config = _json_object(folder, "tokenizer_config.json")
    generation = _json_object(folder, "generation_config.json")
    return _build(
        _json_object(folder, "tokenizer.json", parse_constant=_refuse),
        where=str(folder),
        template=_template(folder, config),
        pad=_content(config.get("pad_token")),
        eos=_content(config.get("eos_token")),
        stop=generation.get("eos_token_id"),
        folder=folder,
    )


def wrap_tokenizer(official: Any) -> ChatTokenizer:
    """Make a ChatTokenizer of a loaded transformers fast tokenizer."""
    backend = getattr(official, "backend_tokenizer", None)
    if backend is None:
        raise DataError("this tokenizer has no fast backend", hint="load it as a fast tokenizer")
    return _build(
        json.loads(backend.to_str()),
        where=type(official).__name__,
        template=official.chat_template,
        pad=official.pad_token or "",
        eos=official.eos_token or "",
        given=official,
    )


def _build(
    data: dict[str, Any],
    *,
    where: str,
    template: object,
    pad: str,
    eos: str,
    stop: object = None,
    **rest: Any,
) -> ChatTokenizer:
    if not isinstance(template, str) or not template.strip():
        raise IntegrityError(
            "this tokenizer has no chat template, so nobody knows how its model reads a chat",
            where=where,
            hint="use a chat model (names often end in -Instruct) or add a chat_template.jinja",
        )
    plain = _plain_encoder(data, where)
    try:
        tokens = data.get("added_tokens") or []
        added = {str(token["content"]): int(token["id"]) for token in tokens}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("malformed added_tokens", where=f"{where}/tokenizer.json") from error
    stops = stop if isinstance(stop, list) else [added.get(eos) if stop is None else stop]
    tokenizer = ChatTokenizer(
        plain=plain,
        added=added,
        special=frozenset(str(t["content"]) for t in tokens if t.get("special")),
        template=template,
        pad=pad,
        sha256=_digest(data),
        vocab_size=1 + max((_last_id(data), *added.values())),
        stop_ids=frozenset(number for number in stops if isinstance(number, int)),
        **rest,
    )
    refuse_leaks(tokenizer, tokenizer.special, where)
    return tokenizer


def refuse_leaks(tokenizer: ChatTokenizer, tokens: Iterable[str], where: str = "") -> None:
    """Refuse a tokenizer whose plain text encoder can write one of these control tokens."""
    for token in tokens:
        number = tokenizer.added.get(token)
        ids = tokenizer.plain.encode(token, add_special_tokens=False).ids
        if number is not None and number in ids:
            raise IntegrityError(
                f"text that spells {token} cannot be told from the control token", where=where
            )


def _plain_encoder(data: dict[str, Any], where: str) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "train") from error
    bare: dict[str, Any] = {
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    try:
        return Tokenizer.from_buffer(orjson.dumps({**data, **bare}))
    except Exception as error:  # the library raises bare Exception
        where = f"{where}/tokenizer.json"
        raise DataError(f"not a usable tokenizer: {error}", where=where) from error


def _digest(data: dict[str, Any]) -> str:
    """Hash what decides ids: not padding or truncation, not how the JSON was spelt."""
    model = {key: value for key, value in data["model"].items() if value}
    merges = model.get("merges", [])
    model["merges"] = [m.split(" ", 1) if isinstance(m, str) else m for m in merges]
    parts = [data.get("normalizer"), data.get("pre_tokenizer"), data.get("added_tokens"), model]
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _last_id(data: dict[str, Any]) -> int:
    vocab = data["model"]["vocab"]
    return max(vocab.values(), default=-1) if isinstance(vocab, dict) else len(vocab) - 1


def _template(folder: Path, config: Mapping[str, Any]) -> object:
    """Return the folder's chat template: its own file first, as transformers does."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_bytes().decode("utf-8", "replace")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template}
        return named.get("default")
    return template


def _content(token: object) -> str:
    """Return a token given as text or as an object with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _refuse(constant: str) -> None:
    # Python reads NaN and infinities, and other libraries write null for them.
    raise ValueError(f"{constant} is not JSON")


def _json_object(folder: Path | None, name: str, **options: Any) -> dict[str, Any]:
    """Read a JSON object of the folder; a missing file is an empty one."""
    path = (folder or Path()) / name
    if folder is None or not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes(), **options)
    except (ValueError, RecursionError) as error:
        raise DataError("not JSON", where=str(path)) from error
    if not isinstance(value, dict):
        raise DataError("not a JSON object", where=str(path))
    return value
