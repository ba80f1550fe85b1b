"""Example -> token ids and loss mask, proven against the tokenizer's own chat template.

formats     chats as labelled pieces of text: our own code for known chat templates
tokens      a tokenizer folder read as data: plain encoder, control tokens, template
runs        pieces joined to what is encoded in one go
renderer    examples -> ids and targets, in batches, within a length
token_texts what each token stands for
kept        rows rendered and proven once, from the cache
shortening  cutting prompts in the middle, at line bounds
proof       what training will see, compared with what everybody else's tokenizer makes of it
"""

from swe_scaffold.rendering.formats import CHATML_TEMPLATE, QWEN_SYSTEM, ChatML, template_digest
from swe_scaffold.rendering.kept import prove_rows, render_rows
from swe_scaffold.rendering.proof import RenderProof
from swe_scaffold.rendering.renderer import Renderer, asked, target_classes
from swe_scaffold.rendering.runs import Encoded
from swe_scaffold.rendering.token_texts import token_texts
from swe_scaffold.rendering.tokens import ChatTokenizer, read_tokenizer, tokenizer_folder

__all__ = [
    "CHATML_TEMPLATE",
    "QWEN_SYSTEM",
    "ChatML",
    "ChatTokenizer",
    "Encoded",
    "RenderProof",
    "Renderer",
    "asked",
    "prove_rows",
    "read_tokenizer",
    "render_rows",
    "target_classes",
    "template_digest",
    "token_texts",
    "tokenizer_folder",
]
