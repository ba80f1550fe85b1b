"""The tools themselves: a program that reads a repository and can do nothing else.

    python -I -S toolbox.py        one JSON request a line, one reply a line

It runs inside a sandbox, in the repository's folder, with nothing but Python. A request is
`{"tool": name, "arguments": {...}}`, a reply `{"text": ..., "ok": bool}`, with `path`, `first` and
`last` where lines of a file were shown, and `hits` of a search (path, first lines, and of all lines
those that define what was looked for). Whatever a
repository holds is text to it: links that lead out, pipes, devices and binary files are named and
not read, and what is long is cut and says so.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

MAX_ENTRIES = 300
MAX_LINES = 400
MAX_LINE = 400
MAX_MATCHES = 80
MAX_FILE = 4 << 20
# An agent sees all of it: what is recorded as shown was shown.
MAX_TEXT = 10_000
MAX_FILES = 200_000
MAX_PATH = 4096
_SKIPPED = frozenset({".git", ".hg", ".svn", "node_modules", "__pycache__", ".tox", ".venv"})
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/~^-]{0,100}")
_SYMBOL = re.compile(
    r"^[ \t]{0,8}(?:(?:export|default|public|private|protected|static|abstract|async|pub|final) )*"
    r"(?:class|def|fn|func|function|interface|struct|enum|trait|impl|module|type)\s+[\w.<>(*]"
)


_DEFINES = (
    r"\b(?:class|def|fn|func|function|interface|struct|enum|trait|type|module)\s+"
    r"(?:\([^)]*\)\s*)?%s\b|^%s\s*(?::[^=]*)?=(?!=)"
)


class ToolError(Exception):
    """A call that cannot be answered; the text says why, for whoever called."""


def list_dir(path: str = ".", depth: int = 1) -> dict[str, Any]:
    """List a folder: folders with a slash, files with their size, `depth` levels down."""
    top = _inside(path)
    if not os.path.isdir(top):
        raise ToolError(f"{_plain(path)} is no folder")
    if not os.access(top, os.R_OK | os.X_OK):
        raise ToolError(f"{_plain(path)} cannot be read")
    lines: list[str] = []
    hidden = _list(top, "", max(1, min(depth, 4)), lines)
    if hidden:
        lines.append(f"[{hidden} more entries not shown]")
    return {"text": "\n".join(lines) or "(empty)"}


def _list(folder: str, indent: str, depth: int, lines: list[str]) -> int:
    hidden = 0
    for entry in sorted(_entries(folder), key=lambda entry: entry.name):
        if len(lines) >= MAX_ENTRIES:
            hidden += 1
            continue
        name = _plain(entry.name)
        if entry.is_symlink():
            lines.append(f"{indent}{name} -> {_plain(os.readlink(entry.path))}")
        elif entry.is_dir(follow_symlinks=False):
            lines.append(f"{indent}{name}/")
            if depth > 1 and entry.name not in _SKIPPED:
                hidden += _list(entry.path, indent + "  ", depth - 1, lines)
        else:
            info = entry.stat(follow_symlinks=False)
            kind = f"{info.st_size:,} bytes" if stat.S_ISREG(info.st_mode) else "not a regular file"
            lines.append(f"{indent}{name}  ({kind})")
    return hidden


def read_file(path: str, start: int = 1, lines: int = 200) -> dict[str, Any]:
    """Show lines of a text file, numbered."""
    text = _text(path)
    everything = text.split("\n")
    if everything[-1] == "":
        everything.pop()
    count = len(everything)
    first = max(1, start)
    last = min(count, first + max(1, min(lines, MAX_LINES)) - 1)
    if first > max(count, 1):
        raise ToolError(f"{path} has {count} lines")
    shown = [f"{number:6}\t{_cut(everything[number - 1])}" for number in range(first, last + 1)]
    kept = _fit(shown)
    last = first + len(kept) - 1
    head = f"{_plain(path)} (lines {first} to {last} of {count})"
    reply = {"text": "\n".join([head, *kept]) if count else f"{_plain(path)} (empty)"}
    return reply | {"path": _plain(_relative(path)), "first": first, "last": max(last, first)}


def grep_search(
    pattern: str, path: str = ".", glob: str = "", regex: bool = False
) -> dict[str, Any]:
    """Find a text, or a regular expression, in the files below a path; links are not followed."""
    if not pattern or "\n" in pattern:
        raise ToolError("pattern is empty or has more than one line")
    wanted = pattern.encode("utf-8", "surrogatepass")
    try:
        expression = re.compile(wanted if regex else re.escape(wanted))
    except re.error as error:
        raise ToolError(f"pattern: {error}") from None
    name_of = re.escape(pattern)
    defines = re.compile(_DEFINES % (name_of, name_of))
    shown: list[str] = []
    hits: list[list[Any]] = []
    matches = skipped = 0
    for name, place in _files(path):
        if not _matches(name, glob):
            continue
        data = _bytes(place)
        if data is None or b"\0" in data[:8192]:
            skipped += 1
        elif found := _lines_with(expression, data, b"" if regex else wanted):
            matches += len(found)
            defined = [] if regex else [number for number, line in found if defines.search(line)]
            hits.append([_plain(name), [number for number, _ in found[:20]], defined[:20]])
            room = max(0, MAX_MATCHES - len(shown))
            shown += [f"{_plain(name)}:{number}: {line.strip()}" for number, line in found[:room]]
    kept = _fit(shown)
    head = f"{matches} matching lines in {len(hits)} files"
    if matches > len(kept):
        head += f", the first {len(kept)} shown"
    if skipped:
        head += f" ({skipped} binary or large files not searched)"
    return {"text": "\n".join([head, *kept]), "hits": hits}


def _matches(name: str, glob: str) -> bool:
    wanted = (name, name.rsplit("/", 1)[-1])
    return not glob or any(fnmatch.fnmatch(part, glob) for part in wanted)


def _lines_with(
    expression: re.Pattern[bytes], data: bytes, literal: bytes
) -> list[tuple[int, str]]:
    """Return number and text of the lines that an expression is found in, or a text if given."""
    if not literal:
        lines = enumerate(data.split(b"\n"), 1)
        return [(number, _shown(line)) for number, line in lines if expression.search(line)]
    found, number, seen, place = [], 1, 0, data.find(literal)
    while place >= 0:
        number += data.count(b"\n", seen, place)
        first, end = data.rfind(b"\n", 0, place) + 1, data.find(b"\n", place)
        seen = end if end >= 0 else len(data)
        found.append((number, _shown(data[first:seen])))
        place = data.find(literal, seen)
    return found


def _shown(line: bytes) -> str:
    return _cut(line.decode("utf-8", "replace").rstrip())


def outline(path: str) -> dict[str, Any]:
    """Show the classes and functions of a file, with their lines."""
    text = _text(path)
    tree = None
    if path.endswith((".py", ".pyi")):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            tree = None
    shown = list(_python_symbols(tree, "")) if tree else list(_symbols(text))
    kept = _fit(shown[:MAX_ENTRIES])
    if len(shown) > len(kept):
        kept.append(f"[{len(shown) - len(kept)} more not shown]")
    return {
        "text": "\n".join(kept) or "(no classes or functions found)",
        "path": _plain(_relative(path)),
    }


def _python_symbols(node: ast.AST, indent: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kind = "class" if isinstance(child, ast.ClassDef) else "def"
            about = ""
            if not isinstance(child, ast.ClassDef):
                about = f"({', '.join(part.arg for part in child.args.args)})"
            yield f"{child.lineno:6}-{child.end_lineno}\t{indent}{kind} {child.name}{about}"
            if len(indent) < 8 and isinstance(child, ast.ClassDef):
                yield from _python_symbols(child, indent + "  ")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _python_symbols(child, indent)


def _symbols(text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        if _SYMBOL.match(line):
            yield f"{number:6}\t{_cut(line.rstrip())}"


def git_log(path: str = "", limit: int = 20) -> dict[str, Any]:
    """Show the last commits, of everything or of what concerns a path."""
    count = max(1, min(limit, 100))
    line = ["log", f"--max-count={count}", "--date=short", "--format=%h %ad %s", "--no-color"]
    return {"text": _git([*line, "--", *([_relative(path)] if path else [])])}


def git_show(revision: str, path: str = "") -> dict[str, Any]:
    """Show a commit: its message and what it changed, in everything or in one path."""
    if not _REVISION.fullmatch(revision):
        raise ToolError("revision is no name or hash of a commit")
    line = ["show", "--no-ext-diff", "--no-textconv", "--no-color", "--stat", "--patch"]
    line += ["--format=medium", "--submodule=short", "--date=short"]
    line += ["--end-of-options", revision, "--"]
    return {"text": _git([*line, *([_relative(path)] if path else [])])}


TOOLS: dict[str, Callable[..., dict[str, Any]]] = {
    tool.__name__: tool for tool in (list_dir, read_file, grep_search, outline, git_log, git_show)
}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one call, whatever it asks for."""
    try:
        reply = TOOLS[name](**arguments)
    except ToolError as error:
        return {"text": f"error: {error}", "ok": False}
    except (KeyError, TypeError, ValueError) as error:
        return {"text": f"error: {name}: {error}", "ok": False}
    except (OSError, MemoryError, RecursionError) as error:
        return {"text": f"error: {name}: {type(error).__name__}: {error}", "ok": False}
    return {"ok": True, **reply}


def _inside(path: str) -> str:
    """Return where a path of the repository is, its links resolved; none leads out."""
    root = os.path.realpath(".")
    if "\0" in path or len(path) > MAX_PATH:
        raise ToolError(f"a path has no NUL in it, and {MAX_PATH:,} characters at most")
    place = os.path.realpath(os.path.join(root, path))
    if place != root and not place.startswith(root.rstrip("/") + "/"):
        raise ToolError(f"{_plain(path)} leads out of the repository")
    if not os.path.lexists(place):
        raise ToolError(f"there is no {_plain(path)}")
    return place


def _relative(path: str) -> str:
    return os.path.relpath(_inside(path), os.path.realpath("."))


def _text(path: str) -> str:
    place = _inside(path)
    if os.path.isdir(place):
        raise ToolError(f"{_plain(path)} is a folder")
    data = _bytes(place)
    if data is None:
        most = MAX_FILE >> 20
        raise ToolError(f"{_plain(path)} is no regular file, closed, or larger than {most} MiB")
    if b"\0" in data[:8192]:
        raise ToolError(f"{_plain(path)} is binary")
    return data.decode("utf-8", "replace").replace("\r\n", "\n")


def _bytes(place: str) -> bytes | None:
    """Return what a regular file holds, or None for anything else, for much, and on failure."""
    try:
        # Opening a pipe wakes whoever writes into it, a device may do anything.
        if not stat.S_ISREG(os.lstat(place).st_mode):
            return None
        opened = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        info = os.fstat(opened)
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_FILE:
            return None
        with open(opened, "rb", closefd=False) as stream:
            return stream.read(MAX_FILE + 1)
    except OSError:
        return None
    finally:
        os.close(opened)


def _files(path: str) -> Iterator[tuple[str, str]]:
    """Yield name and place of the files below a path, sorted within each folder."""
    root, top = os.path.realpath("."), _inside(path)
    if not os.path.isdir(top):
        yield os.path.relpath(top, root), top
        return
    waiting, seen, prefix = [top], 0, root.rstrip("/") + "/"
    while waiting:
        folders = []
        for entry in sorted(_entries(waiting.pop()), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED:
                    folders.append(entry.path)
            elif not entry.is_symlink():
                seen += 1
                if seen > MAX_FILES:
                    raise ToolError(f"more than {MAX_FILES:,} files: name a folder")
                yield entry.path[len(prefix) :], entry.path
        waiting += reversed(folders)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return list(listing)
    except OSError:
        return []


def _git(arguments: list[str]) -> str:
    try:
        done = subprocess.run(
            # What keeps git from running anything comes with the sandbox's environment.
            ["git", "--no-pager", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=15,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"git: {type(error).__name__}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise ToolError(f"git: {said[:MAX_LINE]}")
    lines = [_cut(line) for line in done.stdout.decode("utf-8", "replace").split("\n")]
    kept = _fit(lines)
    if len(kept) < len(lines):
        kept.append(f"[{len(lines) - len(kept)} more lines not shown]")
    return "\n".join(kept).rstrip("\n") or "(nothing)"


def _fit(lines: list[str]) -> list[str]:
    """Return the first lines that are few enough characters together."""
    kept, size = [], 0
    for line in lines:
        size += len(line) + 1
        if size > MAX_TEXT:
            break
        kept.append(line)
    return kept


def _cut(line: str) -> str:
    if len(line) <= MAX_LINE:
        return line
    return f"{line[:MAX_LINE]} [{len(line) - MAX_LINE} more characters]"


def _plain(text: str) -> str:
    """Return a name without what a terminal or a reader of lines would take for more than text."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def main() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        reply = call(request["tool"], request["arguments"])
        sys.stdout.buffer.write(json.dumps(reply, allow_nan=False).encode("ascii") + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
