#!/usr/bin/env python3
"""Makes tests/goldens/lm: tiny decoders of every family and quantization, and what mlx_lm computes with them.

    python3 -m venv /some/venv && /some/venv/bin/pip install -r tests/goldens/requirements.txt
    /some/venv/bin/python tests/goldens/lm/make.py [CASE ...]      # all of them, or those named
    /some/venv/bin/python tests/goldens/lm/make.py --missing       # those that have no file yet
    /some/venv/bin/python tests/goldens/lm/make.py --influence     # which tensors hardly matter, of all f32 cases
    /some/venv/bin/python tests/goldens/lm/make.py --check DIR     # what `mlxman-testkit lm --all DIR` wrote

A case is one JSON file: `config` (a whole config.json), `seed`, `tensors`, `answers`, `margin` and `digest`. No weight is
kept: both this script and `mlxman_testkit::tiny_lm` compute them by the formula below, to the same bytes. The same run
gives the same files on the same kind of processor; logits may differ in their last bits on another.

The formula. Element `i` of tensor `name` is made from 64 pseudo-random bits,

    h = mix(state + (i + 1) * G)      state: FNV-1a of the name's bytes, from 0xcbf29ce484222325 ^ (seed * G)

with G = 0x9e3779b97f4a7c15, everything modulo 2^64, and `mix` the finalizer of SplitMix64. An entry of `tensors` is
[DTYPE, SHAPE, A, B], and its dtype, as safetensors names it, says what becomes of them:

    F32, F16, BF16   A + B * ((h >> 40) / 2^23 - 1) in double precision, rounded to single, then to the dtype, each time
                     to the nearest, ties to even
    U32              (h >> 32) & A; packed weights, B is 0
    U8               A + (h >> 32) % B; the scales of mxfp4 and mxfp8 (E8M0) and of nvfp4 (E4M3)

A may also be the name of a tensor of the same shape: the element is then -B times that tensor's (rounded) element, in
double precision, and rounded as above. Those are the biases of an affine quantization, with B = (2^bits - 1) / 2.

The answers. `prompt_ids` go through the model at once with an empty cache; `logits_head` are the first 64 logits of the
last position, `top10` the ten largest with their ids, and `greedy` the 24 tokens that follow, one at a time. They are
computed in the checkpoint's dtype. Where that is a half, `answers_float32` are those of the same model with every
floating parameter cast to float32. The seed is the first of a few for which greedy decoding is varied, has no token 1
or 3, and no step of it is a near tie: `margin` is the smallest difference between the two largest logits of a step, as
a fraction of the largest magnitude.
"""
import contextlib
import hashlib
import importlib
import io
import json
import math
import os
import sys
import types
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import mlx.core as mx
import mlx_lm.utils
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

# mlx_lm's olmo only looks whether this is there.
sys.modules.setdefault("hf_olmo", types.ModuleType("hf_olmo"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from cases import CASES, VOCAB

OUT = Path(__file__).resolve().parent
PROMPT = [(15 + 37 * i) % VOCAB for i in range(17)]
STEPS = 24
STOPS = (1, 3)
MARGIN = 0.02
DISTINCT = 8
SEEDS = 150

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
NAMES = {mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32", mx.uint8: "U8"}
DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}


# The formula.


def bits(seed, name, count):
    """`count` times 64 bits for the elements of a tensor."""
    state = 0xCBF29CE484222325 ^ (seed * GOLDEN & MASK)
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 & MASK
    z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def rounded(values, dtype):
    """Doubles as the bit patterns of `dtype`, by way of single precision."""
    single = values.astype(np.float32)
    if dtype == "F32":
        return single
    if dtype == "F16":
        return single.astype(np.float16)
    word = single.view(np.uint32)
    return ((word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def doubles(array, dtype):
    if dtype == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def fill(seed, tensors):
    """Every tensor by the formula, as NumPy arrays; BF16 as its 16 bits."""
    out = {}
    for name, (dtype, shape, a, b) in tensors.items():
        if isinstance(a, str):
            continue
        h = bits(seed, name, math.prod(shape))
        if dtype == "U32":
            array = (h >> np.uint64(32)).astype(np.uint32) & np.uint32(a)
        elif dtype == "U8":
            array = (np.uint64(a) + (h >> np.uint64(32)) % np.uint64(b)).astype(np.uint8)
        else:
            array = rounded(a + b * ((h >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0), dtype)
        out[name] = array.reshape(shape)
    for name, (dtype, shape, a, b) in tensors.items():
        if isinstance(a, str):
            out[name] = rounded(-b * doubles(out[a], tensors[a][0]), dtype)
    return out


def digest(arrays):
    """SHA-256 of the bytes of every tensor, by name."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


# What A and B are.


def short(value):
    return float(f"{value:.4g}")


def entry(name, array, dtype, quantized, norm):
    """[DTYPE, SHAPE, A, B] of a parameter, so that activations and logits stay of order one."""
    shape = list(array.shape)
    path, _, leaf = name.rpartition(".")
    if (quant := quantized.get(path)) and leaf in ("weight", "scales", "biases"):
        mode, width = quant["mode"], quant["bits"]
        if leaf == "weight":
            # Without its top exponent bit no 8-bit float is a NaN, and none is larger than 2.
            return ["U32", shape, 0xBFBFBFBF if mode == "mxfp8" else 0xFFFFFFFF, 0]
        if leaf == "biases":
            return [dtype, shape, f"{path}.scales", (2**width - 1) / 2]
        std = 1 / math.sqrt(shape[-1] * quant["group_size"])
        if mode == "affine":
            scale = std / math.sqrt((4**width - 1) / 12)
            return [dtype, shape, short(scale), short(scale / 2)]
        spread = 0.6 if mode == "mxfp8" else 2.93
        exponent = round(math.log2(std / spread))
        # E8M0 has a bias of 127; E4M3 one of 7, and three bits of mantissa below it.
        return ["U8", shape, exponent + 126, 3] if mode != "nvfp4" else ["U8", shape, (exponent + 6) * 8, 12]
    if leaf == "weight" and (len(shape) == 1 or "norm" in path.rsplit(".", 1)[-1]):
        # The last norm has random signs: a tied head would else favour the token that was read.
        last = not any(part.isdigit() for part in path.split("."))
        return [dtype, shape, norm - 1, 2] if last else [dtype, shape, norm, 0.25]
    if "bias" in leaf:
        return [dtype, shape, 0, 0.1]
    if not shape:
        return [dtype, shape, 1, 0.25]
    if len(shape) == 1:
        return [dtype, shape, 0, 1.0] if leaf == "sinks" else [dtype, shape, 1, 0.25]
    return [dtype, shape, 0, short(math.sqrt(3 / shape[-1]))]


def build(case):
    """The model of a case, its whole config, and its tensors."""
    config = dict(case["config"])
    model_class, args_class = mlx_lm.utils._get_classes(config)
    model = model_class(args_class.from_dict(json.loads(json.dumps(config))))
    if case["tied"]:
        model.sanitize({})
    if (quant := case.get("quant")) is not None:
        mixed = quant.get("layers")
        predicate = None
        if mixed:
            given = lambda p: dict(p) if isinstance(p, dict) else bool(p)
            predicate = lambda path, _: next((given(p) for end, p in mixed if path.endswith(end)), True)
        with contextlib.redirect_stdout(io.StringIO()):
            model, config = mlx_lm.utils.quantize_model(
                model, config, quant.get("group_size"), quant.get("bits"), quant.get("mode", "affine"),
                quant_predicate=predicate)
    model.eval()
    quantized = {path: {"mode": m.mode, "bits": m.bits, "group_size": m.group_size}
                 for path, m in model.named_modules() if hasattr(m, "bits") and hasattr(m, "group_size")}
    cast = getattr(model, "cast_predicate", lambda _: True)
    half = NAMES[DTYPES[case["dtype"]]]
    tensors = {}
    for name, array in sorted(tree_flatten(model.parameters())):
        dtype = half if cast(name) else "F32"
        tensors[name] = entry(name, array, dtype, quantized, case["norm"])
        for end, given in case["spans"].items():
            if name.endswith(end):
                tensors[name][2:] = given
    return model, config, tensors


def to_mlx(arrays, tensors, single=False):
    out = []
    for name, array in arrays.items():
        value = mx.array(array)
        if tensors[name][0] == "BF16":
            value = value.view(mx.bfloat16)
        if single and mx.issubdtype(value.dtype, mx.floating):
            value = value.astype(mx.float32)
        out.append((name, value))
    return out


def load(model, case, weights):
    """Gives a model its weights, after what mlx_lm does to those of a file: some families normalize their head there."""
    if hasattr(model, "sanitize") and not case["tied"]:
        weights = list(model.sanitize(dict(weights)).items())
    model.load_weights(weights)


# The answers.


def plain(values):
    """Numbers with as few digits as single precision needs."""
    return [float(str(x)) for x in np.array(values.astype(mx.float32))]


def answer(model, least):
    """The answers and the margin, or nothing once a step's margin is below `least`."""
    cache = make_prompt_cache(model)
    ids, greedy, margin, first = mx.array([PROMPT]), [], math.inf, None
    for _ in range(STEPS):
        logits = model(ids, cache=cache)[0, -1].astype(mx.float32)
        row = np.array(logits)
        if not np.isfinite(row).all():
            raise ValueError("a logit is not finite")
        first = logits if first is None else first
        best = np.argsort(-row, kind="stable")[:2]
        margin = min(margin, float(row[best[0]] - row[best[1]]) / float(np.abs(row).max()))
        token = int(best[0])
        if margin < least or token in STOPS:
            return None
        greedy.append(token)
        ids = mx.array([[token]])
    if len(set(greedy)) < DISTINCT:
        return None
    row = np.array(first)
    top = np.argsort(-row, kind="stable")[:10]
    values = plain(first)
    return margin, {"prompt_ids": PROMPT, "logits_head": values[:64], "top10": [[int(i), values[i]] for i in top],
                    "greedy": greedy, "computed_by": f"mlx_lm {version()} on mlx {mx.__version__} {mx.default_device()}"}


def influence(name):
    """Which tensors a decoder could leave out unnoticed: those without which the logits hardly change."""
    golden = json.loads((OUT / f"{name}.json").read_text())
    model, _, tensors = build(CASES[name])
    arrays, other = fill(golden["seed"], tensors), fill(golden["seed"] + 1, tensors)

    def logits(arrays):
        load(model, CASES[name], to_mlx(arrays, tensors))
        return np.array(model(mx.array([PROMPT]), cache=make_prompt_cache(model))[0, -1].astype(mx.float32))

    want = logits(arrays)
    for tensor in tensors:
        off = float(np.abs(logits(arrays | {tensor: other[tensor]}) - want).max() / np.abs(want).max())
        if off < 1e-3:
            print(f"{name}: {tensor} matters by {off:.1e}", flush=True)


def version():
    return importlib.metadata.version("mlx-lm")


def make(name):
    case = CASES[name]
    model, config, tensors = build(case)
    best, least = None, 0.0
    for seed in range(1, SEEDS + 1):
        arrays = fill(seed, tensors)
        load(model, case, to_mlx(arrays, tensors))
        if (found := answer(model, least)) is None:
            continue
        margin, single = found[0], None
        if case["dtype"] != "f32":
            load(model, case, to_mlx(arrays, tensors, single=True))
            if (also := answer(model, least)) is None:
                continue
            margin, single = min(margin, also[0]), also[1]
        best, least = (seed, margin, found[1], single, digest(arrays)), margin
        if margin >= MARGIN:
            break
    if best is None:
        raise ValueError("no seed gives varied tokens")
    seed, margin, answers, single, sha = best
    golden = {"seed": seed, "margin": short(margin), "digest": sha, "config": config, "answers": answers}
    if single:
        golden["answers_float32"] = single
    lines = [f'"{key}": {json.dumps(value)}' for key, value in golden.items()]
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in tensors.items())
    (OUT / f"{name}.json").write_text("{\n" + ",\n".join(lines) + ',\n"tensors": {\n' + rows + "\n}\n}\n")
    print(f"{name}: seed {seed}, margin {margin:.3f}, {len(set(answers['greedy']))} distinct tokens", flush=True)


def check(root):
    """Loads what the Rust side wrote as mlx_lm loads a model, and compares."""
    folders = sorted(p.parent for p in Path(root).glob("**/config.json"))
    wrong = 0
    for folder in folders:
        golden = json.loads((OUT / f"{folder.name}.json").read_text())
        try:
            model, _ = mlx_lm.utils.load_model(folder)
            arrays = {k: np.array(v.view(mx.uint16) if v.dtype == mx.bfloat16 else v)
                      for k, v in mx.load(str(folder / "model.safetensors")).items()}
            _, answers = answer(model, 0.0)
        except Exception as error:  # noqa: BLE001
            print(f"{folder.name}: {error!r}")
            wrong += 1
            continue
        want = golden["answers"]
        size = max(abs(v) for v in want["logits_head"])
        off = max(abs(a - b) for a, b in zip(answers["logits_head"], want["logits_head"])) / size
        good = digest(arrays) == golden["digest"] and answers["greedy"] == want["greedy"] and off < 1e-3
        wrong += not good
        if not good:
            print(f"{folder.name}: off by {off:.2e}, bytes {digest(arrays) == golden['digest']}")
    print(f"{len(folders)} checked, {wrong} differ")
    return wrong


def main(args):
    if args[:1] == ["--check"]:
        sys.exit(1 if check(args[1]) else 0)
    if args[:1] == ["--influence"]:
        for name in args[1:] or [n for n in CASES if n.endswith("-f32") and (OUT / f"{n}.json").exists()]:
            influence(name)
        return
    names = [n for n in CASES if not (OUT / f"{n}.json").exists()] if args == ["--missing"] else args or list(CASES)
    failed = []
    for name in names:
        try:
            make(name)
        except Exception as error:  # noqa: BLE001
            failed.append(name)
            print(f"{name}: {error!r}", flush=True)
    if failed:
        sys.exit(f"not made: {' '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
