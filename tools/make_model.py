#!/usr/bin/env python3
"""make_model.py - writes a Hugging Face model folder with random weights, of any shape, the same from the same seed for ever.

What: config.json, model.safetensors (one file, or several with an index), and the tokenizer files of another folder.
Why: tests need small models of many shapes (odd head counts, tied or not, each family) that nobody has to commit or download,
and benchmarks need the shapes of well-known models; what the weights say does not matter to either.

Bit-exact everywhere: a weight comes from integers alone. Each tensor has its own Philox stream with the key (seed, CRC-32 of
the tensor's name); from each raw 64-bit word come four 16-bit numbers, whose sum is nearly normal; one multiplication in f32
scales it. No library's idea of a normal distribution, which may change between versions, is involved.

Scales: a matrix has the deviation 1/sqrt(inputs), those of queries and keys a little more, so that attention has favourites, and
those that write to the residual stream 2/sqrt(2 * layers) of it; norms lie around 1; logits have a deviation of about 2. So a
fault in any part moves the log-probabilities, and greedy choices are mostly clear.

With a vocabulary larger than the tokenizer's, the model can choose ids that have no text, as real models with padded
vocabularies can.
"""

import argparse
import json
import math
import os
import shutil
import sys
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "models", "demo")
CHUNK = 1 << 22  # weights made at a time

PRESETS = {
    "tiny": dict(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn=128, vocab=2048),
    "S": dict(hidden=512, layers=8, heads=8, kv_heads=4, head_dim=64, ffn=1536, vocab=4096, max_positions=4096),
    "M": dict(family="qwen2", hidden=896, layers=24, heads=14, kv_heads=2, head_dim=64, ffn=4864, vocab=151936, rope_theta=1e6, norm_eps=1e-6, max_positions=32768),
    "L": dict(hidden=2048, layers=16, heads=32, kv_heads=8, head_dim=64, ffn=8192, vocab=128256, rope_theta=5e5, rope_llama3=True, max_positions=131072),
}
DEFAULTS = dict(family="llama", tie=True, dtype="bf16", rope_theta=1e4, norm_eps=1e-5, max_positions=1024, rope_llama3=False, **PRESETS["tiny"])
FAMILIES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
DTYPES = {"bf16": ("BF16", 2, "bfloat16"), "f16": ("F16", 2, "float16"), "f32": ("F32", 4, "float32")}
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"]


class Stream:
    """The weights of one tensor, in order: mean + std * (nearly normal number)."""

    def __init__(self, seed, name):
        key = np.array([seed, zlib.crc32(name.encode())], dtype=np.uint64)
        self.bits = np.random.Philox(key=key)

    def take(self, n, mean, std):
        raw = np.asarray(self.bits.random_raw(n), dtype="<u8").view("<u2").reshape(n, 4)
        # Sum of four 16-bit numbers, less its mean: an integer below 2^18, so exact in f32.
        s = raw.astype(np.int32).sum(1) - 131070
        unit = math.sqrt(4 * (65536.0**2 - 1) / 12)
        return np.float32(mean) + s.astype(np.float32) * np.float32(std / unit)


def as_dtype(a, dtype):
    if dtype == "f32":
        return a.astype("<f4").tobytes()
    if dtype == "f16":
        return a.astype("<f2").tobytes()
    u = np.ascontiguousarray(a, "<f4").view("<u4")
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2").tobytes()


def tensors_of(o):
    """[(name, shape, mean, std)] in the order in which they are written."""
    h, q, kv, f = o["hidden"], o["heads"] * o["head_dim"], o["kv_heads"] * o["head_dim"], o["ffn"]
    out = 1 / math.sqrt(2 * o["layers"])
    ts = [("model.embed_tokens.weight", (o["vocab"], h), 0, 2 / math.sqrt(h) if o["tie"] else 1)]
    for i in range(o["layers"]):
        p = f"model.layers.{i}."
        ts += [
            (p + "input_layernorm.weight", (h,), 1, 0.1),
            (p + "self_attn.q_proj.weight", (q, h), 0, 1.6 / math.sqrt(h)),
            (p + "self_attn.k_proj.weight", (kv, h), 0, 1.6 / math.sqrt(h)),
            (p + "self_attn.v_proj.weight", (kv, h), 0, 1 / math.sqrt(h)),
            (p + "self_attn.o_proj.weight", (h, q), 0, 2 * out / math.sqrt(q)),
            (p + "post_attention_layernorm.weight", (h,), 1, 0.1),
            (p + "mlp.gate_proj.weight", (f, h), 0, 1 / math.sqrt(h)),
            (p + "mlp.up_proj.weight", (f, h), 0, 1 / math.sqrt(h)),
            (p + "mlp.down_proj.weight", (h, f), 0, 2 * out / math.sqrt(f)),
        ]
        if o["family"] == "qwen2":
            ts += [(p + f"self_attn.{n}_proj.bias", (w,), 0, 0.3) for n, w in (("q", q), ("k", kv), ("v", kv))]
        if o["family"] == "qwen3":
            ts += [(p + f"self_attn.{n}_norm.weight", (o["head_dim"],), 1, 0.1) for n in ("q", "k")]
    ts.append(("model.norm.weight", (h,), 1, 0.1))
    if not o["tie"]:
        ts.append(("lm_head.weight", (o["vocab"], h), 0, 2 / math.sqrt(h)))
    return ts


def write_file(path, tensors, o):
    code, size, _ = DTYPES[o["dtype"]]
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _, _ in tensors:
        n = math.prod(shape) * size
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as f:
        f.write(len(raw).to_bytes(8, "little"))
        f.write(raw)
        for name, shape, mean, std in tensors:
            s, left = Stream(o["seed"], name), math.prod(shape)
            while left:
                n = min(left, CHUNK)
                f.write(as_dtype(s.take(n, mean, std), o["dtype"]))
                left -= n
    return at


def config_of(o, ids):
    c = {
        "architectures": [FAMILIES[o["family"]]],
        "attention_bias": o["family"] == "qwen2",
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "head_dim": o["head_dim"],
        "hidden_act": "silu",
        "hidden_size": o["hidden"],
        "intermediate_size": o["ffn"],
        "max_position_embeddings": o["max_positions"],
        "model_type": o["family"],
        "num_attention_heads": o["heads"],
        "num_hidden_layers": o["layers"],
        "num_key_value_heads": o["kv_heads"],
        "rms_norm_eps": o["norm_eps"],
        "rope_scaling": None,
        "rope_theta": o["rope_theta"],
        "tie_word_embeddings": o["tie"],
        "torch_dtype": DTYPES[o["dtype"]][2],
        "vocab_size": o["vocab"],
    }
    if o["rope_llama3"]:
        c["rope_scaling"] = {
            "factor": 32.0 if o["max_positions"] > 8192 else 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192 if o["max_positions"] > 8192 else 64,
            "rope_type": "llama3",
        }
    if o["family"] == "mistral":
        c["sliding_window"] = None
    return c


def make(out, seed, tokenizer_from=DEMO, shards=1, **shape):
    """Writes the folder `out`; `shape` overrides DEFAULTS. Returns the options in full."""
    o = {**DEFAULTS, **shape, "seed": seed}
    if o["heads"] % o["kv_heads"]:
        raise ValueError(f"heads ({o['heads']}) must be a multiple of KV heads ({o['kv_heads']})")
    if o["head_dim"] % 2:
        raise ValueError("the head dimension must be even, for the rotary embedding")
    if not 0 <= seed < 1 << 64:
        raise ValueError("the seed must fit 64 bits")
    os.makedirs(out, exist_ok=True)
    ids = {"bos": 0, "eos": [0]}
    if tokenizer_from:
        from_config = os.path.join(tokenizer_from, "config.json")
        if not os.path.exists(os.path.join(tokenizer_from, "tokenizer.json")):
            raise ValueError(f"{tokenizer_from} has no tokenizer.json")
        with open(from_config, encoding="utf-8") as f:
            src = json.load(f)
        if o["vocab"] < src["vocab_size"]:
            raise ValueError(f"the vocabulary ({o['vocab']}) is smaller than that of the tokenizer ({src['vocab_size']})")
        ids = {"bos": src["bos_token_id"], "eos": src["eos_token_id"]}
        for name in TOKENIZER_FILES:
            path = os.path.join(tokenizer_from, name)
            if os.path.exists(path):
                shutil.copyfile(path, os.path.join(out, name))
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config_of(o, ids), f, indent=2)
        f.write("\n")
    ts = tensors_of(o)
    if shards == 1:
        write_file(os.path.join(out, "model.safetensors"), ts, o)
        return o
    per, weight_map, total = -(-len(ts) // shards), {}, 0
    for i in range(shards):
        part = ts[i * per : (i + 1) * per]
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        total += write_file(os.path.join(out, name), part, o)
        weight_map.update({t[0]: name for t in part})
    with open(os.path.join(out, "model.safetensors.index.json"), "w", encoding="utf-8") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, f, indent=2)
        f.write("\n")
    return o


def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True, help="folder to write")
    ap.add_argument("--preset", choices=PRESETS, default="tiny", help="where the shape starts: %(choices)s (default %(default)s)")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--family", choices=FAMILIES, help="llama, mistral; qwen2 (biases on q, k, v); qwen3 (norms on q and k)")
    for name in ("hidden", "layers", "heads", "kv-heads", "head-dim", "ffn", "vocab", "max-positions"):
        ap.add_argument(f"--{name}", type=int, metavar="N")
    ap.add_argument("--rope-theta", type=float)
    ap.add_argument("--rope-llama3", action="store_true", default=None, help="scale rotary frequencies as Llama 3.1 does")
    ap.add_argument("--norm-eps", type=float)
    ap.add_argument("--dtype", choices=DTYPES)
    ap.add_argument("--tie", action=argparse.BooleanOptionalAction, default=None, help="share input and output embeddings")
    ap.add_argument("--shards", type=int, default=1, help="safetensors files to write")
    ap.add_argument("--tokenizer-from", default=DEMO, metavar="DIR", help="folder to copy the tokenizer from (default: models/demo; '' for none)")
    return ap


def from_args(argv):
    """make() with a command line; fixtures keep their models as such lists."""
    ap = parser()
    args = ap.parse_args(argv)
    shape = dict(PRESETS[args.preset])
    for key in ("family", "hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "vocab", "max_positions", "rope_theta", "rope_llama3", "norm_eps", "dtype", "tie"):
        if getattr(args, key) is not None:
            shape[key] = getattr(args, key)
    if args.shards < 1:
        ap.error("--shards must be 1 or more")
    try:
        return make(args.out, args.seed, args.tokenizer_from, args.shards, **shape)
    except (ValueError, OSError) as e:
        ap.exit(1, f"make_model: {e}\n")


def main():
    o = from_args(sys.argv[1:])
    n = sum(math.prod(t[1]) for t in tensors_of(o))
    print(f"{o['family']}, {n / 1e6:.1f} million parameters, {o['dtype']}, seed {o['seed']}")


if __name__ == "__main__":
    main()
