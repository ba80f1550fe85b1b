"""Loading the configuration: what wins over what, and what people read when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_scaffold.config import (
    SpeedrunConfig,
    check_config,
    describe_config,
    dump_config,
    load_config,
)
from swe_scaffold.errors import ConfigError, UsageError
from swe_scaffold.files import write_json

ROOT = Path(__file__).resolve().parents[1]
# Words of the library that checks types; people should meet ours.
JARGON = ("Input", "input", "valid ", "literal", "constrained", "array", "integer", "pydantic")


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nested(key: str, value: Any) -> dict[str, Any]:
    first, dot, rest = key.partition(".")
    return {first: nested(rest, value) if dot else value}


KEYS = dict(flat(dump_config(SpeedrunConfig())))


def failure(path: Path | None, content: bytes | object = None, **given: Any) -> ConfigError:
    if path is not None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ConfigError) as caught:
        load_config(path, **given)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return caught.value


def attempt(call: Callable[[], SpeedrunConfig]) -> SpeedrunConfig | ConfigError:
    try:
        return call()
    except ConfigError as error:
        return error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "speedrun.json"


def test_nothing_given_is_the_defaults(path: Path) -> None:
    path.write_text("{}")
    assert load_config() == load_config(path) == SpeedrunConfig()


def test_flags_win_over_set_over_file_over_defaults(path: Path) -> None:
    lora = {"r": 2, "alpha": 3, "dropout": 0.5}
    path.write_text(json.dumps({"training": {"lora": lora}, "dataset": {"seed": 7}}))
    config = load_config(
        path,
        overrides=["training.lora.r=4", "training.lora.alpha=5", "training.lora.alpha=6"],
        flags={"training.lora.r": 8, "training.lora.dropout": None},
    )
    found = config.training.lora
    assert (found.r, found.alpha, found.dropout, config.dataset.seed) == (8, 6, 0.5, 7)
    assert found.target_modules == SpeedrunConfig().training.lora.target_modules


def test_set_takes_json_and_plain_text(path: Path) -> None:
    config = load_config(
        overrides=[
            'training.report_to=["wandb", "tensorboard"]',
            "training.lora.target_modules=all-linear",
            "training.output_dir = runs/a=b",
            "training.max_steps=null",
            "training.learning_rate=2e-4",
            'training.lora={"r": 4}',
            "training.lora.alpha=9",
            'training={"lora": {"dropout": 0}}',
            'dataset.revision="0123"',
        ]
    )
    assert config.training.report_to == ["wandb", "tensorboard"]
    assert config.training.output_dir == "runs/a=b"
    assert config.dataset.revision == "0123"
    lora = config.training.lora
    assert (lora.r, lora.alpha, lora.dropout, lora.target_modules) == (4, 9, 0, "all-linear")


def test_a_group_given_by_set_keeps_the_files_other_keys(path: Path) -> None:
    path.write_text(json.dumps({"training": {"lora": {"alpha": 5}, "seed": 3}}))
    config = load_config(path, overrides=['training={"lora": {"r": 4}}', "training.lora={}"])
    assert (config.training.seed, config.training.lora.alpha, config.training.lora.r) == (3, 5, 4)


def test_a_saved_configuration_loads_as_itself(path: Path) -> None:
    config = load_config(overrides=["training.lora.target_modules=all-linear", "dataset.split=dev"])
    write_json(path, dump_config(config))
    assert load_config(path) == config


def test_a_byte_order_mark_and_whole_numbers_for_fractions_are_fine(path: Path) -> None:
    path.write_bytes(b'\xef\xbb\xbf{"training": {"num_train_epochs": 2, "weight_decay": 0}}\n')
    config = load_config(path)
    assert config.training.num_train_epochs == 2
    assert config.training.weight_decay == 0


WRONG: list[tuple[str, Any, str, str]] = [
    ("training.learning_rate", "2e-4", 'should be a number > 0, got "2e-4"', "without quotes"),
    ("training.learning_rate", 0, "should be a number > 0, got 0", ""),
    ("training.learning_rate", True, "should be a number > 0, got true", ""),
    ("training.max_steps", True, "should be a whole number ≥ 1 or null, got true", ""),
    ("training.max_steps", 10**40, "is too large", ""),
    ("training.lora.r", 8.0, "should be a whole number ≥ 1, got 8.0", ""),
    ("training.lora.r", None, "should be a whole number ≥ 1, got null", ""),
    ("training.lora.dropout", 1, "should be a number ≥ 0 and < 1, got 1", ""),
    ("training.include_failures", "false", 'should be true or false, got "false"', "lower case"),
    ("training.lr_scheduler_type", "cosin", '"constant_with_warmup", got "cosin"', '"cosine"?'),
    ("training.eval_strategy", "never", 'should be "no", "steps" or "epoch", got "never"', ""),
    ("training.report_to", "wandb", 'should be a list of names, got "wandb"', '["wandb"]'),
    ("training.lora.target_modules", "all_linear", '"all-linear", got "all_linear"', "-linear"),
    (
        "training.lora.target_modules",
        ["q_proj", 3],
        'should be a list of one or more names or "all-linear"; item 2 is 3',
        "",
    ),
    ("training.lora.target_modules", [], 'or "all-linear", got []', ""),
    ("training.lora.target_modules", [["q"]], "holds a list or object inside its list", ""),
    ("training.output_dir", 5, "should be text that is not blank, got 5", 'quotes: "5"'),
    ("training.output_dir", " ", 'should be text that is not blank, got " "', ""),
    ("training.output_dir", "a\0b", 'has a control character or a lone surrogate: "a\\u0000b"', ""),
    ("training.model_name", "a\ud800", "lone surrogate", ""),
    ("training.fp16", "yes", 'should be true or false, got "yes"', ""),
    ("dataset.seed", {"x": 1}, "is a value, not a group of keys", ""),
    ("dataset.dev_split", 1.5, "should be a number > 0 and ≤ 1, got 1.5", ""),
    ("dataset.min_patch_chars", -1, "should be a whole number ≥ 0 or null, got -1", ""),
    ("dataset.quality.near_duplicate_threshold", 0.1, "a number ≥ 0.3 and ≤ 1, got 0.1", ""),
    ("dataset.quality.secrets", "drop", '"skip", "redact" or "report", got "drop"', ""),
    ("dataset.quality.stages", ["caps", 3], "should be a list of names; item 2 is 3", ""),
    ("dataset.quality.max_per_repo", 0, "should be a whole number ≥ 1 or null, got 0", ""),
    ("dataset", [], "should be an object with keys, got []", ""),
    ("training", None, "should be an object with keys, got null", ""),
    ("training.lora", 3, "should be an object with keys, got 3", ""),
]


@pytest.mark.parametrize(("key", "value", "message", "hint"), WRONG)
def test_a_wrong_value_is_named_shown_and_explained(
    path: Path, key: str, value: Any, message: str, hint: str
) -> None:
    error = failure(path, nested(key, value))
    assert error.where == f"{path}: {key}"
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(("key", "value", "message", "hint"), WRONG)
def test_set_and_flags_are_named_instead_of_the_file(
    path: Path, key: str, value: Any, message: str, hint: str
) -> None:
    error = failure(path, {}, overrides=[f"{key}={json.dumps(value)}"])
    assert error.where == f"--set: {key}"
    assert message in error.message
    if value is not None:
        flag = {"training.output_dir": "--output"}.get(key, f"--{key.rpartition('.')[2]}")
        error = failure(path, {}, flags={key: value})
        assert error.where == f"{flag.replace('_', '-')}: {key}"
        assert message in error.message


UNKNOWN = [
    ("training.learnin_rate", "did you mean training.learning_rate?"),
    ("trainng", "did you mean training?"),
    ("learning_rate", "did you mean training.learning_rate?"),
    ("dataset.learning_rate", "did you mean training.learning_rate?"),
    ("lora", "did you mean training.lora?"),
    ("seed", "did you mean dataset.seed, training.seed or evaluation.seed?"),
    ("training.alpha", "did you mean training.lora.alpha or evaluation.alpha?"),
    ("training.batch_size", "did you mean training.per_device_train_batch_size or evaluation.b"),
    ("training.lora_alpha", "did you mean training.lora.alpha?"),
    ("dataset.train_split", "did you mean dataset.dev_split?"),
    ("fp16", "did you mean training.dtype?"),
    ("dataset.zzz", "known keys: dataset, split, revision"),
    ("training.lora.", "known keys: r, alpha"),
]


@pytest.mark.parametrize(("key", "hint"), UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_name(path: Path, key: str, hint: str) -> None:
    error = failure(path, nested(key, 1))
    assert (error.where, error.message) == (f"{path}: {key}", "unknown key")
    assert error.hint.startswith(hint)
    assert failure(None, overrides=[f"{key}=1"]).where == f"--set: {key}"


def test_a_dotted_name_in_a_file_is_no_path(path: Path) -> None:
    error = failure(path, {"training.seed": 1})
    assert "unknown key" in error.message
    assert "nested" in error.hint


FILES = [
    (b"", "", "is empty"),
    (b" \n", "", "is empty"),
    (b"null", "", "should be a JSON object, got null"),
    (b"[]", "", "should be a JSON object, got []"),
    (b'{"dataset": {}\n"x": 1}', ":2", "is not JSON: expecting ',' delimiter at column 1"),
    (b'{"dataset": {},}', ":1", "is not JSON"),
    (b"{'a': 1}", ":1", "is not JSON"),
    (b"dataset: {}\n", ":1", "is not JSON"),
    (b'{"dataset": {"seed": 1, "seed": 1}}', ": dataset.seed", "is given twice"),
    (b'{"training": {}, "training": {}}', ": training", "is given twice"),
    (b'{"training": {"seed": 1, "se\\u0065d": 2}}', ": training.seed", "is given twice"),
    (b'{"training": {"learning_rate": NaN}}', ": training.learning_rate", "finite number, got nan"),
    (b'{"training": {"learning_rate": 1e999}}', ": training.learning_rate", "finite number, got"),
    (b'{"training": {"seed": ' + b"9" * 5000 + b"}}", "", "a number with too many digits"),
    (b"[" * 100_000, "", "nested too deeply"),
    (b'{"a": ' * 100_000, "", "nested too deeply"),
    (b'{"dataset": {"seed": ' + b"[" * 500 + b"]" * 500 + b"}}", ": dataset.seed", "inside its"),
    (b"\xff\xfe{\0}\0", "", "is not UTF-8 text (byte 0)"),
    (b" " * (1 << 21), "", "is larger than 1 MiB"),
]


@pytest.mark.parametrize(("content", "place", "message"), FILES, ids=[row[2] for row in FILES])
def test_a_file_that_is_no_configuration_is_refused(
    path: Path, content: bytes, place: str, message: str
) -> None:
    error = failure(path, content)
    assert error.where == f"{path}{place}"
    assert message in error.message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_config(missing)
    assert "configs/speedrun.json" in caught.value.hint
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="not a file name"):
        load_config(Path("a\0b"))


@pytest.mark.parametrize(
    ("override", "place", "message"),
    [
        ("training.lora", "--set", "expected key.path=value"),
        ("=1", "--set", "expected key.path=value"),
        ("nope.x=1", "--set: nope", "unknown key"),
        ("training..r=1", "--set: training.", "unknown key"),
        ("dataset.seed.x=1", "--set: dataset.seed", "is a value, not a group of keys"),
        ('training.lora={"r": 1, "r": 2}', "--set: training.lora.r", "is given twice"),
        ("dataset.seed={}", "--set: dataset.seed", "is a value, not a group of keys"),
        ("dataset.revision=1234567", "--set: dataset.revision", "should be text"),
        ("training.lora.r=four", "--set: training.lora.r", 'got "four"'),
        ("training.include_failures=True", "--set: training.include_failures", "true or false"),
        ("training.learning_rate=Infinity", "--set: training.learning_rate", "finite"),
        ("training.output_dir=" + "[" * 100_000 + "\x1b", "--set: training.output_dir", "control"),
    ],
)
def test_a_bad_set_is_refused(override: str, place: str, message: str) -> None:
    error = failure(None, overrides=[override])
    assert error.where == place
    assert message in error.message


def test_a_group_that_became_a_value_is_refused() -> None:
    error = failure(None, overrides=["dataset=5", "dataset.seed=1"])
    assert error.where == "--set: dataset"


def test_what_the_file_broke_is_not_blamed_on_set(path: Path) -> None:
    for sets in (["dataset.seed=1"], ['dataset={"seed": 1}']):
        assert failure(path, {"dataset": 5}, overrides=sets).where == f"{path}: dataset"
    twice = b'{"dataset": {"seed": 1, "seed": 2}}'
    assert failure(path, twice, overrides=sets).where == f"{path}: dataset.seed"


@pytest.mark.parametrize(
    ("key", "value", "flag"),
    [
        ("training.max_steps", 0, "--max-steps"),
        ("training.output_dir", "", "--output"),
        ("dataset.max_examples", -1, "--limit"),
        ("dataset.min_patch_chars", -1, "--min-patch-chars"),
        ("evaluation.tokens_per_batch", 0, "--tokens-per-batch"),
        ("evaluation.batch_size", 0, "--batch-size"),
        ("evaluation.cluster_by", "repos", "--cluster-by"),
    ],
)
def test_a_flag_is_named_as_it_is_typed(path: Path, key: str, value: object, flag: str) -> None:
    given = [f"{key}={json.dumps(KEYS[key])}"]
    error = failure(path, nested(key, KEYS[key]), overrides=given, flags={key: value})
    assert error.where == f"{flag}: {key}"


@pytest.mark.parametrize("given", [{}, {"batch_size": 8}, {"batch_size": None}])
def test_files_with_and_without_a_batch_size_are_read(path: Path, given: dict[str, Any]) -> None:
    write_json(path, {"evaluation": given})
    evaluation = load_config(path).evaluation
    assert evaluation.batch_size == given.get("batch_size")
    assert evaluation.tokens_per_batch == 8192


def test_keys_that_exclude_each_other_blame_what_was_set_last(path: Path) -> None:
    best, never = {"load_best": True}, {"eval_strategy": "no"}
    assert failure(path, {"training": {**best, **never}}).where == f"{path}: training.load_best"
    error = failure(path, {"training": best}, overrides=["training.eval_strategy=no"])
    assert error.where == "--set: training.eval_strategy"
    error = failure(path, {"training": never}, overrides=["training.load_best=true"])
    assert error.where == "--set: training.load_best"
    assert "load_best needs eval_strategy" in error.message


STAGES = "dataset.quality.stages"
MISFITS: list[tuple[dict[str, Any], str, str]] = [
    ({"stages": ["secret", "secret"]}, STAGES, "stages names secret twice"),
    (
        {"stages": ["duplicate", "secret"]},
        STAGES,
        "stages has secret after duplicate: stages that look at one row come before those that "
        "compare rows (duplicate, near_duplicate, caps)",
    ),
    (
        {"stages": [], "max_per_repo": 3},
        "dataset.quality.max_per_repo",
        "max_per_repo needs the stage caps in stages",
    ),
    (
        {"stages": ["caps"], "only_resolved": True},
        "dataset.quality.only_resolved",
        "only_resolved needs the stage outcome in stages",
    ),
]


@pytest.mark.parametrize(("quality", "key", "message"), MISFITS)
def test_stages_that_do_not_fit_are_refused(
    path: Path, quality: dict[str, Any], key: str, message: str
) -> None:
    error = failure(path, {"dataset": {"quality": quality}})
    assert (error.where, error.message) == (f"{path}: {key}", message)


def test_a_bound_on_patches_needs_the_stage_that_judges_them(path: Path) -> None:
    sets = ["dataset.quality.stages=[]"]
    error = failure(path, {"dataset": {"min_patch_chars": 3}}, overrides=sets)
    assert error.where == f"--set: {STAGES}"
    assert "min_patch_chars needs the stage short_patch" in error.message
    assert load_config(overrides=sets).dataset.quality.stages == []


def test_any_order_of_stages_within_their_kind_is_taken() -> None:
    given = ["hidden_text", "secret", "empty_response", "caps", "near_duplicate", "duplicate"]
    config = load_config(overrides=[f"{STAGES}={json.dumps(given)}"])
    assert config.dataset.quality.stages == given


def test_the_order_of_set_does_not_matter_for_the_whole(path: Path) -> None:
    path.write_text(json.dumps({"training": {"eval_strategy": "no"}}))
    both = ["training.load_best=true", "training.eval_strategy=epoch"]
    assert load_config(path, overrides=both) == load_config(path, overrides=both[::-1])


def test_check_config_names_its_origin() -> None:
    assert check_config({}, "the request") == SpeedrunConfig()
    with pytest.raises(UsageError, match="the request: top level: should be an object"):
        check_config([], "the request")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the request: dataset\.seed: should be a whole number"):
        check_config({"dataset": {"seed": "x"}}, "the request")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["auto", "steps", "all-linear", "cosine", 10**400, -0.0, 1e308, "\ud800"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=400, deadline=None)
@given(key=st.sampled_from([*KEYS, "training.fp16", "training", "training.lora"]), value=VALUES)
def test_any_value_is_taken_exactly_or_refused_by_name(key: str, value: Any) -> None:
    result = attempt(lambda: check_config(nested(key, value), "file"))
    if isinstance(result, ConfigError):
        # A key that needs another is refused by the name of either.
        together = key.rpartition(".")[2] in result.message
        assert result.where.startswith(f"file: {key}") or together
        assert not [word for word in JARGON if word in result.message.split(", got")[0]]
        json.dumps(result.as_dict(), allow_nan=False).encode()
        return
    stored = dict(flat(dump_config(result)))
    if key in KEYS:
        assert stored[key] == value
        assert isinstance(stored[key], bool) == isinstance(value, bool)
    others = {name for name in KEYS if not name.startswith(key)} - {"training.dtype"}
    assert {name: stored[name] for name in others} == {name: KEYS[name] for name in others}


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=40)
    | st.text(alphabet='{}[]:,"\\ edatsrining.lo01e-', max_size=60).map(str.encode)
)
def test_any_bytes_are_a_configuration_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    result = attempt(lambda: load_config(path))
    if isinstance(result, ConfigError):
        assert result.where.startswith(str(path))


def test_every_key_is_described_with_type_and_default() -> None:
    rows = list(describe_config())
    assert [key for key, *_ in rows] == list(KEYS)
    for key, kind, default, text in rows:
        assert json.loads(default) == KEYS[key]
        assert kind
        assert text.endswith("."), key
        assert "\n" not in text
    kinds = {key: kind for key, kind, *_ in rows}
    assert kinds["training.lora.target_modules"] == "list of str | all-linear"
    assert kinds["dataset.dev_split"] == "float > 0 ≤ 1"
    assert kinds["dataset.min_patch_chars"] == "int ≥ 0 | null"
    assert kinds["training.eval_strategy"] == "no | steps | epoch"


def test_loading_is_quick_and_needs_no_torch() -> None:
    code = (
        "import sys, time; from pathlib import Path; from swe_scaffold.config import load_config;"
        "load_config(Path(sys.argv[1]), overrides=['training.lora.r=4']);"
        "print(time.process_time(), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, ROOT / "configs" / "speedrun.json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, torch = done.stdout.split()
    assert float(seconds) < 0.5
    assert torch == "False"
