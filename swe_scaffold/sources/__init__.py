"""The only room that reads foreign formats: from a name a user gave to tasks, examples and skips.

base        DataFile, Source: what every source is
local       files and folders: format by content, splits of a folder
hub         Hugging Face data sets: which files make up a split
text_files  JSON Lines, JSON, CSV
columnar    Parquet, Arrow
shapes      what a row is, by its keys
tasks       SWE-bench-style records
prompts     what a task asks
chat        messages, prompt + response, instructions
fields      single fields: the right type, or an error that names the key
examples    a file of rows for training, strictly

trajectories      which format a trajectory is in: the table of formats
swe_agent, mini_swe_agent, openhands, trajectory_rows    formats, each to `Trajectory`
turns             the messages of a trajectory, and what not to learn of them
refusals          what a harness says when it did not run an action
atif, moatless, codex (with codex_file), nemo_gym        further formats
outcomes          evaluation reports and predictions, joined by id
"""

from __future__ import annotations

from pathlib import Path

from swe_scaffold.errors import DataError, UsageError
from swe_scaffold.hub import is_hub_id
from swe_scaffold.sources.base import InputFile, Source
from swe_scaffold.sources.examples import ExampleFile, read_examples
from swe_scaffold.sources.hub import open_hub
from swe_scaffold.sources.local import DATA_SUFFIXES, FORMATS, near_name, open_local, suffix_of
from swe_scaffold.sources.shapes import Item
from swe_scaffold.terminal import show

__all__ = ["ExampleFile", "InputFile", "Item", "Source", "open_source", "read_examples"]


def open_source(
    name: str,
    *,
    split: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    format: str = "auto",
) -> Source:
    """Open what a user named: a local file or folder, else a hub data set.

    Args:
        name: Path or hub id.
        split: Split of a hub data set, a save_to_disk folder, or a folder whose file names tell.
        revision: Branch, tag or commit of a hub data set.
        offline: Ask only the hub cache, never the hub.
        format: `auto` looks at the content; else `jsonl`, `json`, `csv`, `parquet` or `arrow`.

    Raises:
        DataError: The name is neither, or what it names cannot be read.
        EnvironmentFailure: A hub data set is neither reachable nor cached.
        UsageError: An option does not fit.
    """
    if format != "auto" and format not in FORMATS:
        raise UsageError(f"unknown format {show(format, width=30)}", hint=", ".join(FORMATS))
    _refuse_odd(name)
    path = Path(name).expanduser()
    if path.exists():
        if revision is not None:
            raise UsageError("a revision can be chosen of a hub data set only", where=name)
        return open_local(name, path, split=split, format=format)
    if not is_hub_id(name) or suffix_of(name) in DATA_SUFFIXES:
        raise DataError(
            "no such file or folder",
            where=show(name),
            hint=near_name(path) or "name an existing file or folder, or a hub id: owner/name",
        )
    return open_hub(name, split=split, revision=revision, offline=offline, format=format)


def _refuse_odd(name: str) -> None:
    if not name or "\0" in name or name.startswith("-"):
        raise DataError("is not the name of a data set", where=show(name) or "--dataset")
    if "://" in name or "::" in name:
        raise DataError(
            "web addresses are not opened",
            where=show(name),
            hint="fetch the file first, then name it; a hub data set is named owner/name",
        )
