"""Every mutation operator by name, and the order in which they take turns.

A new operator is a function in `mutations`, `flow_mutations` or `value_mutations`, one line here,
and its words in `statements`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from swe_scaffold.python_code import Candidate, Function, Source
from swe_scaffold.synthesis import flow_mutations as flow
from swe_scaffold.synthesis import mutations as decisions
from swe_scaffold.synthesis import value_mutations as values

Operator = Callable[[Function, Source], list[Candidate]]

_ALL: tuple[Operator, ...] = (
    decisions.flip_comparison,
    decisions.off_by_one,
    decisions.dropped_guard,
    decisions.swapped_arguments,
    flow.exchanged_branches,
    flow.dropped_return,
    flow.changed_exception,
    flow.swallowed_error,
    flow.changed_loop,
    flow.dropped_await,
    flow.dropped_update,
    flow.dropped_call,
    flow.dropped_keyword,
    flow.dropped_condition,
    values.changed_arithmetic,
    values.changed_constant,
    values.changed_default,
    values.wrong_variable,
    values.wrong_attribute,
    values.wrong_slice,
    values.wrong_function,
    values.dropped_conversion,
)
OPERATORS: Mapping[str, Operator] = MappingProxyType({one.__name__: one for one in _ALL})
# What the quickstart's published numbers were measured with.
FIRST_OPERATORS = ("flip_comparison", "off_by_one", "dropped_guard", "swapped_arguments")
