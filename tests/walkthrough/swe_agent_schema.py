"""The schema of SWE-agent 1.1's configurations and tool bundles, written down from its source.

SWE-agent is in no registry, so its own check is not to be had in a plain test run. Recorded are the
keys, the types of their values, and whether an unknown key is refused (pydantic's `extra="forbid"`)
or silently ignored. To us either is an error: a misspelt key that is ignored is a setting that
does not hold. Not recorded: defaults, deployments other than a local one, reviewers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NUMBER = (int, float)
TEXTS = [str]


@dataclass(frozen=True)
class Keys:
    """A mapping: what each key holds, and what becomes of one that is not known."""

    known: Mapping[str, Any]
    unknown: str = "refused"
    required: tuple[str, ...] = ()


@dataclass(frozen=True)
class OneOf:
    """Mappings told apart by `type`; without it `default` is meant."""

    kinds: Mapping[str, Keys]
    default: str = field(default="")


PROCESSORS = OneOf(
    {
        "default": Keys({"type": str}),
        "last_n_observations": Keys(
            {
                "type": str,
                "n": int,
                "polling": int,
                "always_remove_output_for_tags": TEXTS,
                "always_keep_output_for_tags": TEXTS,
            },
            required=("n",),
        ),
        "tag_tool_call_observations": Keys({"type": str, "tags": TEXTS, "function_names": TEXTS}),
        "closed_window": Keys({"type": str}),
        "cache_control": Keys(
            {
                "type": str,
                "last_n_messages": int,
                "last_n_messages_offset": int,
                "tagged_roles": TEXTS,
            }
        ),
        "remove_regex": Keys({"type": str, "remove": TEXTS, "keep_last": int}),
        "image_parsing": Keys({"type": str, "allowed_mime_types": TEXTS}),
    },
)
TEMPLATES = Keys(
    {
        "system_template": str,
        "instance_template": str,
        "next_step_template": str,
        "next_step_truncated_observation_template": str,
        "max_observation_length": int,
        "next_step_no_output_template": str,
        "strategy_template": str,
        "demonstration_template": str,
        "demonstrations": TEXTS,
        "put_demos_in_history": bool,
        "disable_image_processing": bool,
        "shell_check_error_template": str,
        "command_cancelled_timeout_template": str,
    },
    unknown="ignored",
)
TOOLS = Keys(
    {
        "filter": Keys(
            {
                "blocklist_error_template": str,
                "blocklist": TEXTS,
                "blocklist_standalone": TEXTS,
                "block_unless_regex": dict,
            },
            unknown="ignored",
        ),
        "bundles": [Keys({"path": str, "hidden_tools": TEXTS}, unknown="ignored")],
        "propagate_env_variables": TEXTS,
        "env_variables": dict,
        "registry_variables": dict,
        "submit_command": str,
        # Without an unknown key's refusal; the text parsers have no other keys than these.
        "parse_function": Keys({"type": str, "error_message": str}, unknown="ignored"),
        "enable_bash_tool": bool,
        "format_error_template": str,
        "command_docs": str,
        "multi_line_command_endings": dict,
        "submit_command_end_name": str,
        "reset_commands": list,
        "execution_timeout": int,
        "install_timeout": int,
        "total_execution_timeout": int,
        "max_consecutive_execution_timeouts": int,
    },
    unknown="ignored",
)
MODEL = Keys(
    {
        "name": str,
        "per_instance_cost_limit": NUMBER,
        "total_cost_limit": NUMBER,
        "per_instance_call_limit": int,
        "temperature": NUMBER,
        "top_p": NUMBER,
        "api_base": str,
        "api_version": str,
        "api_key": str,
        "stop": TEXTS,
        "completion_kwargs": dict,
        "convert_system_to_user": bool,
        "retry": Keys({"retries": int, "min_wait": NUMBER, "max_wait": NUMBER}, unknown="ignored"),
        "delay": NUMBER,
        "fallbacks": list,
        "choose_api_key_by_thread": bool,
        "max_input_tokens": int,
        "max_output_tokens": int,
        "litellm_model_registry": str,
        "custom_tokenizer": dict,
    },
    required=("name",),
)
REPLAY = Keys({**MODEL.known, "replay_path": str}, required=("name", "replay_path"))
PLACE = {"type": str, "id": str, "extra_fields": dict}
RUN = Keys(
    {
        "env": Keys(
            {
                "deployment": OneOf({"local": Keys({"type": str})}),
                "repo": OneOf(
                    {
                        "preexisting": Keys(
                            {"type": str, "repo_name": str, "base_commit": str, "reset": bool},
                            required=("repo_name",),
                        ),
                        "local": Keys({"type": str, "path": str, "base_commit": str}),
                    }
                ),
                "post_startup_commands": TEXTS,
                "post_startup_command_timeout": int,
                "name": str,
            }
        ),
        "agent": OneOf(
            {
                "default": Keys(
                    {
                        "type": str,
                        "name": str,
                        "templates": TEMPLATES,
                        "tools": TOOLS,
                        "history_processors": [PROCESSORS],
                        "model": MODEL,
                        "max_requeries": int,
                        "action_sampler": dict,
                    },
                    required=("model",),
                )
            },
            default="default",
        ),
        "problem_statement": OneOf(
            {
                "empty": Keys({"type": str, "id": str}),
                "text": Keys({**PLACE, "text": str}, required=("text",)),
                "text_file": Keys({**PLACE, "path": str}, required=("path",)),
                "github": Keys({**PLACE, "github_url": str}, required=("github_url",)),
            }
        ),
        "output_dir": str,
        "actions": Keys({"open_pr": bool, "pr_config": dict, "apply_patch_locally": bool}),
        "env_var_path": str,
    },
    required=("agent",),
)
ARGUMENT = Keys(
    {
        "name": str,
        "type": str,
        "items": dict,
        "description": str,
        "required": bool,
        "enum": TEXTS,
        "argument_format": str,
    },
    unknown="ignored",
    required=("name", "type", "description", "required"),
)
TOOL = Keys(
    {"signature": str, "docstring": str, "end_name": str, "arguments": [ARGUMENT]},
    unknown="ignored",
    required=("docstring",),
)
BUNDLE = Keys({"tools": dict, "state_command": str}, unknown="ignored", required=("tools",))


def problems(value: object, wanted: Any, where: str = "") -> list[str]:
    """Return what SWE-agent would refuse or ignore, one line each."""
    if isinstance(wanted, OneOf):
        kind = value.get("type", wanted.default) if isinstance(value, Mapping) else ""
        if kind not in wanted.kinds:
            return [f"{where}: no type {kind!r}"]
        wanted = wanted.kinds[kind]
    if isinstance(wanted, Keys):
        if not isinstance(value, Mapping):
            return [f"{where}: no mapping"]
        found = [f"{where}: {key} is missing" for key in wanted.required if key not in value]
        for key, part in value.items():
            place = f"{where}.{key}".lstrip(".")
            if key in wanted.known:
                found += problems(part, wanted.known[key], place)
            else:
                found.append(f"{place}: unknown, {wanted.unknown}")
        return found
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [
            line
            for number, part in enumerate(value)
            for line in problems(part, wanted[0], f"{where}[{number}]")
        ]
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    # YAML's true is an int to Python, and to pydantic where a number is wanted.
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    return [] if right else [f"{where}: is no {' or '.join(kind.__name__ for kind in kinds)}"]
