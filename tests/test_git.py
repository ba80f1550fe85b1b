"""Clones read as data: what comes out, and that nothing of a hostile clone is ever run."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from swe_scaffold.errors import DataError, EnvironmentFailure
from swe_scaffold.git import MAX_BLOB_BYTES, Repository, is_repository, open_repository
from tests.histories import START, History

FILES = {"src/a.py": "x = 1\n\n\ny = 2\n", "src/b.py": "z = 3\n", "sp ace/ü.txt": "ü\n"}


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Three commits: some files; a change, a removal and a new file; a rename."""
    history = History(tmp_path / "clone")
    history.commit("First\n\nbody\n", FILES)
    changed = {"src/a.py": "x = 1\n\n\ny = 4\n", "src/b.py": None, "sp ace/ü.txt": "u\n"}
    history.commit("Second", changed)
    history.git("mv", "src/a.py", "src/c.py")
    history.commit("Third")
    return history


def everything(repository: Repository) -> list[object]:
    """All that can be read of a clone."""
    nodes = repository.history(repository.resolve("HEAD"))
    pairs = [(node.sha, node.parents[0]) for node in nodes if node.parents]
    trees = [repository.tree(node.sha) for node in nodes]
    return [
        nodes,
        list(repository.commits([node.sha for node in nodes])),
        list(repository.changes(pairs)),
        list(repository.patches(pairs)),
        trees,
        [list(repository.read_blobs(list(tree.values()))) for tree in trees],
    ]


def test_a_history_is_read_as_it_was_made(history: History) -> None:
    repository = open_repository(history.folder)
    nodes = repository.history(repository.resolve("main"))
    assert [node.sha for node in nodes] == history.git("rev-list", "HEAD").split("\n")
    assert [len(node.parents) for node in nodes] == [1, 1, 0]
    commits = [commit for commit in repository.commits([n.sha for n in nodes]) if commit]
    assert [commit.message for commit in commits] == [b"Third", b"Second", b"First\n\nbody\n"]
    assert commits[2].committed == START + 60
    assert (commits[0].author, commits[0].email) == ("Ann Other", "ann@example.org")
    pairs = [(node.sha, node.parents[0]) for node in nodes[:2]]
    changes = list(repository.changes(pairs))
    assert [[change.path for change in some or []] for some in changes] == [
        ["src/a.py", "src/c.py"],
        ["sp ace/ü.txt", "src/a.py", "src/b.py"],
    ]
    renamed, changed = repository.patches(pairs)
    assert renamed is not None
    assert b"rename from src/a.py\nrename to src/c.py\n" in renamed
    assert changed is not None
    assert b"\n-y = 2\n+y = 4\n" in changed
    assert "diff --git a/sp ace/ü.txt b/sp ace/ü.txt\n".encode() in changed
    tree = repository.tree(nodes[2].sha)
    assert list(tree) == sorted(FILES)
    assert list(repository.read_blobs(list(tree.values()))) == [
        FILES[name].encode() for name in sorted(FILES)
    ]


def test_every_kind_of_clone_reads_the_same(history: History, tmp_path: Path) -> None:
    history.git("worktree", "add", "-q", str(tmp_path / "linked"), "HEAD")
    history.git("clone", "-q", str(history.folder), str(tmp_path / "second"))
    expected = everything(open_repository(history.folder))
    for folder in (history.mirror(tmp_path / "m.git"), tmp_path / "linked", tmp_path / "second"):
        assert is_repository(folder)
        assert everything(open_repository(folder)) == expected


def test_limits_of_a_history(history: History) -> None:
    repository = open_repository(history.folder)
    head = repository.resolve("HEAD")
    assert len(repository.history(head, limit=2)) == 2
    assert len(repository.history(head, since=START + 120)) == 2


def test_a_shallow_clone_ends_without_parents(history: History, tmp_path: Path) -> None:
    url = f"file://{history.folder}"
    history.git("clone", "-q", "--depth=2", url, str(tmp_path / "shallow"))
    repository = open_repository(tmp_path / "shallow")
    nodes = repository.history(repository.resolve("HEAD"))
    assert [len(node.parents) for node in nodes] == [1, 0]


PLAIN_SETTINGS = [
    ("diff.noprefix", "true"),
    ("diff.mnemonicPrefix", "true"),
    ("diff.context", "0"),
    ("diff.interHunkContext", "9"),
    ("diff.algorithm", "patience"),
    ("diff.suppressBlankEmpty", "true"),
    ("diff.renames", "false"),
    ("diff.orderFile", "order"),
    ("diff.indentHeuristic", "false"),
    ("color.ui", "always"),
    ("core.abbrev", "4"),
    ("core.quotePath", "true"),
    ("core.worktree", "/"),
    ("log.showSignature", "true"),
    ("i18n.logOutputEncoding", "utf-16"),
]


def test_no_setting_of_the_clone_changes_what_is_read(history: History) -> None:
    (history.folder / "order").write_text("src/*\n", "utf-8")
    expected = everything(open_repository(history.folder))
    for name, value in PLAIN_SETTINGS:
        history.git("config", name, value)
    history.git("replace", "HEAD", "HEAD~2")
    (history.folder / ".git/info/grafts").write_text(history.git("rev-parse", "HEAD") + "\n")
    assert everything(open_repository(history.folder)) == expected


MARKING = [
    "core.fsmonitor",
    "core.pager",
    "core.editor",
    "core.sshCommand",
    "core.gitProxy",
    "core.askPass",
    "core.alternateRefsCommand",
    "credential.helper",
    "diff.external",
    "diff.evil.command",
    "diff.evil.textconv",
    "filter.evil.clean",
    "filter.evil.smudge",
    "filter.evil.process",
    "gpg.program",
    "interactive.diffFilter",
    "uploadpack.packObjectsHook",
    "sequence.editor",
    *(f"alias.{name}" for name in ("rev-list", "rev-parse", "diff-tree", "cat-file", "ls-tree")),
    *(f"pager.{name}" for name in ("rev-list", "diff-tree", "ls-tree", "config")),
]
HOOKS = ("post-checkout", "pre-commit", "post-index-change", "reference-transaction")


def booby_trap(history: History, marker: Path) -> Path:
    """Let every setting, hook and attribute known to run a program run one that leaves a mark."""
    script = marker.with_name("evil.sh")
    script.write_text(f"#!/bin/sh\necho run >>{marker}\ncat\n", "utf-8")
    script.chmod(0o755)
    attributes = "* diff=evil filter=evil\n"
    history.commit("Attributes", {".gitattributes": attributes, "src/c.py": "c\n"})
    (history.folder / ".git/info/attributes").write_text(attributes, "utf-8")
    hooks = marker.with_name("hooks")
    hooks.mkdir()
    for hook in HOOKS:
        (hooks / hook).write_bytes(script.read_bytes())
        (hooks / hook).chmod(0o755)
    for name in MARKING:
        history.git("config", name, f"!{script}" if name.startswith("alias.") else str(script))
    history.git("config", "core.hooksPath", str(hooks))
    history.git("config", "log.showSignature", "true")
    return script


def test_nothing_of_a_hostile_clone_runs(history: History, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    booby_trap(history, marker)
    marker.unlink(missing_ok=True)
    repository = open_repository(history.folder)
    assert everything(repository)
    assert repository.has_commit(repository.resolve("HEAD"))
    assert repository.remote() == ""
    assert not marker.exists()
    mirror = history.mirror(tmp_path / "mirror.git")
    (mirror / "config").write_bytes((history.folder / ".git/config").read_bytes())
    marker.unlink(missing_ok=True)
    assert everything(open_repository(mirror)) == everything(repository)
    assert not marker.exists()


@pytest.mark.parametrize("command", [["status"], ["diff", "HEAD~1"]])
def test_the_trap_works(history: History, tmp_path: Path, command: list[str]) -> None:
    marker = tmp_path / "marker"
    booby_trap(history, marker)
    marker.unlink(missing_ok=True)
    subprocess.run(["git", "-C", history.folder, *command], check=False, capture_output=True)
    assert marker.exists()


def remove_object(folder: Path, object_id: str) -> None:
    path = folder / "objects" / object_id[:2] / object_id[2:]
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    path.unlink()


@pytest.mark.parametrize("url", ["ext::sh -c 'touch {marker}'", "file://{clone}"])
def test_what_a_partial_clone_lacks_is_not_fetched(
    history: History, tmp_path: Path, url: str
) -> None:
    marker = tmp_path / "marker"
    partial = History(tmp_path / "partial")
    partial.git("fetch", "-q", str(history.folder), "main:other")
    partial.git("symbolic-ref", "HEAD", "refs/heads/other")
    missing = history.git("rev-parse", "HEAD~1:sp ace/ü.txt")
    remove_object(partial.folder / ".git", missing)
    for name, value in [
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", url.format(marker=marker, clone=history.folder)),
        ("protocol.ext.allow", "always"),
        ("protocol.file.allow", "always"),
        ("protocol.allow", "always"),
    ]:
        partial.git("config", name, value)
    repository = open_repository(partial.folder)
    nodes = repository.history(repository.resolve("HEAD"))
    pairs = [(node.sha, node.parents[0]) for node in nodes if node.parents]
    third, second = repository.patches(pairs)
    assert third is not None
    assert second is None
    assert not marker.exists()
    assert not (partial.folder / f".git/objects/{missing[:2]}/{missing[2:]}").exists()


def test_one_broken_commit_spoils_no_other(tmp_path: Path) -> None:
    history = History(tmp_path / "clone")
    for number in range(9):
        history.commit(f"Number {number}", {"a.txt": f"{number}\n"})
    blob = history.git("rev-parse", "HEAD~4:a.txt")
    remove_object(history.folder / ".git", blob)
    repository = open_repository(history.folder)
    nodes = repository.history(repository.resolve("HEAD"))
    patches = list(repository.patches([(n.sha, n.parents[0]) for n in nodes if n.parents]))
    assert [patch is None for patch in patches] == [False] * 3 + [True] * 2 + [False] * 3
    tree = repository.tree(nodes[4].sha)
    assert list(repository.read_blobs(list(tree.values()))) == [None]


def test_large_files_are_not_compared_and_not_read(tmp_path: Path) -> None:
    history = History(tmp_path / "clone")
    history.commit("Small", {"a.txt": "a\n", "big.txt": "b\n"})
    history.commit("Large", {"a.txt": "c\n", "big.txt": "line\n" * (MAX_BLOB_BYTES // 5 + 1)})
    repository = open_repository(history.folder)
    head, base = repository.history(repository.resolve("HEAD"))
    (patch,) = repository.patches([(head.sha, base.sha)])
    assert patch is not None
    assert b"Binary files a/big.txt and b/big.txt differ" in patch
    tree = repository.tree(head.sha)
    assert list(repository.read_blobs([tree["big.txt"], tree["a.txt"]])) == [None, b"c\n"]


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        *(
            (odd, "not a revision")
            for odd in ("--all", "-n1", "--output=x", "", " ", "a\nb", "H\0")
        ),
        *((absent, "there is no commit") for absent in ("nothing", "HEAD:src/c.py", "HEAD~9")),
    ],
)
def test_odd_revisions_are_refused(history: History, revision: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_repository(history.folder).resolve(revision)


@pytest.mark.parametrize("name", ["--all", "HEAD", "0" * 39, "0" * 40 + "\n"])
def test_only_full_ids_reach_git(history: History, name: str) -> None:
    repository = open_repository(history.folder)
    assert not repository.has_commit(name)
    with pytest.raises(DataError, match="not an object id"):
        repository.history(name)
    with pytest.raises(DataError, match="not an object id"):
        list(repository.commits([name]))
    with pytest.raises(DataError, match="not an object id"):
        repository.tree(name)


def test_what_is_no_repository(tmp_path: Path, history: History) -> None:
    for folder in (tmp_path, tmp_path / "absent", history.folder / "src"):
        assert not is_repository(folder)
        with pytest.raises(DataError, match="not a git repository"):
            open_repository(folder)
    (history.folder / ".git/HEAD").write_text("nonsense\n", "utf-8")
    with pytest.raises(DataError, match="git cannot read it"):
        open_repository(history.folder)


def test_an_empty_repository_says_so(tmp_path: Path) -> None:
    repository = open_repository(History(tmp_path / "empty").folder)
    with pytest.raises(DataError, match="there is no commit HEAD"):
        repository.resolve("HEAD")


def test_the_environment_does_not_redirect(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = History(tmp_path / "other")
    expected = everything(open_repository(history.folder))
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.folder / ".git/objects"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    monkeypatch.chdir(other.folder)
    assert everything(open_repository(Path("../clone"))) == expected


def test_a_git_beside_the_data_is_not_run(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = history.folder / "git"
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/marker\n", "utf-8")
    fake.chmod(0o755)
    monkeypatch.chdir(history.folder)
    monkeypatch.setenv("PATH", f".:{os.environ['PATH']}")
    with pytest.raises(EnvironmentFailure, match="git is not installed"):
        open_repository(history.folder)
    assert not (tmp_path / "marker").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_clone_of_another_owner_is_read(history: History) -> None:
    expected = everything(open_repository(history.folder))
    for path in (history.folder, *history.folder.rglob("*")):
        os.chown(path, 12345, 12345)
    assert everything(open_repository(history.folder)) == expected


def test_reading_leaves_no_trace(history: History) -> None:
    def state() -> list[tuple[str, int]]:
        paths = sorted(history.folder.rglob("*"))
        return [(str(path), path.stat().st_mtime_ns) for path in paths]

    before = state()
    everything(open_repository(history.folder))
    assert state() == before
