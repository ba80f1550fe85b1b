"""The card of a model: an adapter, or a base with one merged into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from swe_scaffold.cards.facts import amount, configuration, data_ledger, hub_sources, ledger
from swe_scaffold.cards.markdown import (
    MISSING,
    command,
    digest,
    fence,
    front_matter,
    page,
    plain,
    shortened,
    table,
    told,
)
from swe_scaffold.cards.places import published
from swe_scaffold.cards.results import model_index, results, weak_points
from swe_scaffold.hub import is_hub_id
from swe_scaffold.numbers import branch, finite, pick, point, texts, wording

# A base with an adapter merged into it is `merged`; of a `model` every weight was trained.
ModelKind = Literal["adapter", "merged", "model"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a card is made from; mappings are empty where there is nothing.

    `manifest` is the run's, `data` that of the built data set it was trained on, `evaluations` are
    reports on these very weights, `other_evaluations` counts those on other weights. `merge` is
    what the export did and proved; an adapter has none.
    """

    name: str
    kind: ModelKind
    manifest: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()
    other_evaluations: int = 0
    merge: Mapping[str, Any] = field(default_factory=dict)


def model_card(facts: ModelFacts) -> str:
    """Return a model card: YAML for the hub, then what is known, from manifests alone."""
    facts = replace(
        facts,
        manifest=published(facts.manifest),
        data=published(facts.data),
        evaluations=[published(report) for report in facts.evaluations],
    )
    lines = [
        *front_matter(_metadata(facts)),
        f"# {plain(facts.name) or 'model'}",
        "",
        *_about(facts),
        "## Results",
        "",
        *results(facts.evaluations),
        *_training_result(facts.manifest),
        "## Data",
        "",
        *_data(facts),
        "## Training",
        "",
        *configuration(facts.manifest),
        *_changes(facts.manifest),
        *_merge(facts),
        "## Limits",
        "",
        *_limits(facts),
        "## How to recompute",
        *_commands(facts),
        "## Provenance",
        *_provenance(facts),
    ]
    return page(lines)


def _metadata(facts: ModelFacts) -> dict[str, Any]:
    base = base_name(facts.manifest)
    known = is_hub_id(base) and pick(facts.manifest, "base", "local") is not True
    whole = facts.kind != "adapter"
    index = model_index(facts.name, facts.evaluations)
    values: dict[str, Any] = {
        "base_model": base or None,
        "base_model_relation": ("finetune" if whole else "adapter") if known else None,
        "library_name": "transformers" if whole else "peft",
        "pipeline_tag": "text-generation",
        "tags": _tags(facts),
        "datasets": hub_sources(facts.data) or None,
        "model-index": index or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _tags(facts: ModelFacts) -> list[str]:
    if facts.kind == "model":
        return ["software-engineering"]
    dora = ["dora"] if _has(facts.manifest, "use_dora") else []
    merged = ["merged"] if facts.kind == "merged" else []
    return ["lora", *dora, "software-engineering", *merged]


def _adapter(manifest: Mapping[str, Any]) -> str:
    """Return what kind of adapter it is, with its article."""
    kind = "DoRA" if _has(manifest, "use_dora") else "LoRA"
    scale = " with rsLoRA's scale" if _has(manifest, "use_rslora") else ""
    return f"a {kind} adapter{scale}"


def _quantization(manifest: Mapping[str, Any]) -> str:
    """Return in what the base was quantised while the adapter was trained; empty if it was not."""
    found = wording(manifest, "config", "training", "quantization")
    return "" if found == "none" else found


def _has(manifest: Mapping[str, Any], key: str) -> bool:
    return pick(manifest, "config", "training", "lora", key) is True


def base_name(manifest: Mapping[str, Any]) -> str:
    """Return the base as the manifest names it: a hub id or a folder's last name."""
    return wording(manifest, "base", "name") or wording(manifest, "base_name")


def _about(facts: ModelFacts) -> list[str]:
    base = plain(base_name(facts.manifest)) or f"a base whose name is {MISSING}"
    adapter = _adapter(facts.manifest)
    what = {
        "adapter": f"{adapter[0].upper()}{adapter[1:]} for {base}.",
        "merged": f"The weights of {base}, with {adapter} merged into them.",
        "model": f"The weights of {base}, every one of them fine-tuned.",
    }[facts.kind]
    if bits := _quantization(facts.manifest):
        what += f" It was trained with the base in 4 bits ({plain(bits)})."
    found = branch(facts.manifest, "counts")
    trained, tokens, held = (amount(found.get(k)) for k in ("trained", "target_tokens", "held_out"))
    steps = amount(pick(facts.manifest, "result", "steps"))
    how = (
        f"Trained on {trained} rows ({tokens} response tokens) for {steps} optimizer steps; {held} "
        "rows were held out."
    )
    return [
        what,
        "",
        how if found else f"How many rows were trained, and for how many steps: {MISSING}.",
        "",
        "This card was written from manifests; nothing in it was typed by hand. Intended use: "
        "research on software-engineering models. What is not measured below is not known.",
        "",
        "License: not recorded. The licences of the base model and of the training data apply, and "
        "neither is known to this card.",
        "",
    ]


def _training_result(manifest: Mapping[str, Any]) -> list[str]:
    held_out = finite(pick(manifest, "result", "eval_nll"))
    loss = finite(pick(manifest, "result", "train_loss"))
    lines = table(
        ["in training", "value"],
        [
            ["training loss, nats per response token", MISSING if loss is None else f"{loss:.4f}"],
            ["hold-out NLL per token", "not evaluated" if held_out is None else f"{held_out:.4f}"],
        ],
    )
    return [*lines, "These two are points without an interval.", ""]


def _data(facts: ModelFacts) -> list[str]:
    lines = ["The run's rows:", *ledger(facts.manifest)]
    if not facts.data:
        return [
            *lines,
            "No manifest of a build was found for this training file: its sources, what was left",
            "out of it and its licence are not recorded here.",
            "",
        ]
    sources = shortened([plain(name) for name in texts(facts.data.get("sources"))])
    return [
        *lines,
        f"The file was built from: {sources}.",
        *data_ledger(facts.data),
        "`DATA_CARD.md` says more.",
        "",
    ]


def _changes(manifest: Mapping[str, Any]) -> list[str]:
    found = manifest.get("changes")
    changes = [change for change in found or () if isinstance(change, Mapping)]
    if not changes:
        return []
    rows = [
        [amount(change.get("step")), *(plain(change.get(key)) for key in ("key", "was", "is"))]
        for change in changes
    ]
    return ["Changed while the run was under way:", *table(["after step", "", "was", "is"], rows)]


def _merge(facts: ModelFacts) -> list[str]:
    if facts.kind != "merged":
        return []
    proof = branch(facts.merge, "proof")
    rows = [
        ["stored as", shortened([plain(name) for name in texts(facts.merge.get("dtypes"))])],
        ["tensors compared", amount(proof.get("weights_compared"))],
        ["of these with an adapter", amount(proof.get("weights_merged"))],
        [
            "rows, supervised positions",
            f"{amount(proof.get('rows'))}, {amount(proof.get('positions'))}",
        ],
        ["largest difference of a logit", _share(proof, "difference", "tolerance")],
        ["its root mean square", _share(proof, "difference_rms", "tolerance_rms")],
        ["root mean square of what the adapter changes", _share(proof, "effect_rms")],
        ["largest difference of a row, nats per token", _number(proof, "nll_difference")],
        ["same most likely token", _number(proof, "argmax_agreement")],
    ]
    lines = [
        "## Merge",
        "",
        f"The files were written, read again, and compared with base + adapter on rows of "
        f"{told(facts.merge, 'rows', 'name')}: every weight, and the logits. Differences of logits "
        "are shares of the largest logit.",
        *table(["", ""], rows),
    ]
    return [*lines, *(f"- {plain(note)}" for note in texts(facts.merge.get("notes"))), ""]


def _number(proof: Mapping[str, Any], key: str) -> str:
    value = finite(proof.get(key))
    return MISSING if value is None else point(value)


def _share(proof: Mapping[str, Any], key: str, allowed: str = "") -> str:
    text = _number(proof, key)
    return f"{text} ({_number(proof, allowed)} allowed)" if allowed else text


def _limits(facts: ModelFacts) -> list[str]:
    seed = pick(facts.manifest, "config", "training", "seed")
    lines = [
        "- Likelihoods only: how many issues this model resolves was not measured.",
        f"- One run with one seed ({amount(seed)}): what another seed would give is not known.",
        "- Generated code was not run; review it before use.",
    ]
    if not facts.evaluations:
        lines.append("- No evaluation with intervals is on record.")
    if facts.other_evaluations:
        lines.append(
            f"- Evaluations of other weights in the run folder, left out here: "
            f"{facts.other_evaluations}."
        )
    return [*lines, *(f"- {text}" for text in weak_points(facts.evaluations)), ""]


def _commands(facts: ModelFacts) -> list[str]:
    data = wording(facts.manifest, "data", "name") or "ROWS.jsonl"
    test = wording(facts.manifest, "holdout", "name") or data
    lines = []
    if sources := texts(facts.data.get("sources")):
        lines.append(
            command("swe-scaffold", "build", *_each("--dataset", sources), "--output", data)
        )
    flags = [] if facts.kind == "merged" else ["--compare-base"]
    lines += [
        command("swe-scaffold", "train", "CONFIG.json", data),
        command("swe-scaffold", "evaluate", facts.name, test, *flags),
    ]
    return [
        *fence(lines),
        "The whole configuration stands in `manifest.json`.",
        "",
    ]


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values[:20] for word in (option, value)]


def _provenance(facts: ModelFacts) -> list[str]:
    manifest, prints = facts.manifest, branch(facts.manifest, "fingerprint")
    packages = branch(manifest, "packages")
    weights = ("adapter SHA-256", pick(manifest, "files", "adapter_model.safetensors", "sha256"))
    if facts.kind == "model":
        weights = ("model SHA-256 (config and weights)", pick(manifest, "model", "sha256"))
    rows = [
        ["base SHA-256 (config and weights)", digest(prints.get("base"))],
        [weights[0], digest(weights[1])],
        ["tokenizer SHA-256", digest(prints.get("tokenizer"))],
        ["chat template SHA-256", digest(prints.get("template"))],
        ["data SHA-256", digest(prints.get("data"))],
        ["trained with", f"{told(manifest, 'tool')} {told(manifest, 'version')}"],
        ["revision", digest(manifest.get("git_revision"))],
        ["device", told(prints, "device")],
        ["packages", shortened([f"{plain(k)} {plain(v)}" for k, v in packages.items()])],
    ]
    return [
        *table(["", ""], rows),
        "`manifest.json` holds the hash of every file.",
        "",
    ]
