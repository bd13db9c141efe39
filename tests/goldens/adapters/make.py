#!/usr/bin/env python3
"""Makes tests/goldens/adapters: adapters over the tiny decoders of tests/goldens/lm, and what mlx_lm computes with both.

    python3 -m venv /some/venv && /some/venv/bin/pip install -r tests/goldens/requirements.txt
    /some/venv/bin/python tests/goldens/adapters/make.py [CASE ...]

A case is one JSON file of the form that tests/goldens/lm/make.py describes, with `base`, the case there that the adapter
is for. `config` is the whole adapter_config.json, and `tensors` are the adapter's.
"""
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

OUT = Path(__file__).resolve().parent
LM = OUT.parent / "lm"
spec = importlib.util.spec_from_file_location("lm_make", LM / "make.py")
lm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lm)

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

LAYER = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]
ENDS = ["model.embed_tokens", "lm_head"]
CASES = {
    "lora": ("llama-f32", "lora", LAYER + ["lm_head"]),
    "lora-4bit": ("llama-4bit-f32", "lora", LAYER),
    "lora-bias": ("llama-attention-bias-4bit-f32", "lora", LAYER),
    "lora-embedding": ("llama-f32", "lora", ENDS),
    "lora-embedding-tied": ("llama-tied-f32", "lora", ENDS[:1]),
    "lora-embedding-tied-4bit": ("llama-tied-4bit-f32", "lora", ENDS[:1] + LAYER),
    "dora": ("llama-f32", "dora", LAYER + ["lm_head"]),
    "dora-4bit": ("llama-4bit-f32", "dora", LAYER),
    "dora-bias": ("llama-attention-bias-4bit-f32", "dora", LAYER),
    "dora-embedding": ("llama-f32", "dora", ENDS),
    "dora-embedding-tied": ("llama-tied-f32", "dora", ENDS[:1]),
    # One that says nothing of its magnitudes: they are the base's.
    "dora-without-magnitudes": ("llama-f32", "dora", LAYER),
}


def base_of(name):
    golden = json.loads((LM / f"{name}.json").read_text())
    model, config, tensors = lm.build(lm.CASES[name])
    lm.load(model, lm.CASES[name], lm.to_mlx(lm.fill(golden["seed"], tensors), tensors))
    return model, config


def make(name):
    base, kind, keys = CASES[name]
    model, _ = base_of(base)
    layers = len(model.layers)
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": keys}
    config = {"fine_tune_type": kind, "lora_parameters": parameters, "model": f"acme/{base}", "num_layers": layers}
    linear_to_lora_layers(model, layers, parameters, use_dora=kind == "dora")
    tensors = {}
    for path, array in sorted(tree_flatten(model.parameters())):
        leaf = path.rsplit(".", 1)[-1]
        if leaf in ("lora_a", "lora_b"):
            tensors[path] = ["F32", list(array.shape), 0, 0.3]
        elif leaf == "m" and name != "dora-without-magnitudes":
            tensors[path] = ["F32", list(array.shape), 1, 0.25]
    best, least = None, 0.0
    for seed in range(1, lm.SEEDS + 1):
        arrays = lm.fill(seed, tensors)
        model, _ = base_of(base)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "adapter_config.json").write_text(json.dumps(config))
            mx.save_safetensors(f"{folder}/adapters.safetensors", dict(lm.to_mlx(arrays, tensors)))
            model = load_adapters(model, folder)
            model.eval()
            found = lm.answer(model, least)
        if found is None:
            continue
        best, least = (seed, found, lm.digest(arrays)), found[0]
        if least >= lm.MARGIN:
            break
    if best is None:
        raise ValueError(f"{name}: no seed gives varied tokens")
    seed, (margin, answers), sha = best
    golden = {"base": base, "seed": seed, "margin": lm.short(margin), "digest": sha, "config": config,
              "answers": answers}
    lines = [f'"{key}": {json.dumps(value)}' for key, value in golden.items()]
    rows = ",\n".join(f"{json.dumps(path)}: {json.dumps(row)}" for path, row in tensors.items())
    (OUT / f"{name}.json").write_text("{\n" + ",\n".join(lines) + ',\n"tensors": {\n' + rows + "\n}\n}\n")
    print(f"{name}: seed {seed}, margin {margin:.3f}", flush=True)


for case in sys.argv[1:] or CASES:
    make(case)
