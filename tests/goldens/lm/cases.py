"""The cases of make.py: families, dtypes and quantizations."""

VOCAB = 320

BASE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCAB,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def config(model_type, **other):
    return {"model_type": model_type} | BASE | other


FAMILIES = {
    "llama": dict(config=config("llama", architectures=["LlamaForCausalLM"])),
    "qwen3": dict(config=config("qwen3", head_dim=32, architectures=["Qwen3ForCausalLM"])),
    "gemma2": dict(config=config("gemma2", head_dim=16, query_pre_attn_scalar=16, attn_logit_softcapping=2.0,
                                 final_logit_softcapping=3.0, tie_word_embeddings=True,
                                 architectures=["Gemma2ForCausalLM"]), norm=0),
}

CASES = {}
for _index, (_name, _family) in enumerate(FAMILIES.items()):
    CASES[f"{_name}-f32"] = _family | {"dtype": "f32"}
    _dtype = ("f32", "bf16")[_index % 2]
    CASES[f"{_name}-4bit-{_dtype}"] = _family | {"dtype": _dtype, "quant": {"bits": 4, "group_size": 64}}
