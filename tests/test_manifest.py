"""Manifests: what they record, what they must not, and that nothing damaged or foreign verifies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_scaffold import manifest
from swe_scaffold.errors import EnvironmentFailure, IntegrityError
from swe_scaffold.manifest import (
    ENVIRONMENT,
    SCHEMA,
    file_entries,
    fingerprint,
    git_revision,
    provenance,
    read_manifest,
    verify_files,
    write_manifest,
)
from swe_scaffold.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
COMMIT, OTHER = "1f" * 20, "2e" * 20
SECRETS = [
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME", "HF_ENDPOINT", "OPENAI_API_KEY"),
    *("ANTHROPIC_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("GITHUB_TOKEN", "GH_TOKEN", "WANDB_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("AZURE_CLIENT_SECRET", "SSH_AUTH_SOCK", "DATABASE_URL", "HTTPS_PROXY", "PIP_INDEX_URL"),
    *("PYTHONPATH", "USER"),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with files and the manifest that names them."""
    folder = tmp_path / "run"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"weights")
    (folder / "inner" / "b.json").write_bytes(b"{}")
    (tmp_path / "outside").write_bytes(b"weights")
    entries = file_entries(folder, ["a.bin", "inner/b.json"])
    write_manifest(folder / "manifest.json", {"kind": "adapter", "files": entries})
    return folder


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    return dict(read_manifest(folder / "manifest.json")["files"])


def test_what_is_written_is_read_and_verifies(run: Path) -> None:
    text = (run / "manifest.json").read_text()
    assert text.startswith(f'{{\n  "schema": {SCHEMA},\n  "kind"')
    assert read_manifest(run / "manifest.json")["kind"] == "adapter"
    assert files_of(run)["a.bin"]["size"] == 7
    verify_files(run, files_of(run))
    moved = run.rename(run.with_name("moved"))
    verify_files(moved, files_of(moved))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def link_outside(path: Path) -> None:
    path.unlink()
    path.symlink_to("../outside")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "does not match its recorded SHA-256"),
        (lambda path: path.write_bytes(b"weight"), "has 6 bytes, not 7"),
        (lambda path: path.write_bytes(b""), "has 0 bytes, not 7"),
        (lambda path: path.unlink(), "is missing"),
        (make_pipe, "is missing"),
        (link_outside, "outside its folder: 'a.bin'"),
        (link_to_itself, "that cannot exist: 'a.bin'|is missing"),
    ],
)
def test_a_tampered_file_is_named(
    run: Path, damage: Callable[[Path], object], message: str
) -> None:
    entries = files_of(run)
    damage(run / "a.bin")
    with pytest.raises(IntegrityError, match=message) as caught:
        verify_files(run, entries)
    assert caught.value.where.startswith(str(run))
    assert caught.value.exit_code == 5


def test_a_link_within_the_folder_verifies_by_its_content(run: Path) -> None:
    (run / "a.bin").rename(run / "c.bin")
    (run / "a.bin").symlink_to("c.bin")
    verify_files(run, files_of(run))
    linked = run.with_name("link")
    linked.symlink_to(run)
    verify_files(linked, files_of(run))


NAMES = ["../outside", "inner/../../outside", "/etc/hostname", "a\0b", "x" * 5000, "\ud800", ".."]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leaves_the_folder_is_never_opened(run: Path, name: str) -> None:
    entry = {"size": 7, "sha256": files_of(run)["a.bin"]["sha256"]}
    with pytest.raises(IntegrityError) as caught:
        verify_files(run, {name.replace("/outside", f"/{run.parent.name}/../outside"): entry})
    assert "the manifest names a file" in caught.value.message
    assert len(caught.value.message) < 200
    with pytest.raises(IntegrityError):
        verify_files(run, {name: entry})


def test_a_folder_that_is_a_link_out_is_refused(run: Path) -> None:
    (run / "out").symlink_to("..")
    with pytest.raises(IntegrityError, match="outside its folder"):
        verify_files(run, {"out/outside": {"size": 7, "sha256": ""}})


@pytest.mark.parametrize(
    "entries",
    [
        None,
        [],
        "x",
        {"a.bin": None},
        {"a.bin": []},
        {"a.bin": {"size": 7}},
        {"a.bin": {"sha256": ""}},
    ],
)
def test_damaged_entries_are_refused(run: Path, entries: Any) -> None:
    with pytest.raises(IntegrityError, match="the manifest is damaged"):
        verify_files(run, entries)


def test_wrong_types_in_an_entry_never_verify(run: Path) -> None:
    good = files_of(run)["a.bin"]
    for bad in (
        {"size": "7"},
        {"size": None},
        {"sha256": None},
        {"sha256": good["sha256"].upper()},
    ):
        with pytest.raises(IntegrityError):
            verify_files(run, {"a.bin": {**good, **bad}})


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"", ":1", "the manifest is damaged: it is not strict JSON"),
        (b'{"schema": 1,\n "kind"', ":2", "not strict JSON"),
        (b'{"schema": 1, "loss": NaN}', "", "not strict JSON"),
        (b"\xff\xfe{\0}\0", "", "not strict JSON"),
        (b"[" * 100_000, "", "not strict JSON"),
        (b'{"schema": ' + b"1" * 5000 + b"}", "", "not strict JSON"),
        (b"null", "", "it is not an object"),
        (b"[1]", "", "it is not an object"),
        (b"{}", "", "has schema None, this version reads 1"),
        (b'{"schema": 2}', "", "has schema 2, this version reads 1"),
        (b'{"schema": true}', "", "has schema True"),
        (b'{"schema": 1.0}', "", r"has schema 1\.0"),
        (b'{"schema": "' + b"1" * 5000 + b'"}', "", "has schema '111"),
    ],
)
def test_a_damaged_manifest_is_refused(
    tmp_path: Path, content: bytes, place: str, message: str
) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=message) as caught:
        read_manifest(path)
    assert caught.value.where == f"{path}{place}"
    assert len(caught.value.message) < 120


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":, schema1e', max_size=40).map(str.encode))
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    try:
        value = read_manifest(path)
    except IntegrityError:
        return
    assert value["schema"] == SCHEMA


def test_a_missing_manifest_is_a_refusal_an_unreadable_one_an_obstacle(tmp_path: Path) -> None:
    for missing in (tmp_path / "manifest.json", tmp_path / "no" / "manifest.json"):
        with pytest.raises(IntegrityError, match="there is no manifest"):
            read_manifest(missing)
    (tmp_path / "file").touch()
    with pytest.raises(IntegrityError, match="there is no manifest"):
        read_manifest(tmp_path / "file" / "manifest.json")
    with pytest.raises(EnvironmentFailure, match="is a folder"):
        read_manifest(tmp_path)
    with pytest.raises(EnvironmentFailure, match="no such file"):
        file_entries(tmp_path, ["missing"])


def test_a_fingerprint_is_of_the_value_not_of_its_order() -> None:
    value = {"a": [1, 2.5, None, "é\u2028"], "b": {"c": True}}
    assert fingerprint(value) == fingerprint({"b": {"c": True}, "a": [1, 2.5, None, "é\u2028"]})
    for other in ({**value, "b": {"c": 1}}, {**value, "a": [2.5, 1, None, "é\u2028"]}, None):
        assert fingerprint(other) != fingerprint(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(float("nan"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package and a `.git` that the module believes to stand in."""
    root = tmp_path / "checkout"
    (root / ".git" / "refs" / "heads").mkdir(parents=True)
    monkeypatch.setattr(manifest, "__file__", str(root / "swe_scaffold" / "manifest.py"))
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_revision_of_a_branch_a_packed_branch_and_a_detached_head(checkout: Path) -> None:
    git = checkout / ".git"
    write(git / "HEAD", f"{COMMIT}\n")
    assert git_revision() == COMMIT
    write(git / "HEAD", "ref: refs/heads/topic/v1.2-x\n")
    assert git_revision() is None  # no commit yet
    branch = "refs/heads/topic/v1.2-x"
    lines = ["# pack-refs with: peeled", f"{OTHER} refs/tags/{branch}", f"{OTHER} {branch}2"]
    lines += [f"^{OTHER}", f"{COMMIT} {branch}", f"{OTHER} refs/heads/x", ""]
    write(git / "packed-refs", "\n".join(lines))
    assert git_revision() == COMMIT
    write(git / "refs" / "heads" / "topic" / "v1.2-x", f"{OTHER}\n")
    assert git_revision() == OTHER
    write(git / "refs" / "heads" / "topic" / "v1.2-x", "ab" * 32 + "\n")
    assert git_revision() == "ab" * 32


def test_the_revision_of_a_worktree(checkout: Path) -> None:
    main = checkout.parent / "main" / ".git"
    shutil.rmtree(checkout / ".git")
    write(main / "worktrees" / "w" / "HEAD", "ref: refs/heads/topic\n")
    write(main / "worktrees" / "w" / "commondir", "../..\n")
    write(main / "refs" / "heads" / "topic", f"{COMMIT}\n")
    for pointer in (main / "worktrees" / "w", "../main/.git/worktrees/w"):
        write(checkout / ".git", f"gitdir: {pointer}\n")
        assert git_revision() == COMMIT
    (main / "refs" / "heads" / "topic").unlink()
    write(main / "packed-refs", f"{OTHER} refs/heads/topic\n")
    assert git_revision() == OTHER


@pytest.mark.parametrize(
    "head",
    [
        "",
        "not a commit",
        COMMIT[:39],
        "ref: refs/heads/../../../secret",
        "ref: ../secret",
        "ref: /etc/hostname",
        "ref: refs/heads/secret",
        "ref: refs/heads/\0",
        "ref: refs/heads",
    ],
)
def test_nothing_but_a_commit_is_taken_for_one(checkout: Path, head: str) -> None:
    write(checkout / "secret", "token")
    write(checkout / ".git" / "refs" / "heads" / "secret", "token")
    write(checkout / ".git" / "HEAD", head)
    assert git_revision() is None
    (checkout / ".git" / "HEAD").write_bytes(b"\xff\xfe")
    assert git_revision() is None
    shutil.rmtree(checkout / ".git")
    assert git_revision() is None
    write(checkout / ".git", "nonsense")
    assert git_revision() is None


def test_git_itself_agrees(checkout: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    shutil.rmtree(checkout / ".git")
    me = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=m"]

    def git(*arguments: object) -> str:
        command = ["git", *me, *map(str, arguments)]
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(checkout),
        }
        return subprocess.check_output(
            command, cwd=checkout, text=True, env=environment, stderr=subprocess.DEVNULL
        ).strip()

    git("init")
    git("commit", "--allow-empty", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert git_revision() == head
    git("pack-refs", "--all")
    assert git_revision() == head
    git("worktree", "add", "-b", "other", checkout.parent / "second")
    git("commit", "--allow-empty", "-m", "two")
    (checkout / ".git").rename(checkout / "git-of-main")
    shutil.copy(checkout.parent / "second" / ".git", checkout / ".git")
    pointer = (checkout / ".git").read_text().replace("/.git/", "/git-of-main/")
    (checkout / ".git").write_text(pointer)
    assert git_revision() == head


def test_provenance_says_what_ran() -> None:
    found = provenance()
    assert found["version"] == VERSION
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "numpy" in found["packages"]
    assert set(found["environment"]) <= set(ENVIRONMENT)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_no_value_of_the_environment_leaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SECRETS) == 20
    for name in SECRETS:
        monkeypatch.setenv(name, f"canary-{name}")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    write_manifest(tmp_path / "manifest.json", provenance())
    text = (tmp_path / "manifest.json").read_text()
    assert "canary" not in text
    assert not [name for name in SECRETS if name in text]
    assert read_manifest(tmp_path / "manifest.json")["environment"]["OMP_NUM_THREADS"] == "3"
    for private in (str(ROOT), os.uname().nodename, str(Path.home()) + os.sep):
        assert private not in text


def test_provenance_starts_no_program_and_loads_no_library() -> None:
    code = (
        "import sys; sys.addaudithook(lambda event, _: event in ('subprocess.Popen', 'os.fork',"
        " 'os.exec', 'os.posix_spawn', 'socket.connect') and sys.exit(event));"
        "from swe_scaffold.manifest import provenance; provenance();"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
