"""Templates and tokenizer folders: which are accepted, what is proven of them, and the real one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from swe_scaffold.errors import DataError, IntegrityError
from swe_scaffold.rendering import (
    CHATML_TEMPLATE,
    QWEN_SYSTEM,
    Renderer,
    read_tokenizer,
    target_classes,
    templates,
)
from swe_scaffold.rendering.proof import prove
from swe_scaffold.types import Example, Message, TokenizedExample, ToolCall, Verdict
from tests.chats import (
    PATCH,
    TOOL,
    as_dicts,
    chat,
    chats,
    encoded,
    hostile,
    pair,
    refused,
    rendered,
    some,
)
from tests.tiny import tiny_tokenizer

PLAIN_CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="module")
def renderer(folder: Path) -> Renderer:
    return Renderer.load(folder)


@pytest.fixture(scope="module")
def official(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def qwen(shared_data: Path) -> Renderer:
    return Renderer.load(shared_data / "qwen2.5-tokenizer")


def test_an_unknown_template_never_runs_unless_the_user_says_so(tmp_path: Path) -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(IntegrityError, match="unknown chat template"):
        Renderer.load(tiny_tokenizer(tmp_path, template=endless))
    other = tiny_tokenizer(tmp_path, template=CHATML_TEMPLATE.replace("im_start", "im_begin"))
    with pytest.raises(IntegrityError, match="none of the formats"):
        Renderer.load(other, trust_template=True)
    broken = tiny_tokenizer(tmp_path, template="{{ raise_exception('no') }}")
    with pytest.raises(IntegrityError, match="fails"):
        Renderer.load(broken, trust_template=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "time"),
        ("{{ 'a' * 10**9 }}", "MemoryError"),
        ("{{ 'a' * 9 * 10**7 }}", "MemoryError|reply of more than"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
    ids=["endless", "memory", "reply", "escape"],
)
def test_a_trusted_template_is_held_to_its_time_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, why: str
) -> None:
    if why == "time":
        monkeypatch.setattr(templates, "SECONDS", 1.0)
    with pytest.raises(IntegrityError, match=why):
        Renderer.load(tiny_tokenizer(tmp_path, template=template), trust_template=True)


@pytest.mark.parametrize(
    ("template", "name", "trust"),
    [
        (
            CHATML_TEMPLATE.replace(QWEN_SYSTEM, "You are a helpful assistant."),
            "qwen2.5-base",
            True,
        ),
        (CHATML_TEMPLATE + "{# a comment #}", "qwen2.5", True),
        (PLAIN_CHATML, "chatml", False),
        (PLAIN_CHATML + "\n", "chatml", False),
        (PLAIN_CHATML + "{# a comment #}", "chatml", True),
    ],
)
def test_formats_are_recognised_and_proven(
    tmp_path: Path, template: str, name: str, trust: bool
) -> None:
    renderer = Renderer.load(tiny_tokenizer(tmp_path, template=template), trust_template=trust)
    assert renderer.format.name == name
    example = chat(Message("system", "s"), Message("user", "a"), Message("assistant", "b"))
    proof = renderer.prove([pair("ask\n", "answer"), example])
    assert (proof.rows, proof.identical) == (2, 2)


def test_a_format_without_tools_refuses_them(tmp_path: Path) -> None:
    renderer = Renderer.load(tiny_tokenizer(tmp_path, template=PLAIN_CHATML))
    asked, answered = Message("user", "a"), Message("assistant", "b")
    called = replace(answered, tool_calls=(ToolCall("f", {}),))
    assert refused(renderer, chat(asked, answered, tools=(TOOL,))).reason == "invalid_row"
    assert refused(renderer, chat(asked, called)).reason == "invalid_row"
    assert refused(renderer, chat(asked, Message("tool", "t"), answered)).reason == "invalid_row"


def test_a_tokenizer_without_a_template_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        Renderer.load(tiny_tokenizer(tmp_path, template=None))
    assert "Instruct" in caught.value.hint


def test_the_template_may_stand_in_the_config(tmp_path: Path, renderer: Renderer) -> None:
    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": CHATML_TEMPLATE}]
    for template in (CHATML_TEMPLATE, named):
        folder = tiny_tokenizer(tmp_path, template=None)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = template
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        assert Renderer.load(folder).digest() == renderer.digest()


def rewritten(folder: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    data = json.loads((target / "tokenizer.json").read_text("utf-8"))
    change(data)
    (target / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    return target


def test_saved_padding_and_truncation_change_nothing(
    tmp_path: Path, folder: Path, renderer: Renderer
) -> None:
    def limit(data: dict[str, Any]) -> None:
        data["truncation"] = {
            "direction": "Right",
            "max_length": 8,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]

    limited = Renderer.load(rewritten(folder, tmp_path / "limited", limit))
    example = pair("a longer prompt\n" * 50, PATCH)
    assert limited.digest() == renderer.digest()
    assert limited.render(example) == renderer.render(example)


def test_the_digest_knows_the_vocabulary_and_the_template(
    tmp_path: Path, folder: Path, renderer: Renderer, official: Any
) -> None:
    def permute(data: dict[str, Any]) -> None:
        vocab = data["model"]["vocab"]
        vocab["a"], vocab["b"] = vocab["b"], vocab["a"]

    other = Renderer.load(rewritten(folder, tmp_path / "other", permute))
    assert other.vocab_size == renderer.vocab_size
    assert other.tokenizer_sha256 != renderer.tokenizer_sha256
    plain = Renderer.load(tiny_tokenizer(tmp_path, template=PLAIN_CHATML))
    assert plain.tokenizer_sha256 == renderer.tokenizer_sha256
    assert len({renderer.digest(), other.digest(), plain.digest()}) == 3
    assert Renderer(official).digest() == renderer.digest()
    stranger = replace(renderer.tokenizer, given=other.tokenizer.official)
    with pytest.raises(IntegrityError, match="x-1"):
        Renderer(stranger).prove([pair("a b", "a")])


def test_a_tokenizer_that_spells_its_control_tokens_is_refused(
    tmp_path: Path, folder: Path
) -> None:
    def spell(data: dict[str, Any]) -> None:
        ids = {token["content"]: token["id"] for token in data["added_tokens"]}
        data["model"] = {"type": "WordLevel", "vocab": {"<unk>": 0, **ids}, "unk_token": "<unk>"}
        data["pre_tokenizer"] = {"type": "WhitespaceSplit"}

    with pytest.raises(IntegrityError, match="spells"):
        Renderer.load(rewritten(folder, tmp_path / "spelling", spell))


def test_a_missing_control_token_is_refused(tmp_path: Path, folder: Path) -> None:
    def forget(data: dict[str, Any]) -> None:
        data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] != "<|im_end|>"]

    with pytest.raises(IntegrityError, match="im_end"):
        Renderer.load(rewritten(folder, tmp_path / "forgetful", forget))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": 3}', '{"added_tokens": [1]}'])
def test_a_broken_tokenizer_file_is_named(tmp_path: Path, folder: Path, text: str) -> None:
    target = tmp_path / "broken"
    shutil.copytree(folder, target)
    (target / "tokenizer.json").write_text(text)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        read_tokenizer(target)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_no_json_is_refused(tmp_path: Path, folder: Path, value: float) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: not JSON"):
        Renderer.load(
            rewritten(folder, tmp_path / "nan", lambda data: data["model"].update(dropout=value))
        )


def test_code_in_a_folder_is_not_run_for_the_proof(tmp_path: Path, folder: Path) -> None:
    target = tmp_path / "code"
    shutil.copytree(folder, target)
    mark = tmp_path / "ran"
    (target / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    config = json.loads((target / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    assert Renderer.load(target).prove([pair("a", "b")]).identical == 1
    assert not mark.exists()


@pytest.mark.parametrize("shift", [-1, 1])
def test_the_proof_refuses_a_shifted_mask(renderer: Renderer, shift: int) -> None:
    example = pair("ask", "answer")
    good = encoded(renderer, example)
    bad = replace(good, mask=good.mask[-shift:] + good.mask[:-shift])
    with pytest.raises(IntegrityError, match="x-1: a trained span"):
        prove([(example, bad)], renderer.tokenizer, renderer.format, renderer.controls)


def test_the_proof_wants_every_trained_message_and_only_those(renderer: Renderer) -> None:
    asked, answered = Message("user", "a"), Message("assistant", "b")
    example = chat(asked, answered, asked, answered)
    good = encoded(renderer, example)
    half = encoded(renderer, chat(asked, replace(answered, train=False), asked, answered))
    with pytest.raises(IntegrityError, match="1 trained spans for 2"):
        prove(
            [(example, replace(good, mask=half.mask))],
            renderer.tokenizer,
            renderer.format,
            renderer.controls,
        )


def test_the_proof_wants_the_header_that_generation_writes(renderer: Renderer) -> None:
    example = pair("ask", "answer")
    good = encoded(renderer, example)
    first = good.mask.index(True)
    header = renderer.tokenizer.plain.encode("assistant\n", add_special_tokens=False).ids
    letters = [renderer.tokenizer.plain.token_to_id(letter) for letter in "assistant\u010a"]
    bad = replace(
        good,
        ids=(*good.ids[: first - len(header)], *letters, *good.ids[first:]),
        mask=(False,) * (len(letters) - len(header)) + good.mask,
    )
    with pytest.raises(IntegrityError, match="does not follow its header"):
        prove([(example, bad)], renderer.tokenizer, renderer.format, renderer.controls)


def test_the_proof_refuses_other_text_and_other_ids(renderer: Renderer) -> None:
    example = pair("ask", "answer")
    good, other = encoded(renderer, example), encoded(renderer, pair("asks", "answer"))
    for bad, what in (
        (replace(good, messages=other.messages), "another text"),
        (replace(good, ids=other.ids, mask=other.mask), "do not decode"),
    ):
        with pytest.raises(IntegrityError, match=what):
            prove([(example, bad)], renderer.tokenizer, renderer.format, renderer.controls)


def lite(shared_data: Path, count: int) -> list[Example]:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(shared_data / "swe-bench-lite" / "dev.parquet").to_pylist()
    return [pair(row["problem_statement"], row["patch"]) for row in rows[:count]]


@pytest.mark.slow
def test_real_rows_are_the_real_tokenizers_own(qwen: Renderer, shared_data: Path) -> None:
    assert (qwen.end_id, qwen.pad_id, qwen.vocab_size) == (151645, 151643, 151665)
    rows = lite(shared_data, 23)
    proof = qwen.prove(rows)
    assert (proof.rows, proof.identical, proof.end_is_stop) == (23, 23, True)
    assert qwen.prove(rows, max_length=1024).verdicts == sum(
        isinstance(row, Verdict) for row in qwen.render_many(rows, max_length=1024)
    )
    for row, result in zip(rows, qwen.render_many(rows), strict=True):
        assert isinstance(result, TokenizedExample)
        assert len(target_classes(qwen, row, result)) == result.targets


@settings(some, max_examples=20)
@given(example=chats(hostile))
def test_our_template_is_qwens(qwen: Renderer, example: Example) -> None:
    official = qwen.tokenizer.official
    for generation in (False, True):
        ours, theirs = (
            official.apply_chat_template(
                as_dicts(example),
                tools=list(example.tools) or None,
                tokenize=False,
                add_generation_prompt=generation,
                chat_template=template,
            )
            for template in (CHATML_TEMPLATE, None)
        )
        assert ours == theirs
    assert qwen.prove([example]).rows == 1


@pytest.mark.slow
def test_a_huge_prompt_is_cut_in_one_go(qwen: Renderer, shared_data: Path) -> None:
    text = "\n".join(row.prompt + row.response for row in lite(shared_data, 23)) * 8
    row = rendered(qwen, pair(text, PATCH), max_length=2048)
    assert 2000 < len(row.input_ids) <= 2048
    assert row.prompt_cut > 100_000
