"""From what a model wrote to a patch that git takes, or a reason why there is none.

`extraction` finds the patch in an answer, `blocks` says where diffs may stand in it, `edits` reads
search/replace blocks, `reading` reads diff lines as strictly as git and makes the repairs that can
be proven, `headers` judges the lines above a file's hunks. Whether a patch applies to a tree, and
what it is worth, is left to others.
"""

from swe_scaffold.patches.edits import ReadFile
from swe_scaffold.patches.extraction import Extraction, extract_patch
from swe_scaffold.patches.reading import repair_patch

__all__ = ["Extraction", "ReadFile", "extract_patch", "repair_patch"]
