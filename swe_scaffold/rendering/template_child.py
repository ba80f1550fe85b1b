"""The child that runs a chat template nobody knows, asked by `templates`; see `process`."""

from __future__ import annotations

from typing import Any

from swe_scaffold.process import answer_requests


def render(request: dict[str, Any]) -> dict[str, str]:
    """Render one chat with the very function that transformers' tokenizers call."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = render_jinja_template(
        conversations=[request["messages"]],
        tools=request["tools"],
        chat_template=request["template"],
        add_generation_prompt=request["generation"],
        **request["special_tokens"],
    )
    return {"text": texts[0]}


if __name__ == "__main__":
    # Imported before the limits are set, so that they bound the template alone.
    import transformers.utils.chat_template_utils  # noqa: F401

    answer_requests(render)
