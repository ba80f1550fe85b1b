"""What a task says of each kind of mutation: where something looks wrong, never what was changed.

Wordings are drawn from the seed and the place. A statement invents nothing: it speaks of reading
the code, or quotes what a test run showed (`observed`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class _Words:
    """Headlines and sentences of one operator, and its symptom in a list of several."""

    titles: tuple[str, ...]
    details: tuple[str, ...]
    short: str


_WORDS: Mapping[str, _Words] = MappingProxyType(
    {
        "flip_comparison": _Words(
            titles=(
                "`{name}` appears to take the wrong branch for some inputs",
                "`{name}` seems to decide the wrong way for some inputs",
                "Wrong decision suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that one condition there sends some inputs down the"
                " path meant for others.",
                "Reading `{path}`, one of the decisions made by this function looks wrong for part"
                " of its inputs.",
                "One condition of this function (file `{path}`) does what the surrounding code"
                " hardly expects.",
            ),
            short="one decision looks wrong for part of its inputs",
        ),
        "off_by_one": _Words(
            titles=(
                "`{name}` looks off by one",
                "`{name}` seems to miss its mark by one step",
                "Wrong bound or position suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that a limit or a position used by this function is"
                " one step away from where it should be.",
                "Reading `{path}`, one bound or index of this function looks displaced.",
                "In this function (file `{path}`) something seems to start, stop or get picked one"
                " step too early or too late.",
            ),
            short="one bound or position looks displaced by a step",
        ),
        "dropped_guard": _Words(
            titles=(
                "`{name}` no longer seems to guard against a case it used to handle",
                "`{name}` appears to have lost the handling of a special case",
                "Missing case suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that the function once treated a certain case"
                " separately; the present code lets it through with all the others.",
                "Reading `{path}`, a case that callers may still rely on looks unhandled.",
                "This function (file `{path}`) seems to lack a branch that its callers expect.",
            ),
            short="a case that callers may rely on looks unhandled",
        ),
        "swapped_arguments": _Words(
            titles=(
                "`{name}` seems to hand values on the wrong way round",
                "`{name}` appears to call something with its values mixed up",
                "Mixed up values suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that one call made by this function receives its"
                " arguments the wrong way round.",
                "Reading `{path}`, a call inside this function looks suspicious: the values given"
                " to it seem to have traded places.",
                "One call made here (file `{path}`) seems to get the right values at the wrong"
                " positions.",
            ),
            short="a call seems to get its values the wrong way round",
        ),
        "exchanged_branches": _Words(
            titles=(
                "`{name}` seems to treat two cases the wrong way round",
                "Two cases look mixed up in `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that two cases this function tells apart each get"
                " what the other should.",
                "Reading `{path}`, the two outcomes of one decision look as if they had traded"
                " places.",
            ),
            short="two cases seem to be treated the wrong way round",
        ),
        "dropped_return": _Words(
            titles=(
                "`{name}` seems to lose its result",
                "`{name}` does not always seem to end where it should",
            ),
            details=(
                "A review of `{path}` suggests that on one path callers of this function do not"
                " get what was worked out for them.",
                "Reading `{path}`, one way through this function looks as if its result never"
                " reached the caller.",
            ),
            short="on one path the result may never reach the caller",
        ),
        "changed_exception": _Words(
            titles=(
                "`{name}` seems to deal in the wrong kind of failure",
                "Wrong kind of failure suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that one kind of failure is reported or handled"
                " here as if it were another.",
                "Reading `{path}`, the kind of failure that this function deals with hardly fits"
                " the code around it.",
            ),
            short="one kind of failure seems to be taken for another",
        ),
        "swallowed_error": _Words(
            titles=(
                "`{name}` seems to hide a failure",
                "A failure may go unnoticed in `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that one failure is met here without the reaction"
                " that callers expect.",
                "Reading `{path}`, what should follow a failure inside this function looks absent.",
            ),
            short="a failure seems to be met without any reaction",
        ),
        "changed_loop": _Words(
            titles=(
                "`{name}` seems to go through its items the wrong way",
                "A loop of `{name}` looks wrong",
            ),
            details=(
                "A review of `{path}` suggests that one loop of this function covers other items"
                " than it should.",
                "Reading `{path}`, a loop inside this function looks as if it left items out, took"
                " extra ones, or numbered them wrongly.",
            ),
            short="one loop seems to cover other items than it should",
        ),
        "dropped_await": _Words(
            titles=(
                "`{name}` may use a result before it is there",
                "`{name}` seems to go on too early",
            ),
            details=(
                "A review of `{path}` suggests that this function goes on before something it"
                " depends on has happened.",
                "Reading `{path}`, one step of this function looks as if it were only announced"
                " and never carried out in time.",
            ),
            short="a step it depends on may never have finished",
        ),
        "dropped_update": _Words(
            titles=(
                "`{name}` seems to forget something",
                "State looks stale after `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that something this function should record goes"
                " unrecorded.",
                "Reading `{path}`, later code may find old state where this function should have"
                " left new.",
            ),
            short="something that should be recorded goes unrecorded",
        ),
        "dropped_call": _Words(
            titles=(
                "`{name}` seems to skip a step",
                "A step looks absent from `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that this function leaves out one of the things it"
                " exists to do.",
                "Reading `{path}`, one effect that callers of this function expect has no visible"
                " cause any more.",
            ),
            short="one expected step seems to be left out",
        ),
        "dropped_keyword": _Words(
            titles=(
                "`{name}` seems to leave a choice to chance",
                "An option looks lost in `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that something called from here runs with other"
                " settings than intended.",
                "Reading `{path}`, one call of this function looks as if it had been given too"
                " little.",
            ),
            short="a call seems to run with other settings than intended",
        ),
        "dropped_condition": _Words(
            titles=(
                "`{name}` seems to let the wrong cases through",
                "One check of `{name}` looks incomplete",
            ),
            details=(
                "A review of `{path}` suggests that a check of this function looks at too little"
                " before it decides.",
                "Reading `{path}`, one requirement that this function should impose looks absent.",
            ),
            short="a check seems to look at too little",
        ),
        "changed_arithmetic": _Words(
            titles=(
                "`{name}` seems to compute a wrong value",
                "Wrong computation suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that one computation of this function goes wrong.",
                "Reading `{path}`, a formula inside this function hardly gives what its"
                " surroundings expect.",
            ),
            short="one computation looks wrong",
        ),
        "changed_constant": _Words(
            titles=(
                "`{name}` seems to work with a wrong fixed value",
                "A fixed value of `{name}` looks mistaken",
            ),
            details=(
                "A review of `{path}` suggests that something written down here as fixed was"
                " mistyped.",
                "Reading `{path}`, one fixed value inside this function looks implausible.",
            ),
            short="one fixed value looks mistyped",
        ),
        "changed_default": _Words(
            titles=(
                "`{name}` seems to behave oddly when called with few arguments",
                "What `{name}` assumes looks wrong",
            ),
            details=(
                "A review of `{path}` suggests that what this function assumes when callers leave"
                " something open has changed.",
                "Reading `{path}`, callers that leave something open would hardly get what they"
                " expect.",
            ),
            short="what it assumes when callers leave something open looks wrong",
        ),
        "wrong_variable": _Words(
            titles=(
                "`{name}` seems to confuse two of its values",
                "Mistaken value suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that this function uses one of its values where"
                " another belongs.",
                "Reading `{path}`, one value inside this function looks out of place where it is"
                " used.",
            ),
            short="one of its values seems to be used where another belongs",
        ),
        "wrong_attribute": _Words(
            titles=(
                "`{name}` seems to look at the wrong part of an object",
                "`{name}` may read the wrong field",
            ),
            details=(
                "A review of `{path}` suggests that this function reads one part of an object"
                " where another belongs.",
                "Reading `{path}`, what this function takes from one object looks out of place.",
            ),
            short="it seems to read the wrong part of an object",
        ),
        "wrong_slice": _Words(
            titles=(
                "`{name}` seems to pick the wrong part of a sequence",
                "Wrong part of a sequence suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that this function takes hold of a sequence at the"
                " wrong side.",
                "Reading `{path}`, what this function picks out of a sequence hardly fits its use.",
            ),
            short="it seems to take hold of a sequence at the wrong side",
        ),
        "wrong_function": _Words(
            titles=(
                "`{name}` seems to rely on the wrong helper",
                "Wrong helper suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that something called from here resembles what is"
                " needed, yet does something else.",
                "Reading `{path}`, one call of this function hardly does what its surroundings"
                " expect.",
            ),
            short="something it calls resembles what is needed, yet does something else",
        ),
        "dropped_conversion": _Words(
            titles=(
                "`{name}` seems to work on a value in the wrong form",
                "Wrong form of a value suspected: `{name}`",
            ),
            details=(
                "A review of `{path}` suggests that a value is used by this function as it came,"
                " where the code expects another form of it.",
                "Reading `{path}`, one value inside this function looks as if it were of another"
                " form than the code around it expects.",
            ),
            short="a value seems to be used in the wrong form",
        ),
    }
)
_SEVERAL = (
    "Several functions of `{path}` look wrong",
    "`{path}`: more than one function seems to misbehave",
    "Wrong behaviour suspected at several places of `{path}`",
)
# Shared with flipped conditions, so without the words in, is, not, and, or: they are tokens.
_CLOSINGS = (
    "Nobody has reproduced this yet; a careful reading of the function should settle it.",
    "There are no reports from users; please check the function, then repair what you find.",
    "This came up while reading the code, without a failing example.",
)


def statement(
    places: Sequence[tuple[str, str]], path: str, *, seed: int, observed: str = ""
) -> str:
    """Tell where something looks wrong and what kind of symptom to expect.

    Args:
        places: Operator and dotted function name of every mutation.
        path: File that holds them.
        seed: Of the wording.
        observed: What a test run showed; without it the statement says that nobody tried.
    """
    key = ":".join(f"{path}:{name}:{operator}" for operator, name in places)
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    closing = observed or _CLOSINGS[digest[2] % len(_CLOSINGS)]
    if len(places) > 1:
        title = _SEVERAL[digest[0] % len(_SEVERAL)].replace("{path}", path)
        lines = [f"- `{name}`: {_WORDS[operator].short}." for operator, name in places]
        return "\n\n".join([title, "\n".join(lines), closing])
    operator, name = places[0]
    words = _WORDS[operator]
    title = words.titles[digest[0] % len(words.titles)].replace("{name}", name)
    detail = words.details[digest[1] % len(words.details)].replace("{path}", path)
    gap = "\n\n" if observed else " "
    return f"{title}\n\n{detail}{gap}{closing}"
