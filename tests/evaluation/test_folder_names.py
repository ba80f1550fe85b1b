"""Any id becomes a name that every file system takes, and no two become the same."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from swe_scaffold.evaluation.folder_names import safe_name


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


IDS = st.text(alphabet=st.sampled_from("aAbé\u0301eK\u212a./_-~ \0\n中\ud800CONcon1"), max_size=6)


@settings(max_examples=500, deadline=None)
@given(first=IDS | st.text(), second=IDS)
def test_any_two_ids_get_two_safe_names(first: str, second: str) -> None:
    for identifier in (first, second):
        name = safe_name(identifier)
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name)
        assert not name.endswith(".")
        assert name.split(".")[0].lower() not in {"con", "nul", "aux", "prn", "com1", "lpt1"}
        assert safe_name(identifier) == name
        # No id can be made that equals the name derived from another one.
        assert (folded(safe_name(name)) == folded(name)) == (name == identifier)
    assert (folded(safe_name(first)) == folded(safe_name(second))) == (first == second)


def test_names_are_readable_short_and_apart() -> None:
    assert safe_name("astropy__astropy-12907") == "astropy__astropy-12907"
    assert safe_name("v1.2_x-y") == "v1.2_x-y"
    odd = ["../up__x-1", "/etc/passwd", "-rf", ".hidden", "", ".", "..", "a/b", "a\\b", "a" * 5000]
    odd += ["con", "CON.txt", "nul.jsonl", "com1", "Foo", "foo.", "e\u0301", "é", "\ud800", "a\0b"]
    safe = [safe_name(identifier) for identifier in odd]
    assert all(re.fullmatch(r"\w[\w.-]*-[0-9a-f]{12}", name, re.ASCII) for name in safe)
    assert max(map(len, safe)) == 100
    assert len({folded(name) for name in (*safe, *map(safe_name, safe))}) == 2 * len(odd)
