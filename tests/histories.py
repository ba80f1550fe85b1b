"""Small git repositories made on the spot; the package itself never writes to one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ANN = "Ann Other <ann@example.org>"
START = 1_700_000_000


class History:
    """A work tree whose commits are the same on every machine: one a minute, by one author."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._minutes = 0
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str, stdin: bytes = b"", **variables: str) -> str:
        """Run git as a person would, but with no settings of this machine."""
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_COMMITTER_NAME": "Ann Other",
            "GIT_COMMITTER_EMAIL": "ann@example.org",
            "GIT_AUTHOR_NAME": "Ann Other",
            "GIT_AUTHOR_EMAIL": "ann@example.org",
        }
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments],
            env=environment | variables,
            input=stdin,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write files of the work tree; None removes one."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)

    def commit(
        self,
        message: str | bytes,
        files: Mapping[str, str | bytes | None] | None = None,
        *,
        author: str = ANN,
    ) -> str:
        """Commit the whole work tree and return the id."""
        self.write(files or {})
        self._minutes += 1
        date = f"{START + 60 * self._minutes} +0200"
        name, _, email = author.removesuffix(">").partition(" <")
        text = message.encode("utf-8") if isinstance(message, str) else message
        self.git("add", "-A")
        self.git(
            *("commit", "-q", "--allow-empty", "--allow-empty-message", "--cleanup=verbatim"),
            *("--no-verify", "-F", "-"),
            stdin=text,
            GIT_AUTHOR_NAME=name,
            GIT_AUTHOR_EMAIL=email,
            GIT_AUTHOR_DATE=date,
            GIT_COMMITTER_DATE=date,
        )
        return self.git("rev-parse", "HEAD")

    def mirror(self, folder: Path) -> Path:
        """Clone it bare."""
        self.git("clone", "-q", "--mirror", str(self.folder), str(folder))
        return folder
