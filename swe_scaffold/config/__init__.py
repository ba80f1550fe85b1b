"""The configuration: strict dataclasses, one loader, one writer.

- `keys.py`: every key with its type, range, default and explanation.
- `describing.py`: keys in words, for the docs and for errors.
- `loading.py`: defaults < file < `--set key.path=value` < flags, checked strictly.

`configs/speedrun.json` is checked equal to the defaults. Nothing here imports torch.
"""

from __future__ import annotations

from swe_scaffold.config.describing import describe_config
from swe_scaffold.config.keys import (
    ClusterBy,
    DatasetConfig,
    Dtype,
    EvaluationConfig,
    Finetuning,
    IndexStageName,
    LoRAConfig,
    PatchFault,
    QualityConfig,
    Quantization,
    RowStageName,
    SaveStrategy,
    Scheduler,
    SpeedrunConfig,
    SplitBy,
    StageName,
    TrainingConfig,
    dump_config,
)
from swe_scaffold.config.loading import check_config, config_origins, load_config

__all__ = [
    "ClusterBy",
    "DatasetConfig",
    "Dtype",
    "EvaluationConfig",
    "Finetuning",
    "IndexStageName",
    "LoRAConfig",
    "PatchFault",
    "QualityConfig",
    "Quantization",
    "RowStageName",
    "SaveStrategy",
    "Scheduler",
    "SpeedrunConfig",
    "SplitBy",
    "StageName",
    "TrainingConfig",
    "check_config",
    "config_origins",
    "describe_config",
    "dump_config",
    "load_config",
]
