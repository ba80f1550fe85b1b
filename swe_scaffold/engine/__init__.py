"""The only room full of torch: models, adapters, the loss, steps, checkpoints, scores.

- `devices.py`: which device and dtype, memory used, out-of-memory as an error for people.
- `model.py`: base weights from safetensors only, every tensor accounted for.
- `model_files.py`: what is looked at before a model is loaded.
- `quantization.py`: a base in 4 bits, compared with what is stored.
- `saving.py`: a whole model in a folder, as transformers stores it.
- `read_ahead.py`: the base's files hashed beside other work, without torch.
- `adapter.py`: LoRA adapters on and off a base, as standard PEFT folders.
- `adapter_config.py`: an adapter's own config, read as data.
- `loading.py`: from a model's reference to base and adapter, loaded.
- `merging.py`: an adapter added to its base's weights, files to files.
- `equality.py`: proof that a merged model is base + adapter.
- `loss.py`: the negative log-likelihood of the supervised positions, and nothing else.
- `attention.py`: rows in one stream, each attending to itself alone.
- `batches.py`: rows to padded tensors or a stream, and the order of rows over a run.
- `loop.py`: one optimizer step over fixed rows, and the loop around it.
- `checkpoint.py`: everything a run needs to go on bit-identically, without pickles.
- `scoring.py`: the likelihood of examples under a model.
- `sampling.py`: how tokens are chosen, without torch.
- `generation.py`: answers of a model, greedy or sampled, in batches that change nothing.
- `probe.py`: what a run will need and how the base would begin, measured before it.
- `tiny.py`: a Qwen2 of about a million parameters, for machines without weights or network.
"""
