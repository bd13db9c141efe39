#!/usr/bin/env python3
"""Makes tests/goldens/mlx_lm: small models that mlx_lm itself wrote, and what mlx_lm says of each.

    python3 -m venv /some/venv && /some/venv/bin/pip install -r tests/goldens/requirements.txt
    /some/venv/bin/python tests/goldens/make_mlx_lm.py [CASE ...]

A case is a directory: `config.json`, index, README and adapter configuration as mlx_lm wrote them, each weight file cut
to its header (`NAME.header`: the first 8 + n bytes), and `expected.json`. Every number in `expected.json` comes from the
live model that mlx_lm loads from the directory, before it is cut, or from the model that was quantized. No weight is
kept, and the same run gives the same bytes.
"""
import json
import os
import shutil
import sys
import tempfile
import types
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.fuse
import mlx_lm.lora
import mlx_lm.utils
from mlx.utils import tree_flatten
from mlx_lm.convert import QUANT_RECIPES, convert
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

OUT = Path(__file__).resolve().parent / "mlx_lm"
KEPT = ("config.json", "adapter_config.json", "README.md", "model.safetensors.index.json")
ROUTERS = ("gate", "router", "shared_expert_gate")
SHORT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}

BASE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 320,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
FAMILIES = {
    "llama": {"architectures": ["LlamaForCausalLM"]},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"]},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "head_dim": 128},
    "qwen3_moe": MOE | {"architectures": ["Qwen3MoeForCausalLM"], "head_dim": 64, "decoder_sparse_step": 1,
                        "mlp_only_layers": [], "norm_topk_prob": True},
    "mixtral": {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma2": {"architectures": ["Gemma2ForCausalLM"], "head_dim": 128, "tie_word_embeddings": True},
    "gemma3_text": {"architectures": ["Gemma3ForCausalLM"], "head_dim": 128, "sliding_window_pattern": 2},
    "phi3": {"architectures": ["Phi3ForCausalLM"]},
    "deepseek_v3": {"architectures": ["DeepseekV3ForCausalLM"], "moe_intermediate_size": 128, "n_shared_experts": 1,
                    "n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 1,
                    "topk_group": 1, "q_lora_rank": 192, "kv_lora_rank": 128, "qk_rope_head_dim": 32,
                    "qk_nope_head_dim": 64, "v_head_dim": 64, "num_key_value_heads": 4, "num_hidden_layers": 2},
    "gpt_oss": {"architectures": ["GptOssForCausalLM"], "head_dim": 64, "num_local_experts": 4,
                "num_experts_per_tok": 2, "sliding_window": 128, "num_hidden_layers": 2,
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                                 "original_max_position_embeddings": 4096}},
}


class Bytes(int):
    """A shard limit in bytes where mlx_lm counts in GB."""

    def __lshift__(self, _):
        return int(self)


def tokenizer():
    vocab = {word: n for n, word in enumerate(["<unk>", "<s>", "</s>", *map(chr, range(97, 123))])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def source(path, family, dtype="bfloat16", shard=None, **over):
    """A random model of a family, saved by mlx_lm."""
    config = {"model_type": family} | BASE | FAMILIES[family] | over
    config["torch_dtype"] = dtype
    mx.random.seed(7)
    model_class, args_class = mlx_lm.utils._get_classes(config)
    model = model_class(args_class.from_dict(config))
    keep = getattr(model, "cast_predicate", lambda _: True)
    model.update(mlx_tree_cast(model.parameters(), getattr(mx, dtype), keep))
    if config["tie_word_embeddings"] and "lm_head" in model:
        model.pop("lm_head")
    sharded(shard, lambda: mlx_lm.utils.save(path, path.parent, model, tokenizer(), config, donate_model=False))
    return path


def mlx_tree_cast(tree, dtype, keep):
    from mlx.utils import tree_map_with_path

    return tree_map_with_path(
        lambda k, v: v.astype(dtype) if keep(k) and mx.issubdtype(v.dtype, mx.floating) else v, tree
    )


def sharded(limit, work):
    real = mlx_lm.utils.make_shards
    if limit:
        mlx_lm.utils.make_shards = lambda weights: real(weights, Bytes(limit))
    try:
        return work()
    finally:
        mlx_lm.utils.make_shards = real


def live(path, adapter=None):
    model, config = mlx_lm.utils.load_model(path)
    if adapter:
        model = mlx_lm.utils.load_adapters(model, str(adapter))
    return model, config


def count(model):
    return sum(array.size for _, array in tree_flatten(model.parameters()))


def is_router(path):
    return path.rsplit(".", 1)[-1] in ROUTERS


def label_of(parts):
    parts = sorted(set(parts), key=lambda part: (part[1] if part[0] == "affine" else 0, part))
    words = [f"{bits}bit" if mode == "affine" else mode for mode, bits in parts]
    if len(words) < 2:
        return words[0] if words else None
    if all(mode == "affine" for mode, _ in parts):
        return f"mixed-{'-'.join(str(bits) for _, bits in parts)}bit"
    return f"mixed-{'-'.join(words)}"


def describe(path, true_count):
    """What mlx_lm's own objects say of the model in `path`."""
    model, config = live(path)
    schemes, elements, scales, plain = {}, Counter(), Counter(), Counter()
    quantized = set()
    for name, module in model.named_modules():
        if not (hasattr(module, "bits") and hasattr(module, "scales")):
            continue
        scheme = f"{module.mode} {module.bits} {module.group_size}"
        schemes.setdefault(scheme, []).append(name)
        elements[scheme] += module.weight.size * 32 // module.bits
        quantized |= {f"{name}.{part}" for part in ("weight", "scales", "biases", "global_scale")}
        if mx.issubdtype(module.scales.dtype, mx.floating):
            scales[str(module.scales.dtype).removeprefix("mlx.core.")] += module.scales.size
    for name, array in tree_flatten(model.parameters()):
        if name not in quantized and mx.issubdtype(array.dtype, mx.floating):
            plain[str(array.dtype).removeprefix("mlx.core.")] += array.size
    args = model.args
    told = {
        "model_type": config["model_type"],
        "parameters": true_count,
        "precision": SHORT[(scales or plain).most_common(1)[0][0]],
        "architecture": {
            "layers": len(model.layers),
            "hidden_size": args.hidden_size,
            "attention_heads": args.num_attention_heads,
            "key_value_heads": args.num_key_value_heads,
            "vocabulary_size": args.vocab_size,
            "context_length": config["max_position_embeddings"],
            "experts": next((getattr(args, key) for key in ("num_experts", "num_local_experts", "n_routed_experts")
                             if getattr(args, key, None)), None),
            "experts_per_token": getattr(args, "num_experts_per_tok", None),
        },
    }
    if schemes:
        main = elements.most_common(1)[0][0]
        mode, bits, group = main.split()
        of = lambda routers: [(s.split()[0], int(s.split()[1])) for s, names in schemes.items()
                              for name in names if routers or not is_router(name)]
        told |= {
            "label": label_of(of(False)) or label_of(of(True)),
            "bits": int(bits),
            "group_size": int(group),
            "mode": mode,
            "overrides": sum(len(names) for scheme, names in schemes.items() if scheme != main),
            "bits_per_weight": round(mlx_lm.utils.compute_bits_per_weight(model), 4),
            "schemes": {scheme: sorted(names) for scheme, names in sorted(schemes.items())},
        }
    else:
        told["label"] = SHORT[plain.most_common(1)[0][0]]
    return told


def keep(case, path, told):
    """Cuts the directory to what a test needs."""
    out = OUT / case
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    told["files"] = {}
    for file in sorted(path.iterdir()):
        if file.suffix == ".safetensors":
            data = file.read_bytes()
            (out / f"{file.name}.header").write_bytes(data[: 8 + int.from_bytes(data[:8], "little")])
            told["files"][file.name] = len(data)
        elif file.name in KEPT:
            shutil.copy(file, out)
    (out / "expected.json").write_text(json.dumps(told, indent=1) + "\n")


CASES = {}


def case(name, family, *, predicate=None, load_with=None, over={}, **quant):
    """A case that mlx_lm.convert makes from a random model; without `bits` or `mode` it is not quantized."""
    dtype, shard = quant.pop("dtype", "bfloat16"), quant.pop("shard", None)
    scale = quant.pop("global_scale", False)

    def make(work):
        base = source(work / "base", family, dtype, None if quant else shard, **over)
        if not quant:
            return keep(name, base, describe(base, count(live(base)[0])))
        out = work / "out"
        if scale:
            # mlx_lm.convert has no option for it yet.
            model, config = live(base)
            model, config = mlx_lm.utils.quantize_model(
                model, config, quant.get("group"), quant.get("bits"), quant["mode"], global_scale=True)
            mlx_lm.utils.save(out, base, model, tokenizer(), config)
        else:
            sharded(shard, lambda: convert(
                str(base), str(out), quantize=True, q_bits=quant.get("bits"), q_group_size=quant.get("group"),
                q_mode=quant.get("mode", "affine"), quant_predicate=predicate))
        keep(name, out, describe(out, count(live(base)[0])))

    CASES[name] = make


DTYPES = ["bfloat16", "float16", "float32"]
for at, (bits, group) in enumerate((b, g) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128)):
    case(f"llama-{bits}bit-g{group}", "llama", bits=bits, group=group, dtype=DTYPES[at % 3],
         over={"tie_word_embeddings": at % 4 == 0})
for mode in ("mxfp4", "mxfp8", "nvfp4"):
    case(f"llama-{mode}", "llama", mode=mode)
for recipe in QUANT_RECIPES:
    # Two thirds of the layers' parts stay coarse; the recipe needs eight layers to have all its cases.
    case(f"llama-{recipe}", "llama", predicate=recipe, bits=4, group=64, over={"num_hidden_layers": 8,
         "hidden_size": 128, "intermediate_size": 128})
case("deepseek_v3-mixed_4_6-g32", "deepseek_v3", predicate="mixed_4_6", bits=4, group=32)
for family in FAMILIES:
    if family != "llama":
        case(f"{family}-4bit", family, bits=4, group=64)
case("qwen3-8bit-tied", "qwen3", bits=8, group=64, over={"tie_word_embeddings": True})
case("gemma3_text-6bit-tied", "gemma3_text", bits=6, group=64, over={"tie_word_embeddings": True})
case("qwen3_moe-3bit", "qwen3_moe", bits=3, group=64)
case("qwen3_moe-mxfp4", "qwen3_moe", mode="mxfp4")
case("qwen3_moe-nvfp4-global-scale", "qwen3_moe", mode="nvfp4", global_scale=True)
case("gpt_oss-mxfp4", "gpt_oss", mode="mxfp4")
case("deepseek_v3-mxfp8", "deepseek_v3", mode="mxfp8")
case("phi3-2bit-g128", "phi3", bits=2, group=128, dtype="float16")
# Per layer, as a user's own predicate does it.
case("llama-4-8bit", "llama", bits=4, group=64, over={"num_hidden_layers": 2},
     predicate=lambda path, _: {"bits": 8, "group_size": 64} if path == "lm_head" or ".0.mlp" in path else True)
# The same shapes of scales for both: 8 bits in groups of 32, 4 bits in groups of 64.
case("qwen2-4-8bit-two-groups", "qwen2", bits=4, group=64, over={"num_hidden_layers": 2},
     predicate=lambda path, _: {"bits": 8, "group_size": 32} if "o_proj" in path or "down_proj" in path else True)
case("llama-4bit-plain-ends", "llama", bits=4, group=64,
     predicate=lambda path, _: "embed_tokens" not in path and "lm_head" not in path)
case("llama-mxfp4-8bit-ends", "llama", mode="mxfp4",
     predicate=lambda path, _: {"bits": 8, "group_size": 64, "mode": "affine"} if "lm_head" in path else True)
case("llama-4bit-sharded", "llama", bits=4, group=64, shard=150_000, over={"num_hidden_layers": 2})
case("qwen3-bf16-sharded", "qwen3", shard=700_000)
case("llama-f32", "llama", dtype="float32", over={"tie_word_embeddings": True})
case("phi3-f16", "phi3", dtype="float16")
case("deepseek_v3-bf16", "deepseek_v3")


def dequantized(work):
    base = source(work / "base", "qwen2", "float16")
    convert(str(base), str(work / "quantized"), quantize=True, q_bits=4, q_group_size=64)
    convert(str(work / "quantized"), str(work / "out"), dequantize=True)
    keep("qwen2-dequantized", work / "out", describe(work / "out", count(live(base)[0])))


CASES["qwen2-dequantized"] = dequantized


def tuned(name, *, kind, then=None, bits=4, keys=None):
    """A case that mlx_lm.lora trained for two steps and, with `then`, mlx_lm.fuse fused."""

    def make(work):
        base = source(work / "base", "llama", "bfloat16", num_hidden_layers=2)
        if bits:
            convert(str(base), str(work / "model"), quantize=True, q_bits=bits, q_group_size=64)
        else:
            shutil.copytree(base, work / "model")
        (work / "data").mkdir()
        lines = "".join(json.dumps({"text": "the quick brown fox"}) + "\n" for _ in range(4))
        for part in ("train", "valid", "test"):
            (work / "data" / f"{part}.jsonl").write_text(lines)
        settings = dict(mlx_lm.lora.CONFIG_DEFAULTS)
        parameters = {"rank": 4, "dropout": 0.0, "scale": 10.0}
        if keys:
            parameters["keys"] = keys
        settings |= {"model": "model", "train": True, "data": "data", "fine_tune_type": kind, "num_layers": 1,
                     "batch_size": 1, "iters": 2, "val_batches": 1, "adapter_path": "adapters",
                     "lora_parameters": parameters, "config": None}
        # The adapter's configuration keeps the paths as they were given.
        before = os.getcwd()
        os.chdir(work)
        try:
            mlx_lm.lora.run(types.SimpleNamespace(**settings))
            if then is not None:
                sys.argv = ["fuse", "--model", "model", "--adapter-path", "adapters", "--save-path", "fused", *then]
                mlx_lm.fuse.main()
        finally:
            os.chdir(before)
        if then is not None:
            return keep(name, work / "fused", describe(work / "fused", count(live(base)[0])))
        adapter = work / "adapters"
        for extra in adapter.glob("0*_adapters.safetensors"):
            extra.unlink()
        model, _ = live(work / "model", adapter)
        inside = {n.split(".", 3)[3] for n, m in model.named_modules() if "lora_a" in m and ".layers." in n}
        told = {
            "parameters": sum(array.size for array in mx.load(str(adapter / "adapters.safetensors")).values()),
            "adapter": {"method": kind, "rank": None if kind == "full" else 4,
                        "scale": None if kind == "full" else 10.0, "keys": sorted(inside), "base": "model"},
        }
        keep(name, adapter, told)

    CASES[name] = make


tuned("adapter-lora", kind="lora")
tuned("adapter-lora-keys", kind="lora", keys=["self_attn.q_proj", "self_attn.v_proj"])
tuned("adapter-dora", kind="dora")
tuned("adapter-full", kind="full", bits=None)
tuned("fused-4bit", kind="lora", then=[])
tuned("fused-dequantized", kind="lora", then=["--dequantize"])


def main():
    wanted = sys.argv[1:] or list(CASES)
    if not sys.argv[1:]:
        shutil.rmtree(OUT, ignore_errors=True)
    for name in wanted:
        with tempfile.TemporaryDirectory() as work:
            CASES[name](Path(work))
        print(f"{name}: {sum(file.stat().st_size for file in (OUT / name).iterdir())} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
