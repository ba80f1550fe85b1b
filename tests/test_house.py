"""The rules of the house: what shipped code may not contain, how it is cut, what importing costs.

The rules read syntax, not text, so that a docstring may name what it forbids. Each rule is shown
here to be able to fail. An exception is one line in EXCEPTIONS, with its reason.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("swe_scaffold", "scripts", "training")

EXCEPTIONS = {
    ("open-for-writing", "swe_scaffold/files.py"): "the atomic writer itself",
    ("print", "swe_scaffold/cli/"): "results go to stdout from here and nowhere else",
    ("subprocess", "swe_scaffold/process.py"): "the one room that starts programs",
    ("subprocess", "swe_scaffold/sandbox/confine.py"): "a program that becomes another, confined",
    ("subprocess", "swe_scaffold/walkthrough/toolbox.py"): "a program in a sandbox, which asks git",
    ("subprocess", "swe_scaffold/walkthrough/relay.py"): "a program that becomes another",
    ("open-for-writing", "swe_scaffold/walkthrough/swe_agent_tool.py"): "a program in a sandbox",
}

Finding = tuple[int, str]
Rule = Callable[[ast.Module], Iterator[Finding]]


def aliases(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name it was imported as."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                names[bound] = alias.name if alias.asname else bound
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`torch.load` for any spelling of it; an unknown part is `?`."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return "?"


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    names = aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func, names), node


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every module imported, by statement or by name in a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
    for name, call in calls(tree):
        if name in ("__import__", "importlib.import_module") and call.args:
            yield call.lineno, str(constant(call.args[0]))


def constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String constants that are not docstrings."""
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [] if id(node) in documentation else [(node.lineno, node.value)]


def no_pickle(tree: ast.Module) -> Iterator[Finding]:
    """S1: no format that runs code when it is read."""
    banned = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for line, module in imported(tree):
        if module.split(".")[0] in banned:
            yield line, f"imports {module}"
    for name, call in calls(tree):
        allowed = keyword(call, "allow_pickle")
        if allowed is not None and constant(allowed) is not False:
            yield call.lineno, f"{name}(allow_pickle=...)"


def no_torch_load(tree: ast.Module) -> Iterator[Finding]:
    """S1: weights are safetensors."""
    for name, call in calls(tree):
        if name in ("torch.load", "torch.serialization.load", "torch.jit.load"):
            yield call.lineno, name


def no_yaml_load(tree: ast.Module) -> Iterator[Finding]:
    """S21: YAML is not read by a loader that builds objects."""
    for name, call in calls(tree):
        if re.fullmatch(r"yaml\.(full_|unsafe_)?load(_all)?", name):
            yield call.lineno, name


def no_eval(tree: ast.Module) -> Iterator[Finding]:
    """No data becomes code."""
    for name, call in calls(tree):
        if name in ("eval", "exec", "builtins.eval", "builtins.exec"):
            yield call.lineno, name


def no_shell(tree: ast.Module) -> Iterator[Finding]:
    """No command line is put together for a shell."""
    for name, call in calls(tree):
        if name in ("os.system", "os.popen"):
            yield call.lineno, name
        shell = keyword(call, "shell")
        if shell is not None and constant(shell) is not False:
            yield call.lineno, f"{name}(shell=...)"


def no_remote_code(tree: ast.Module) -> Iterator[Finding]:
    """S2: the switch does not exist here, under no spelling."""
    word = "trust_remote_code"
    for node in ast.walk(tree):
        spelled = (
            (isinstance(node, ast.keyword | ast.arg) and node.arg == word)
            or (isinstance(node, ast.Name) and node.id == word)
            or (isinstance(node, ast.Attribute) and node.attr == word)
            or (isinstance(node, ast.Constant) and node.value == word)
        )
        if spelled:
            yield getattr(node, "lineno", 0), word


UNSAFE_SCRIPT = re.compile(
    r"\b(?:innerHTML|outerHTML|insertAdjacentHTML)\b|\bdocument\.write(?:ln)?\b|\beval\("
    r"|\bnew Function\("
)


def no_unsafe_script(tree: ast.Module) -> Iterator[Finding]:
    """S8: pages are built from text nodes."""
    for line, text in strings(tree):
        if found := UNSAFE_SCRIPT.search(text):
            yield line, found.group()


def no_subprocess(tree: ast.Module) -> Iterator[Finding]:
    """Programs are started in one room only."""
    for line, module in imported(tree):
        if module.split(".")[0] in ("subprocess", "_posixsubprocess", "pty"):
            yield line, f"imports {module}"
    for name, call in calls(tree):
        if re.match(r"os\.(exec|spawn|posix_spawn)", name) or name.startswith("asyncio.create_sub"):
            yield call.lineno, name


OPENERS = {"open": 1, "io.open": 1, "os.fdopen": 1, "gzip.open": 1, "bz2.open": 1, "lzma.open": 1}


def no_open_for_writing(tree: ast.Module) -> Iterator[Finding]:
    """Files are written whole or not at all, which one room knows how to do."""
    for name, call in calls(tree):
        method = name.rpartition(".")[2]
        if name.startswith("swe_scaffold.files."):
            continue
        if method in ("write_text", "write_bytes"):
            yield call.lineno, name
        if method not in ("open", "fdopen") or name == "os.open":
            continue
        mode = mode_of(call, OPENERS.get(name, 0))
        if mode is None or set(mode) & set("wax+"):
            yield call.lineno, f"{name}(mode={mode or 'unknown'})"


def mode_of(call: ast.Call, position: int) -> str | None:
    """The mode a file is opened with; None where it cannot be read from the source."""
    given = keyword(call, "mode")
    if given is None and len(call.args) > position:
        given = call.args[position]
    if given is None:
        return None if any(item.arg is None for item in call.keywords) else "r"
    value = constant(given)
    return value if isinstance(value, str) else None


def no_splitlines(tree: ast.Module) -> Iterator[Finding]:
    """It cuts at eight more characters than the line feed, some of which occur inside JSON."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "splitlines":
            yield node.lineno, "splitlines"


def strict_json(tree: ast.Module) -> Iterator[Finding]:
    """NaN and Infinity are not JSON."""
    for name, call in calls(tree):
        if (
            name in ("json.dumps", "json.dump")
            and constant(keyword(call, "allow_nan")) is not False
        ):
            yield call.lineno, f"{name} without allow_nan=False"


def no_print(tree: ast.Module) -> Iterator[Finding]:
    """Only the command line talks to people."""
    for name, call in calls(tree):
        if name in ("print", "builtins.print"):
            yield call.lineno, name


RULES: dict[str, Rule] = {
    "pickle": no_pickle,
    "torch-load": no_torch_load,
    "yaml-load": no_yaml_load,
    "eval": no_eval,
    "shell": no_shell,
    "remote-code": no_remote_code,
    "unsafe-script": no_unsafe_script,
    "subprocess": no_subprocess,
    "open-for-writing": no_open_for_writing,
    "splitlines": no_splitlines,
    "strict-json": strict_json,
    "print": no_print,
}


def shipped(*suffixes: str) -> list[Path]:
    return sorted(
        path for top in SHIPPED for suffix in suffixes for path in (ROOT / top).rglob(f"*{suffix}")
    )


def excepted(rule: str, place: str) -> bool:
    return any(
        rule == name and (place == path or (path.endswith("/") and place.startswith(path)))
        for name, path in EXCEPTIONS
    )


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax of a file, parsed once for all rules."""
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", RULES)
def test_shipped_code_keeps_the_rule(rule: str) -> None:
    broken = [
        f"{place}:{line}: {what}"
        for path in shipped(".py")
        if not excepted(rule, place := path.relative_to(ROOT).as_posix())
        for line, what in RULES[rule](parsed(path))
    ]
    assert not broken, f"{rule}: {RULES[rule].__doc__}\n" + "\n".join(broken)


BAD = [
    ("pickle", "import pickle"),
    ("pickle", "from joblib import load"),
    ("pickle", "def f():\n    import dill.session"),
    ("pickle", "import importlib\nimportlib.import_module('shelve')"),
    ("pickle", "import numpy as np\nnp.load('x.npy', allow_pickle=True)"),
    ("torch-load", "import torch\ntorch.load('x')"),
    ("torch-load", "import torch as t\nt.load('x', weights_only=True)"),
    ("torch-load", "from torch import load as read\nread('x')"),
    ("yaml-load", "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)"),
    ("yaml-load", "from yaml import unsafe_load\nunsafe_load(text)"),
    ("eval", "eval(text)"),
    ("eval", "exec(compile(text, 'x', 'exec'))"),
    ("shell", "import os\nos.system('ls')"),
    ("shell", "run(['ls'], shell=True)"),
    ("shell", "run('ls', shell=flag)"),
    ("remote-code", "load('x', trust_remote_code=False)"),
    ("remote-code", "load('x', **{'trust_remote_code': True})"),
    ("remote-code", "def load(path, trust_remote_code=False): ..."),
    ("unsafe-script", "page = '<script>node.innerHTML = row.text</script>'"),
    ("unsafe-script", "page = f'<script>document.write({row})</script>'"),
    ("subprocess", "import subprocess"),
    ("subprocess", "from subprocess import run"),
    ("subprocess", "import os\nos.execvp('git', [])"),
    ("open-for-writing", "open('x', 'w')"),
    ("open-for-writing", "open('x', mode='ab')"),
    ("open-for-writing", "open('x', mode)"),
    ("open-for-writing", "import gzip\ngzip.open('x', 'wt')"),
    ("open-for-writing", "path.open('r+')"),
    ("open-for-writing", "path.write_text('x')"),
    ("open-for-writing", "(folder / 'x').write_bytes(b'')"),
    ("splitlines", "text.splitlines()"),
    ("splitlines", "list(map(str.splitlines, texts))"),
    ("strict-json", "import json\njson.dumps(row)"),
    ("strict-json", "from json import dumps\ndumps(row, allow_nan=True)"),
    ("strict-json", "import json\njson.dump(row, stream, sort_keys=True)"),
    ("print", "print('x')"),
]

GOOD = [
    ("pickle", '"""Never import pickle."""\nimport numpy as np\nnp.load("x", allow_pickle=False)'),
    ("torch-load", "from safetensors import torch\ntorch.load(data)"),
    ("yaml-load", "import yaml\nyaml.safe_load(text)"),
    ("eval", "model.eval()"),
    ("shell", "run(['ls'], shell=False)"),
    ("remote-code", '"""trust_remote_code does not exist here."""  # trust_remote_code=True'),
    ("unsafe-script", '"""No innerHTML."""\npage = "node.textContent = row.text"'),
    ("subprocess", "import os\nos.path.exists('x')"),
    (
        "open-for-writing",
        "from swe_scaffold.files import write_text\nwrite_text(path, 'x')",
    ),
    ("open-for-writing", "open('x')\nopen('x', 'rb')\npath.open()\nimport os\nos.open('x', 0)"),
    ("splitlines", "text.split('\\n')  # not splitlines()"),
    ("strict-json", "import json\njson.dumps(row, allow_nan=False)"),
    ("print", "console.print('x')"),
]


@pytest.mark.parametrize(("rule", "source"), BAD)
def test_a_rule_can_fail(rule: str, source: str) -> None:
    assert list(RULES[rule](ast.parse(source)))


@pytest.mark.parametrize(("rule", "source"), GOOD)
def test_a_rule_leaves_the_rest_alone(rule: str, source: str) -> None:
    assert not list(RULES[rule](ast.parse(source)))


def test_every_rule_is_shown_to_fail_and_to_pass() -> None:
    assert {rule for rule, _ in BAD} == {rule for rule, _ in GOOD} == set(RULES)


def test_templates_hold_no_unsafe_script() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in shipped(".jinja", ".html", ".js")
        if (found := UNSAFE_SCRIPT.search(path.read_text(encoding="utf-8")))
    ]
    assert not broken


@pytest.mark.parametrize(("top", "limit"), [("swe_scaffold", 400), ("tests", 600)])
def test_files_stay_short(top: str, limit: int) -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in (ROOT / top).rglob("*.py")
    }
    assert lengths
    assert not {place: lines for place, lines in lengths.items() if lines > limit}


@pytest.mark.parametrize("top", ["scripts", "training"])
def test_doors_are_only_doors(top: str) -> None:
    for path in (ROOT / top).glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= 12, path.name
        assert "from swe_scaffold.cli import run" in source, path.name


MACHINE_PATH = re.compile(
    r"(?<![\w.~-])/(?:(?:work|farm)/|root/\.|tmp/[a-z]|(?:home|Users)/(?!you\b|user\b|someone\b|alice\b)[a-z])"
)


def tracked_files() -> list[Path]:
    """What is committed or staged; a log that somebody keeps in the folder is theirs."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of tracked files")
    listed = subprocess.run(
        [
            "git",
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_machine_path_is_committed() -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("top", ["work", "farm", "root/.cache", "tmp/x", "home/bob", "Users/bob"])
def test_a_machine_path_is_recognised(top: str) -> None:
    assert MACHINE_PATH.search(f"path = '/{top}/main'")


def test_pins_name_exact_versions_and_no_host() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / name).read_text(encoding="utf-8").rstrip("\n").split("\n")
        pins = [line for line in lines if not line.startswith("#")]
        own = [line for line in pins if line.startswith("-")]
        assert own == (["-e ."] if name == "requirements.txt" else ["-r requirements.txt"])
        for line in set(pins) - set(own):
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line), line
        assert "://" not in "".join(lines)
    assert (ROOT / "requirements.txt").read_text(encoding="utf-8").endswith("\n-e .\n")


FREE = [
    "swe_scaffold",
    *(
        f"swe_scaffold.{name}"
        for name in (
            *(
                "types",
                "errors",
                "config",
                "files",
                "jsonl",
                "terminal",
                "labels",
                "manifest",
                "splits",
            ),
            *("diffs", "cli", "metrics.likelihood", "metrics.bootstrap", "metrics.comparison"),
            *("sources", "quality"),
        )
    ),
]
HEAVY = (
    *("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors"),
    *("datasets", "pyarrow", "pandas", "huggingface_hub", "libcst"),
)
IMPORT_ALL = """
import importlib, json, sys
costs = {}
for name in json.loads(sys.argv[1]):
    before = set(sys.modules)
    try:
        importlib.import_module(name)
    except Exception as error:
        costs[name] = repr(error)
    else:
        costs[name] = sorted({new.split(".")[0] for new in set(sys.modules) - before})
print("COSTS" + json.dumps(costs))
"""


@pytest.fixture(scope="module")
def imports() -> tuple[str, dict[str, list[str] | str]]:
    """What one process printed while importing, and the packages each module was first to load."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", IMPORT_ALL, json.dumps(FREE)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    printed, _, costs = done.stdout.rpartition("COSTS")
    return printed + done.stderr, json.loads(costs)


@pytest.mark.parametrize("module", FREE)
def test_importing_loads_nothing_heavy(
    module: str, imports: tuple[str, dict[str, list[str] | str]]
) -> None:
    loaded = imports[1][module]
    assert isinstance(loaded, list), loaded
    assert not set(loaded) & set(HEAVY)


def test_importing_prints_nothing(imports: tuple[str, dict[str, list[str] | str]]) -> None:
    assert imports[0] == ""


def test_no_test_reaches_the_network() -> None:
    with pytest.raises(RuntimeError, match="look up"):
        socket.create_connection(("example.org", 443), timeout=1)
    with socket.socket() as outside, pytest.raises(RuntimeError, match="connect"):
        outside.connect(("192.0.2.1", 443))


def test_this_machine_can_still_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
