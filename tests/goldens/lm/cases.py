"""The cases of make.py: families, dtypes and quantizations.

A family is a dict: its `config`; `norm`, the mean of its norms' weights (0 where mlx_lm adds 1 to them); `spans`, A and B
for tensors whose name ends in the key; `tied`, where mlx_lm learns only from the weights that the head is tied. Sliding
windows are shorter than the prompt, and original context lengths shorter than what is decoded, so that both matter.

Not among them: olmo, of which mlx_lm's own model fails (it adds the mask's name to the scores, and returns a pair);
phi3small, on which MLX crashes; and experts in a half that are not quantized, which MLX has no kernel for on a CPU.
"""

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
}
TOKENS = {"bos_token_id": 0, "eos_token_id": 1}
SLIDING = ["sliding_attention", "full_attention"]
YARN = {"factor": 4.0, "original_max_position_embeddings": 256, "beta_fast": 8.0, "beta_slow": 1.0}
YARN_LLAMA4 = YARN | {"original_max_position_embeddings": 16, "rope_theta": 10000.0, "rope_type": "yarn", "mscale": 1.0,
                      "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}
DEEPSEEK_YARN = YARN | {"type": "yarn", "mscale": 1.0, "mscale_all_dim": 0.5}
LONGROPE = {
    "original_max_position_embeddings": 16,
    "short_factor": [1.0] * 8,
    "long_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.1, 3.8],
}
MLA = {
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "kv_lora_rank": 64,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 64,
    "v_head_dim": 64,
}
ROUTED = {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
}
GROUPS = {"n_group": 4, "topk_group": 2}
BIAS = {"e_score_correction_bias": [0, 0.2], "expert_bias": [0, 0.2]}


def family(model_type, drop=(), norm=1, spans=None, tied=False, **other):
    config = {"model_type": model_type} | BASE | other | TOKENS
    return {"config": {k: v for k, v in config.items() if k not in drop}, "norm": norm, "spans": spans or {}, "tied": tied}


GPT = tuple(k for k in BASE if k != "vocab_size")
TEXT = BASE | TOKENS
GRANITE = dict(logits_scaling=2.0, attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.6,
               attention_bias=False, mlp_bias=False, tie_word_embeddings=True)
GEMMA2 = dict(head_dim=16, query_pre_attn_scalar=16, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
              tie_word_embeddings=True)
GEMMA3 = dict(head_dim=16, query_pre_attn_scalar=24, sliding_window=8, sliding_window_pattern=3, num_hidden_layers=4,
              rope_theta=1000000.0, rope_local_base_freq=10000.0)

# Each as `NAME-f32` and as `NAME-4bit-…`.
FAMILIES = {
    "llama": family("llama"),
    "qwen3": family("qwen3", head_dim=32),
    "gemma2": family("gemma2", norm=0, **GEMMA2),
    "mistral": family("mistral", sliding_window=8, num_hidden_layers=2),
    "qwen2": family("qwen2", rope_theta=1000000.0, tie_word_embeddings=True),
    "qwen2_moe": family("qwen2_moe", num_experts=8, num_experts_per_tok=3, moe_intermediate_size=64,
                        shared_expert_intermediate_size=128),
    "qwen3_moe": family("qwen3_moe", head_dim=32, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64,
                        decoder_sparse_step=2, num_hidden_layers=4, mlp_only_layers=[1], norm_topk_prob=True),
    "phi3": family("phi3"),
    "gemma": family("gemma", norm=0, head_dim=32, num_key_value_heads=1, tie_word_embeddings=True),
    "gemma3_text": family("gemma3_text", norm=0, tied=True, **GEMMA3),
    "mixtral": family("mixtral", num_local_experts=4, num_experts_per_tok=2),
    "olmo2": family("olmo2"),
    "starcoder2": family("starcoder2", norm_epsilon=1e-5, tie_word_embeddings=True, drop=("rms_norm_eps",)),
    "cohere": family("cohere", layer_norm_eps=1e-5, logit_scale=0.25, use_qk_norm=True, drop=("rms_norm_eps",)),
    "cohere2": family("cohere2", layer_norm_eps=1e-5, logit_scale=0.25, head_dim=16, sliding_window=8,
                      sliding_window_pattern=3, num_hidden_layers=4, drop=("rms_norm_eps",)),
    "granite": family("granite", **GRANITE),
    "glm4": family("glm4", head_dim=32, attention_bias=True, partial_rotary_factor=0.5),
    "stablelm": family("stablelm", layer_norm_eps=1e-5, use_qkv_bias=True, partial_rotary_factor=0.25,
                       drop=("rms_norm_eps",)),
    "smollm3": family("smollm3", num_hidden_layers=4, no_rope_layer_interval=2, tie_word_embeddings=True),
    "phi": family("phi", layer_norm_eps=1e-5, partial_rotary_factor=0.5, drop=("rms_norm_eps",)),
    "internlm2": family("internlm2", bias=False),
    "gpt_oss": family("gpt_oss", head_dim=32, num_local_experts=4, num_experts_per_tok=2, sliding_window=8,
                      num_hidden_layers=3, layer_types=[*SLIDING, "sliding_attention"],
                      rope_scaling=YARN | {"rope_type": "yarn"}),
    "deepseek_v2": family("deepseek_v2", **MLA, **(ROUTED | GROUPS), topk_method="group_limited_greedy",
                          rope_scaling=DEEPSEEK_YARN),
    "deepseek_v3": family("deepseek_v3", spans=BIAS, **MLA, **(ROUTED | GROUPS), topk_method="noaux_tc",
                          rope_scaling=DEEPSEEK_YARN),
    "nemotron_nas": family("nemotron-nas", num_hidden_layers=4, block_configs=[
        {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.5}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 0.5}},
        {"attention": {"replace_with_linear": True}, "ffn": {"no_op": True}},
        {"attention": {"n_heads_in_group": 4}, "ffn": {"replace_with_linear": True}}],
        drop=("num_key_value_heads", "intermediate_size")),
    "olmoe": family("olmoe", num_experts=8, num_experts_per_tok=2),
    "glm": family("glm", head_dim=32, attention_bias=True),
    "granitemoe": family("granitemoe", num_local_experts=8, num_experts_per_tok=2, **GRANITE),
    "ernie4_5": family("ernie4_5", head_dim=16, use_bias=True, tie_word_embeddings=True),
    "ernie4_5_moe": family("ernie4_5_moe", head_dim=16, use_bias=False, tie_word_embeddings=True, moe_num_experts=8,
                           moe_layer_start_index=1, moe_intermediate_size=64, moe_k=2, moe_layer_interval=1,
                           moe_num_shared_experts=1, num_hidden_layers=3),
    "exaone": family("exaone", num_layers=2, layer_norm_epsilon=1e-5, drop=("num_hidden_layers", "rms_norm_eps")),
    "exaone4": family("exaone4", head_dim=32, sliding_window=8, sliding_window_pattern="LLG", num_hidden_layers=4,
                      rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                    "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
    "seed_oss": family("seed_oss", head_dim=32, attention_bias=True, attention_out_bias=False),
    "hunyuan_v1_dense": family("hunyuan_v1_dense", head_dim=32, use_qk_norm=True, tie_word_embeddings=True,
                               rope_scaling={"alpha": 1000.0, "factor": 1.0, "type": "dynamic"}),
    "helium": family("helium", head_dim=16, attention_bias=False, mlp_bias=False),
    "nemotron": family("nemotron", norm=0, norm_eps=1e-5, hidden_act="relu2", drop=("rms_norm_eps",)),
    "minicpm": family("minicpm", dim_model_base=32, scale_depth=1.4, scale_emb=12.0),
    "minicpm3": family("minicpm3", dim_model_base=32, scale_depth=1.4, scale_emb=12.0, q_lora_rank=64, kv_lora_rank=64,
                       qk_nope_head_dim=16, qk_rope_head_dim=16, num_key_value_heads=4,
                       rope_scaling=LONGROPE | {"type": "longrope"}),
    "gpt2": family("gpt2", n_ctx=256, n_embd=64, n_head=4, n_layer=2, n_positions=256, layer_norm_epsilon=1e-5, drop=GPT),
    "gpt_neox": family("gpt_neox", layer_norm_eps=1e-5, rotary_emb_base=10000, rotary_pct=0.25,
                       drop=("num_key_value_heads", "rms_norm_eps", "rope_theta")),
    "gpt_bigcode": family("gpt_bigcode", n_embd=64, n_layer=2, n_inner=256, n_head=4, n_positions=256,
                          layer_norm_epsilon=1e-5, drop=GPT),
    "gptj": family("gptj", n_embd=64, n_layer=2, n_head=4, n_positions=256, rotary_dim=8, layer_norm_epsilon=1e-5,
                   drop=GPT),
    "olmo3": family("olmo3", sliding_window=8, num_hidden_layers=3, layer_types=["sliding_attention", *SLIDING],
                    rope_scaling=YARN | {"rope_type": "yarn"}),
    "glm4_moe": family("glm4_moe", spans=BIAS, head_dim=32, num_hidden_layers=3, **(ROUTED | GROUPS), use_qk_norm=True,
                       attention_bias=True, partial_rotary_factor=0.5, rope_scaling=None),
    "dots1": family("dots1", spans=BIAS, head_dim=16, num_hidden_layers=3, **ROUTED, scoring_func="noaux_tc"),
    "bailing_moe": family("bailing_moe", spans=BIAS, num_experts=8, num_shared_experts=1, num_experts_per_tok=2,
                          moe_intermediate_size=64, norm_topk_prob=True, first_k_dense_replace=1,
                          num_hidden_layers=3, n_group=1, topk_group=1),
    "phimoe": family("phimoe", num_local_experts=4, num_experts_per_tok=2, original_max_position_embeddings=16,
                     rope_scaling=LONGROPE | {"type": "longrope", "short_mscale": 1.1, "long_mscale": 1.2}),
    "apertus": family("apertus", spans={".alpha_p": [0.2, 0.3], ".alpha_n": [-0.5, 0.5], ".beta": [0.5, 0.2],
                                        ".eps": [-0.000001, 0]},
                      mlp_bias=False, attention_bias=False, post_norm=False, qk_norm=True),
    "mimo": family("mimo", num_nextn_predict_layers=0),
    "ministral3": family("ministral3", head_dim=32, sliding_window=8, num_hidden_layers=3,
                         layer_types=["sliding_attention", *SLIDING],
                         rope_parameters=YARN_LLAMA4),
    "internlm3": family("internlm3", bias=False, qkv_bias=False),
    "telechat3": family("telechat3"),
    "openelm": family("openelm", head_dim=16, num_transformer_layers=2, model_dim=64, ffn_dim_divisor=64,
                      num_query_heads=[4, 8], num_kv_heads=[2, 4], ffn_multipliers=[1.0, 2.0],
                      rope_freq_constant=10000, drop=GPT),
    "qwen": family("qwen", kv_channels=16, layer_norm_epsilon=1e-5, no_bias=True,
                   drop=("num_key_value_heads", "rms_norm_eps", "rope_theta")),
    "baichuan_m1": family("baichuan_m1", sliding_window=8, sliding_window_layers=[1], conv_window=2),
    "dbrx": family("dbrx", d_model=64, n_layers=2, n_heads=4,
                   ffn_config={"ffn_hidden_size": 128, "moe_num_experts": 4, "moe_top_k": 2,
                               "moe_normalize_expert_weights": 1},
                   attn_config={"kv_n_heads": 2, "clip_qkv": 1.5, "rope_theta": 10000.0}, drop=GPT),
    "klear": family("Klear", spans=BIAS, attention_bias=False, mlp_only_layers=[0], num_experts=8, num_experts_per_tok=2,
                    decoder_sparse_step=1, n_shared_experts=1, moe_intermediate_size=64, norm_topk_prob=True),
    "afm7": family("afm7", hidden_dim=64, num_layers=4, num_kv_reuse_layers=2, num_heads=4, num_kv_heads=2,
                   hidden_dim_scale_factor=2.0, drop=GPT),
    "deepseek": family("deepseek", **{k: ROUTED[k] for k in ("n_routed_experts", "n_shared_experts",
                       "num_experts_per_tok", "moe_intermediate_size", "first_k_dense_replace")}),
    "minimax": family("minimax", spans=BIAS, num_local_experts=8, num_experts_per_tok=2, shared_intermediate_size=0,
                      rotary_dim=8, head_dim=16, use_qk_norm=True),
    "nanochat": family("nanochat", drop=("rms_norm_eps", "tie_word_embeddings")),
    "afmoe": family("afmoe", spans=BIAS, head_dim=16, num_hidden_layers=4, num_dense_layers=1, num_experts=8,
                    num_experts_per_tok=2, num_shared_experts=1, moe_intermediate_size=64, sliding_window=8,
                    layer_types=SLIDING * 2, n_group=1, topk_group=1),
    "exaone_moe": family("exaone_moe", spans=BIAS, head_dim=16, num_hidden_layers=3, num_experts=8,
                         num_experts_per_tok=2, num_shared_experts=1, moe_intermediate_size=64, sliding_window=8,
                         layer_types=["sliding_attention", *SLIDING], is_moe_layer=[False, True, True]),
    "solar_open": family("solar_open", spans=BIAS, head_dim=16, **ROUTED, partial_rotary_factor=1.0,
                         rope_scaling=YARN | {"type": "yarn"}),
    "youtu_llm": family("youtu_llm", **(MLA | {"num_hidden_layers": 2}), tie_word_embeddings=True),
    "glm4_moe_lite": family("glm4_moe_lite", spans=BIAS, **MLA, **ROUTED),
    "mellum": family("mellum", head_dim=16, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64,
                     norm_topk_prob=True, sliding_window=8, layer_types=SLIDING,
                     rope_parameters={"sliding_attention": {"rope_theta": 10000.0},
                                      "full_attention": YARN | {"rope_theta": 500000.0, "rope_type": "yarn"}}),
    "lille": family("lille-130m", block_size=256, layer_norm_eps=1e-5, n_embd=64, n_head=4, n_kv_heads=2, n_layer=2,
                    rope_theta=10000.0, drop=tuple(k for k in GPT if k != "rope_theta")),
    "nanbeige": family("nanbeige", num_loops=2),
    "plamo": family("plamo", n_shared_head=2, drop=("num_key_value_heads",)),
    "plamo3": family("plamo3", norm=0, head_dim=16, num_hidden_layers=4, sliding_window=8, sliding_window_pattern=3,
                     tie_word_embeddings=True),
    "mimo_v2_flash": family("mimo_v2_flash", spans=BIAS | {"attention_sink_bias": [0, 1.0]}, num_hidden_layers=3,
                            num_experts_per_tok=2, hybrid_layer_pattern=[0, 1, 1], moe_layer_freq=[0, 1, 1],
                            add_swa_attention_sink_bias=True, add_full_attention_sink_bias=False,
                            sliding_window_size=8, moe_intermediate_size=64, n_shared_experts=None, n_routed_experts=8,
                            routed_scaling_factor=None, topk_method="noaux_tc", scoring_func="sigmoid",
                            norm_topk_prob=True, n_group=1, topk_group=1, layernorm_epsilon=1e-5, swa_rope_theta=5000.0,
                            swa_num_attention_heads=4, swa_num_key_value_heads=4, head_dim=32, v_head_dim=16,
                            swa_head_dim=32, swa_v_head_dim=16, partial_rotary_factor=0.5),
    "mistral4": family("mistral4", **MLA, **ROUTED, rope_parameters=YARN_LLAMA4 | {"type": "yarn"}),
    "hunyuan": family("hunyuan", attention_bias=False, moe_topk=2, num_experts=4, num_shared_expert=1, num_hidden_layers=4,
                      use_mixed_mlp_moe=True, use_qk_norm=True, use_cla=True, cla_share_factor=2,
                      moe_intermediate_size=64, rope_scaling={"alpha": 1000.0, "factor": 1.0, "type": "dynamic"}),
    "llama4_text": family("llama4_text", head_dim=16, intermediate_size_mlp=128, no_rope_layers=[1, 0], use_qk_norm=True),
    "gemma3": family("gemma3", norm=0, text_config=TEXT | GEMMA3 | {"model_type": "gemma3_text"}, drop=GPT),
    "mistral3": family("mistral3", text_config=TEXT | {"model_type": "mistral", "head_dim": 32}, drop=tuple(BASE)),
    "iquestloopcoder": family("iquestloopcoder", head_dim=16, loop_num=2, loop_window_size=8),
    "step3p5": family("step3p5", num_attention_groups=2, head_dim=16, num_hidden_layers=3, sliding_window=8,
                      layer_types=["full_attention", *SLIDING], moe_num_experts=8, moe_top_k=2,
                      moe_intermediate_size=64, share_expert_dim=64, moe_layers_enum="1,2",
                      spans={"router_bias": [0, 0.2]}, swiglu_limits=[0, 0, 1.5], swiglu_limits_shared=[0, 1.5, 0],
                      partial_rotary_factors=[0.5, 1.0, 0.5],
                      attention_other_setting={"num_attention_heads": 8, "num_attention_groups": 2}),
    "gemma4_text": family("gemma4_text", head_dim=16, global_head_dim=32, vocab_size_per_layer_input=VOCAB,
                          num_kv_shared_layers=2, hidden_size_per_layer_input=64, sliding_window=8,
                          sliding_window_pattern=2, num_hidden_layers=6, final_logit_softcapping=3.0,
                          use_double_wide_mlp=True, tie_word_embeddings=True),
    "spark2_5": family("spark2_5", head_dim=16, sliding_window=8, layer_types=SLIDING, tie_word_embeddings=True,
                       rope_parameters={"sliding_attention": {"rope_theta": 10000.0},
                                        "full_attention": {"rope_theta": 500000.0, "partial_rotary_factor": 0.5}}),
    "talkie": family("talkie", head_dim=16),
    "muse_glimmer": family("muse_glimmer", norm=0, head_dim=16, sliding_window=8, num_hidden_layers=4,
                           output_multiplier=0.5, final_logit_softcapping=3.0),
    "longcat_flash": family("longcat_flash", attention_method="MLA", zero_expert_type="identity", ffn_hidden_size=128,
                            moe_topk=3, expert_ffn_hidden_size=64, n_routed_experts=8, zero_expert_num=4, num_layers=2,
                            **{k: v for k, v in MLA.items() if k not in ("num_hidden_layers", "num_key_value_heads")},
                            routed_scaling_factor=1.5, mla_scale_q_lora=True, mla_scale_kv_lora=True,
                            attention_bias=False, spans=BIAS,
                            drop=("intermediate_size", "num_hidden_layers", "num_key_value_heads")),
    "laguna": family("laguna", spans=BIAS, head_dim=16, num_hidden_layers=3, sliding_window=8, num_experts=8,
                     num_experts_per_tok=2, moe_intermediate_size=64, shared_expert_intermediate_size=64,
                     layer_types=["full_attention", *SLIDING], num_attention_heads_per_layer=[4, 8, 4],
                     moe_routed_scaling_factor=1.5,
                     rope_parameters={"sliding_attention": {"rope_theta": 10000.0},
                                      "full_attention": YARN | {"rope_theta": 500000.0, "rope_type": "yarn",
                                                                "partial_rotary_factor": 0.5}}),
}

# Each as `NAME-f32` alone.
VARIANTS = {
    "llama-tied": family("llama", tie_word_embeddings=True),
    "llama-attention-bias": family("llama", attention_bias=True),
    "llama-mlp-bias": family("llama", mlp_bias=True),
    "llama-head-dim": family("llama", head_dim=32),
    "llama-mqa": family("llama", num_key_value_heads=1),
    "llama-mha": family("llama", num_key_value_heads=4),
    "llama-traditional": family("llama", rope_traditional=True),
    "llama-sliding": family("llama", sliding_window=8, layer_types=SLIDING),
    "llama-linear": family("llama", rope_scaling={"type": "linear", "factor": 2.5}),
    "llama-llama3": family("llama", rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
    "llama-yarn": family("llama", rope_scaling=YARN | {"type": "yarn"}),
    "llama-yarn-mscale": family("llama", rope_scaling=YARN | {"type": "yarn", "mscale": 1.0, "mscale_all_dim": 0.5}),
    "llama-dynamic": family("llama", max_position_embeddings=16, rope_scaling={"type": "dynamic", "factor": 2.0}),
    "llama-longrope": family("llama", max_position_embeddings=64, rope_scaling=LONGROPE | {"rope_type": "longrope"}),
    "mistral-head-dim": family("mistral", head_dim=32, sliding_window=None),
    "mistral-sliding": family("mistral", sliding_window=8, num_hidden_layers=3, layer_types=["sliding_attention", *SLIDING]),
    "qwen2-untied": family("qwen2", tie_word_embeddings=False),
    "qwen2-yarn": family("qwen2", rope_scaling=YARN | {"type": "yarn"}),
    "qwen3-tied": family("qwen3", head_dim=16, tie_word_embeddings=True),
    "qwen3-rope-parameters": family("qwen3", head_dim=16, rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
                                    drop=("rope_theta",)),
    "qwen3_moe-plain": family("qwen3_moe", head_dim=16, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=64,
                              decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=False),
    "phi3-longrope": family("phi3", max_position_embeddings=64, original_max_position_embeddings=16,
                            rope_scaling=LONGROPE | {"type": "longrope"}),
    "phi3-su": family("phi3", max_position_embeddings=64, original_max_position_embeddings=16,
                      rope_scaling=LONGROPE | {"type": "su"}),
    "phi3-linear": family("phi3", rope_scaling={"type": "linear", "factor": 2.0, "long_factor": 1.0}),
    "phi3-partial": family("phi3", partial_rotary_factor=0.5, tie_word_embeddings=True),
    "gemma3_text-untied": family("gemma3_text", norm=0, **GEMMA3),
    "gemma3_text-linear": family("gemma3_text", norm=0, tied=True, **GEMMA3,
                                 rope_scaling={"rope_type": "linear", "factor": 8.0}),
    "mixtral-tied": family("mixtral", num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=True),
    "olmo2-tied": family("olmo2", tie_word_embeddings=True),
    "starcoder2-untied": family("starcoder2", norm_epsilon=1e-5, drop=("rms_norm_eps",)),
    "cohere-plain": family("cohere", layer_norm_eps=1e-5, logit_scale=0.25, drop=("rms_norm_eps",)),
    "cohere-bias": family("cohere", layer_norm_eps=1e-5, logit_scale=0.25, attention_bias=True, layer_norm_bias=True,
                          drop=("rms_norm_eps",)),
    "granite-untied": family("granite", **(GRANITE | {"attention_bias": True, "mlp_bias": True,
                                                      "tie_word_embeddings": False})),
    "stablelm-parallel": family("stablelm", layer_norm_eps=1e-5, use_qkv_bias=False, partial_rotary_factor=0.25,
                                use_parallel_residual=True, qk_layernorm=True, drop=("rms_norm_eps",)),
    "smollm3-layers": family("smollm3", no_rope_layers=[0, 1]),
    "internlm2-dynamic": family("internlm2", bias=True, max_position_embeddings=16,
                                rope_scaling={"type": "dynamic", "factor": 2.0}),
    "gpt_oss-plain-rope": family("gpt_oss", head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8),
    "deepseek_v2-lite": family("deepseek_v2", **(MLA | {"q_lora_rank": None}), **ROUTED, topk_method="greedy",
                               rope_scaling=DEEPSEEK_YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}),
    "deepseek_v3-plain": family("deepseek_v3", spans=BIAS, **(MLA | {"q_lora_rank": None}), **ROUTED),
    "olmoe-norm": family("olmoe", num_experts=8, num_experts_per_tok=2, norm_topk_prob=True),
    "exaone4-full": family("exaone4", head_dim=16, sliding_window=None, sliding_window_pattern=None, rope_scaling=None),
    "hunyuan_v1_dense-plain": family("hunyuan_v1_dense", use_qk_norm=False),
    "gpt_neox-serial": family("gpt_neox", layer_norm_eps=1e-5, rotary_emb_base=10000, rotary_pct=1.0,
                              use_parallel_residual=False, drop=("num_key_value_heads", "rms_norm_eps", "rope_theta")),
    "glm4_moe-plain": family("glm4_moe", spans=BIAS, head_dim=16, **ROUTED, use_qk_norm=False, attention_bias=False,
                             partial_rotary_factor=1.0, rope_scaling=None),
    "bailing_moe-groups": family("bailing_moe", spans=BIAS, num_experts=8, num_shared_experts=1, num_experts_per_tok=2,
                                 moe_intermediate_size=64, norm_topk_prob=True, first_k_dense_replace=0, use_qk_norm=True,
                                 n_group=4, topk_group=2, score_function="sigmoid", moe_router_enable_expert_bias=True,
                                 routed_scaling_factor=2.5, partial_rotary_factor=0.5, norm_head=True, use_bias=True),
    "internlm3-dynamic": family("internlm3", bias=True, qkv_bias=True, max_position_embeddings=16,
                                rope_scaling={"rope_type": "dynamic", "factor": 2.0}),
    "telechat3-yarn": family("telechat3", attention_bias=True, rope_scaling=YARN | {"type": "telechat3-yarn"}),
    "ministral3-plain": family("ministral3", head_dim=16, rope_parameters={
        "rope_theta": 10000.0, "rope_type": "default", "llama_4_scaling_beta": 0.0,
        "original_max_position_embeddings": 4096}),
    "seed_oss-bias": family("seed_oss", head_dim=16, attention_bias=True, attention_out_bias=True, mlp_bias=True),
}

QUANTS = {"4bit": {"bits": 4, "group_size": 64}}
DTYPES = ("f32", "bf16")
WIDE = family("llama", hidden_size=128, intermediate_size=256)
TIED = family("llama", tie_word_embeddings=True)
MIXED = [
    ("self_attn.v_proj", {"bits": 8, "group_size": 64, "mode": "affine"}),
    ("layers.0.mlp.down_proj", {"bits": 6, "group_size": 32, "mode": "affine"}),
    ("layers.1.mlp.down_proj", None),
    ("lm_head", {"bits": 8, "group_size": 32, "mode": "affine"}),
]

# mlx_lm's FusedLinear can't be quantized: `to_quantized` takes no mode.
PLAIN = {"afm7"}

CASES = {}
for _index, (_name, _family) in enumerate(FAMILIES.items()):
    CASES[f"{_name}-f32"] = _family | {"dtype": "f32"}
    if _name in PLAIN:
        continue
    _dtype = DTYPES[_index % 2]
    CASES[f"{_name}-4bit-{_dtype}"] = _family | {"dtype": _dtype, "quant": {"bits": 4, "group_size": 64}}
for _name, _family in VARIANTS.items():
    CASES[f"{_name}-f32"] = _family | {"dtype": "f32"}
for _index, (_bits, _group) in enumerate((b, g) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128)):
    _dtype = DTYPES[(_index + _index // 3) % 2]
    CASES[f"llama-{_bits}bit-g{_group}-{_dtype}"] = WIDE | {
        "dtype": _dtype, "quant": {"bits": _bits, "group_size": _group}}
for _mode in ("mxfp4", "mxfp8", "nvfp4"):
    for _dtype in DTYPES:
        CASES[f"llama-{_mode}-{_dtype}"] = FAMILIES["llama"] | {"dtype": _dtype, "quant": {"mode": _mode}}
CASES |= {
    "llama-bf16": FAMILIES["llama"] | {"dtype": "bf16"},
    "llama-f16": FAMILIES["llama"] | {"dtype": "f16"},
    "llama-4bit-f16": FAMILIES["llama"] | {"dtype": "f16", "quant": QUANTS["4bit"]},
    "llama-mixed-f32": FAMILIES["llama"] | {"dtype": "f32", "quant": QUANTS["4bit"] | {"layers": MIXED}},
    "llama-mixed-bf16": FAMILIES["llama"] | {"dtype": "bf16", "quant": QUANTS["4bit"] | {"layers": MIXED}},
    "llama-mxfp4-mixed-bf16": FAMILIES["llama"] | {"dtype": "bf16", "quant": {"mode": "mxfp4", "layers": [
        ("lm_head", {"bits": 8, "group_size": 64, "mode": "affine"}), ("embed_tokens", None)]}},
    "llama-tied-4bit-f32": TIED | {"dtype": "f32", "quant": QUANTS["4bit"]},
    "llama-tied-8bit-bf16": TIED | {"dtype": "bf16", "quant": {"bits": 8, "group_size": 64}},
    "llama-tied-mxfp4-f32": TIED | {"dtype": "f32", "quant": {"mode": "mxfp4"}},
    "llama-attention-bias-4bit-f32": VARIANTS["llama-attention-bias"] | {"dtype": "f32", "quant": QUANTS["4bit"]},
    "llama-mlp-bias-4bit-f32": VARIANTS["llama-mlp-bias"] | {"dtype": "f32", "quant": QUANTS["4bit"]},
    "gpt_oss-mxfp4-bf16": FAMILIES["gpt_oss"] | {"dtype": "bf16", "quant": {"mode": "mxfp4"}},
    "gpt_oss-mxfp4-experts-bf16": FAMILIES["gpt_oss"] | {"dtype": "bf16", "quant": {"mode": "mxfp4", "layers": [
        ("experts.gate_proj", True), ("experts.up_proj", True), ("experts.down_proj", True), ("", None)]}},
    "gpt_oss-mxfp4-f32": FAMILIES["gpt_oss"] | {"dtype": "f32", "quant": {"mode": "mxfp4"}},
    "qwen3_moe-8bit-bf16": FAMILIES["qwen3_moe"] | {"dtype": "bf16", "quant": {"bits": 8, "group_size": 32}},
    "qwen3_moe-nvfp4-f32": FAMILIES["qwen3_moe"] | {"dtype": "f32", "quant": {"mode": "nvfp4"}},
    "mixtral-mxfp4-f32": FAMILIES["mixtral"] | {"dtype": "f32", "quant": {"mode": "mxfp4"}},
    "gemma3_text-bf16": FAMILIES["gemma3_text"] | {"dtype": "bf16"},
    "gemma2-bf16": FAMILIES["gemma2"] | {"dtype": "bf16"},
    "qwen3-bf16": FAMILIES["qwen3"] | {"dtype": "bf16"},
    "qwen3-f16": FAMILIES["qwen3"] | {"dtype": "f16"},
    "deepseek_v3-8bit-f32": FAMILIES["deepseek_v3"] | {"dtype": "f32", "quant": {"bits": 8, "group_size": 64}},
}
