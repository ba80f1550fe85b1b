"""Pages for people, one self-contained file each: no script, nothing from elsewhere.

- `run_page.py`: the page of a run folder, section after section.
- `material.py`: what of a run folder there is to show.
- `verdict.py`: what the intervals allow to be said, in sentences.
- `audit_page.py`, `audit_tables.py`: the page of an audit.
- `comparison_page.py`: the page of a comparison.
- `row_page.py`, `token_panels.py`, `row_answers.py`: the page of one row; `row_facts.py` gathers it
  from `row_scores.py` and `row_predictions.py`, `patch_pair.py` puts two patches side by side and
  `shades.py` says which step of a scale a number is on; the terminal shows the same.
- `result.py`, `slices.py`, `progress.py`, `accounts.py`: the sections of a page.
- `charts.py`, `plots.py`, `scales.py`: SVG drawn by us.
- `html.py`, `style.py`: the one escape, elements, the page shell and its look.

Numbers are made in `metrics`; nothing here computes a statistic or loads a model.
"""

from __future__ import annotations

from swe_scaffold.report.run_page import run_page

__all__ = ["run_page"]
