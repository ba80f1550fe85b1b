"""Cards for people and for the hub, written from manifests: of a model, and of the data behind it.

- `model_card.py`: what a model is, what it was trained on and how, what was measured.
- `data_card.py`: what a built data set holds and what was left out of it.
- `results.py`: an evaluation's numbers with their intervals.
- `facts.py`: configuration, data and commands as tables.
- `places.py`: manifests without the places of one machine.
- `markdown.py`: foreign text made safe in Markdown and YAML.

Manifests are read defensively: what one does not say is said to be missing. Nothing is computed or
written here.
"""

from __future__ import annotations

from swe_scaffold.cards.data_card import data_card
from swe_scaffold.cards.model_card import ModelFacts, ModelKind, model_card
from swe_scaffold.cards.places import published

__all__ = ["ModelFacts", "ModelKind", "data_card", "model_card", "published"]
