"""Who chooses the steps: the scripted guide, a model on this machine, or one of a server."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from swe_scaffold.engine.sampling import Sampling
from swe_scaffold.terminal import SILENT, Reporter
from swe_scaffold.walkthrough.chat_model import ChatModel

if TYPE_CHECKING:
    from swe_scaffold.prediction import Model

_SAMPLING = Sampling(1024, 0.0, 1.0, 0)


@dataclass(frozen=True, slots=True)
class Guide:
    """What makes a guide, as often as there are walkthroughs; a model is loaded once a process.

    Attributes:
        model: Run folder, model folder or hub id; with `api_base` the name at the server; None is
            the scripted guide.
        api_base: An OpenAI-compatible server.
        key_variable: Environment variable with the server's key.
        timeout_seconds: Longest wait for one answer of the server.
        base: Overrides the base of an adapter.
        trust_template: Accept a chat template that is not a known one.
        sampling: How a model's answers are drawn.
        bash: Whether a shell is among a model's tools.
        offline: Never ask the network for a model.
    """

    model: str | None = None
    api_base: str | None = None
    key_variable: str = ""
    timeout_seconds: float = 600.0
    base: str | None = None
    trust_template: bool = False
    sampling: Sampling = _SAMPLING
    bash: bool = False
    offline: bool = False

    @property
    def is_local(self) -> bool:
        """Whether a model is loaded on this machine."""
        return self.model is not None and self.api_base is None

    def make(self, reporter: Reporter = SILENT) -> ChatModel:
        """Return a guide for one walkthrough.

        Raises:
            ScaffoldError: The model cannot be loaded, or the server's address is none.
        """
        if self.model is None:
            from swe_scaffold.walkthrough.guide import ScriptedGuide

            return ScriptedGuide()
        from swe_scaffold.walkthrough.asked_model import AskedModel

        return AskedModel(_load(self, reporter), self.sampling, bash=self.bash)

    def identity(self, reporter: Reporter = SILENT) -> dict[str, Any]:
        """Return names and hashes of all that decides what the guide does."""
        if self.model is None:
            from swe_scaffold.walkthrough.guide import NAME

            return {"kind": "scripted", "name": NAME}
        found = _load(self, reporter).identity()
        return {**found, "sampling": asdict(self.sampling), "bash": self.bash}


@functools.lru_cache(maxsize=1)
def _load(guide: Guide, reporter: Reporter) -> Model:
    assert guide.model is not None
    if guide.api_base is None:
        from swe_scaffold.prediction.local import load_local

        return load_local(
            guide.model,
            base=guide.base,
            trust_template=guide.trust_template,
            offline=guide.offline,
            reporter=reporter,
        )
    from swe_scaffold.prediction.http import open_endpoint
    from swe_scaffold.prediction.server import ServedModel
    from swe_scaffold.walkthrough.asked_model import PATIENCE

    endpoint = open_endpoint(
        guide.api_base,
        key_variable=guide.key_variable,
        timeout_seconds=guide.timeout_seconds,
        offline=guide.offline,
    )
    return ServedModel(endpoint, guide.model, 1, PATIENCE, reporter)
