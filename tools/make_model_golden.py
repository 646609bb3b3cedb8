#!/usr/bin/env python3
"""make_model_golden.py - writes tests/golden/models/*.json: what models of every family must compute.

What: for tiny models with random weights, log-probabilities along a prompt and 256 greedy tokens, by Hugging Face's
transformers in float32 (attention "eager", no cache: the whole text anew for each token).
Why: the engine claims to compute what model makers meant; that package is what they meant. Tests need neither it nor Python.

Nothing of a model is committed but its config.json, the names and shapes of its tensors as that package saves them, and a
seed. Element i of a tensor comes from integers alone, the same here and in tests/support/golden_model.c:
  key = fnv1a64(name) ^ seed * G;   k = top byte, signed, of splitmix64(key + (i + 1) * G)   with G = 0x9E3779B97F4A7C15
  norms: 1 + (k >> 2) / 64;   biases: k / 256;   matrices with n inputs: k * 2^-e, e = round(log2(74 * sqrt(n))), less 1 for
  what should be loud: queries, keys, routers, embeddings and heads.
Each such number is exact in bf16, f16 and f32, so the case's dtype changes the file and not the numbers.

Format: {transformers, config, dtype, seed, tensors: [[name, [dims]]], prompt: [ids], scored: [[[id, logprob] * 3]], greedy:
[[id, logprob]], gap}: `scored` has the best three after each token of the prompt; `gap` is the least distance between the
best two along the greedy steps: a smaller error than half of it cannot change a token.
"""

import argparse
import json
import math
import os
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(os.path.dirname(HERE), "tests", "golden", "models")
G, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
N_PROMPT, N_GREEDY, N_TOP, GAP_MIN = 48, 256, 3, 2e-3
LOUD = ("q_proj", "k_proj", "mlp.gate.", "block_sparse_moe.gate.", "embed_tokens", "lm_head")

BASE = dict(vocab_size=199, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=512, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1, pad_token_id=None)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64, rope_theta=10000.0)
CASES = {
    "llama": ("bf16", "llama", dict(tie_word_embeddings=True)),
    "llama_wide": ("f32", "llama", dict(num_attention_heads=6, num_key_value_heads=1, head_dim=10, hidden_size=54, intermediate_size=101, num_hidden_layers=3)),
    "llama_bias": ("bf16", "llama", dict(attention_bias=True)),
    "llama3_rope": ("f16", "llama", dict(head_dim=32, rope_parameters=dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64, rope_theta=500.0))),
    "llama_linear": ("bf16", "llama", dict(rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0))),
    "llama_yarn": ("f32", "llama", dict(head_dim=32, rope_parameters=YARN)),
    "llama_yarn_mscale": ("f32", "llama", dict(head_dim=32, rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=0.5, beta_fast=16, beta_slow=2, truncate=False))),
    "mistral": ("bf16", "mistral", dict(sliding_window=None, head_dim=24)),
    "mistral_window": ("bf16", "mistral", dict(sliding_window=21)),
    "ministral_layers": ("f32", "ministral", dict(sliding_window=17, head_dim=16, layer_types=["sliding_attention", "full_attention", "sliding_attention"], num_hidden_layers=3)),
    "qwen2": ("bf16", "qwen2", dict(tie_word_embeddings=True)),
    "qwen2_window": ("bf16", "qwen2", dict(use_sliding_window=True, sliding_window=19, max_window_layers=1, num_key_value_heads=4)),
    "qwen3": ("bf16", "qwen3", dict(head_dim=32, rms_norm_eps=1e-6)),
    "qwen3_yarn": ("bf16", "qwen3", dict(head_dim=16, attention_bias=True, rope_parameters=YARN)),
    "mixtral": ("bf16", "mixtral", dict(num_local_experts=4, num_experts_per_tok=2, intermediate_size=48)),
    "mixtral_window": ("f16", "mixtral", dict(num_local_experts=3, num_experts_per_tok=1, intermediate_size=48, sliding_window=23)),
    "qwen3_moe": ("bf16", "qwen3_moe", dict(head_dim=16, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=40, norm_topk_prob=True)),
    "qwen3_moe_mixed": ("f32", "qwen3_moe", dict(head_dim=16, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=False, num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3])),
}
CODES = {"bf16": "BF16", "f16": "F16", "f32": "F32"}


def noise(name, seed, n):
    """n signed bytes."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 & MASK
    key ^= seed * G & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(G)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(56)).astype(np.uint8).view(np.int8).astype(np.int32)


def weights(name, shape, seed):
    k = noise(name, seed, math.prod(shape))
    if "norm" in name:
        x = 1 + (k >> 2) / 64
    elif name.endswith(".bias"):
        x = k / 256
    else:
        e = math.floor(math.log2(74 * math.sqrt(shape[-1])) + 0.5) - any(s in name for s in LOUD)
        x = k * 2.0**-e
    return x.astype(np.float32).reshape(shape)


def encode(x, dtype):
    if dtype == "bf16":
        return (np.ascontiguousarray(x).view("<u4") >> 16).astype("<u2").tobytes()
    return x.astype("<f2" if dtype == "f16" else "<f4").tobytes()


def write_weights(path, tensors, dtype, seed):
    header, blobs, at = {}, [], 0
    for name, shape in tensors:
        blobs.append(encode(weights(name, shape, seed), dtype))
        header[name] = dict(dtype=CODES[dtype], shape=shape, data_offsets=[at, at + len(blobs[-1])])
        at += len(blobs[-1])
    raw = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(len(raw).to_bytes(8, "little") + raw + b"".join(blobs))


def read_shapes(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return [[n, t["shape"]] for n, t in sorted(header.items()) if n != "__metadata__"]


def try_seed(kind, dtype, members, seed):
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as tmp:
        config = transformers.AutoConfig.for_model(kind, **{**BASE, **members})
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp)
        path = os.path.join(tmp, "model.safetensors")
        tensors = read_shapes(path)
        write_weights(path, tensors, dtype, seed)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        assert not any(info.values()), info
        with open(os.path.join(tmp, "config.json"), encoding="utf-8") as f:
            saved = json.load(f)
    model.eval()
    ids = [int(k) % BASE["vocab_size"] for k in noise("prompt", seed, N_PROMPT)]
    greedy, gap = [], math.inf
    with torch.no_grad():
        rows = torch.log_softmax(model(torch.tensor([ids]), use_cache=False).logits[0].double(), -1)
        scored = [[[int(i), round(float(row[i]), 6)] for i in torch.topk(row, N_TOP).indices] for row in rows]
        text = list(ids)
        for _ in range(N_GREEDY):
            row = torch.log_softmax(model(torch.tensor([text]), use_cache=False).logits[0, -1].double(), -1)
            best = torch.topk(row, 2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            greedy.append([int(best.indices[0]), round(float(best.values[0]), 6)])
            text.append(greedy[-1][0])
    doc = dict(transformers=transformers.__version__, config=saved, dtype=dtype, seed=seed, tensors=tensors, prompt=ids, scored=scored, greedy=greedy, gap=round(gap, 6))
    return doc, gap, len(set(t for t, _ in greedy))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("cases", nargs="*", help=f"of: {' '.join(CASES)}; none = all")
    ap.add_argument("--out", default=OUT, help="folder to write")
    args = ap.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for case in args.cases or CASES:
        dtype, kind, members = CASES[case]
        for seed in range(1, 30):
            doc, gap, n_different = try_seed(kind, dtype, members, seed)
            if gap >= GAP_MIN and n_different > 8:
                break
        else:
            raise SystemExit(f"{case}: every seed has a choice too close to call")
        with open(os.path.join(args.out, case + ".json"), "w", encoding="utf-8") as f:
            f.write("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in doc.items()) + "\n}\n")
        print(f"{case}: seed {seed}, {n_different} different tokens, gap {gap:.4f}", flush=True)


if __name__ == "__main__":
    main()
