#!/usr/bin/env python3
"""reference.py - runs a model folder the slow and plain way: NumPy in float64, one sequence, no tricks.

What: reads config.json and safetensors, computes logits as the Llama family defines them, continues a prompt (greedily, or by
sampling), scores given tokens, and renders the chat template with Jinja as Hugging Face's transformers sets it up.
Why: the engine is tested against this. So it shares no code and no cleverness with it, and every step can be read here:
RMSNorm, rotary embedding on half-split pairs (Hugging Face's weight layout), grouped-query attention, SwiGLU.

Families: llama, mistral (no sliding window), qwen2 (biases), qwen3 (norms on q and k). Rotary scaling: none, or llama3.
Weights are widened exactly; sums run in --dtype. Needs numpy, tokenizers and jinja2.
"""

import argparse
import datetime
import json
import math
import os
import sys

import numpy as np


# ---------------------------------------------------------------- the folder


def load_json(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as f:
        return json.load(f)


def load_safetensors(path, dtype):
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(n))
    data = np.memmap(path, np.uint8, "r", offset=8 + n)
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        a, b = t["data_offsets"]
        raw = data[a:b]
        if t["dtype"] == "BF16":
            x = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        elif t["dtype"] in ("F16", "F32"):
            x = raw.view("<f2" if t["dtype"] == "F16" else "<f4")
        else:
            raise ValueError(f"{path}: {name} has the unsupported type {t['dtype']}")
        out[name] = x.astype(dtype).reshape(t["shape"])
    return out


def load_weights(folder, dtype):
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return load_safetensors(os.path.join(folder, "model.safetensors"), dtype)
    out = {}
    for name in sorted(set(load_json(index)["weight_map"].values())):
        out.update(load_safetensors(os.path.join(folder, name), dtype))
    return out


def load_tokenizer(folder):
    from tokenizers import Tokenizer

    path = os.path.join(folder, "tokenizer.json")
    if not os.path.exists(path):
        raise ValueError("no tokenizer.json there")
    return Tokenizer.from_file(path)


# ---------------------------------------------------------------- the chat template


def render_chat(folder, messages, add_generation_prompt=True, **extra):
    """The template's text. jinja2 is set up as in transformers' chat_template_utils: sandboxed, blocks trimmed."""
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(fmt):
        return datetime.datetime.now().strftime(fmt)

    tc = load_json(folder, "tokenizer_config.json")
    if not tc.get("chat_template"):
        raise ValueError(f"{folder}/tokenizer_config.json has no chat_template")
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    special = {}
    for k in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"):
        v = tc.get(k)
        if v is not None:
            special[k] = v["content"] if isinstance(v, dict) else v
    args = dict(tools=None, documents=None, **special)
    args.update(extra)
    return env.from_string(tc["chat_template"]).render(
        messages=messages, add_generation_prompt=add_generation_prompt, **args
    )


# ---------------------------------------------------------------- the model


class Model:
    """One model and one growing sequence: feed() appends tokens and gives the logits after each of them."""

    def __init__(self, folder, dtype=np.float64):
        self.dtype = np.dtype(dtype)
        c = self.config = load_json(folder, "config.json")
        if c["model_type"] not in ("llama", "mistral", "qwen2", "qwen3"):
            raise ValueError(f"unsupported model_type {c['model_type']}")
        self.w = load_weights(folder, self.dtype)
        self.n_layer, self.n_head = c["num_hidden_layers"], c["num_attention_heads"]
        self.n_kv = c.get("num_key_value_heads") or self.n_head
        self.d = c.get("head_dim") or c["hidden_size"] // self.n_head
        self.eps = c["rms_norm_eps"]
        self.inv_freq = self.rope_frequencies()
        eos = c.get("eos_token_id")
        self.eos = set(eos if isinstance(eos, list) else [] if eos is None else [eos])
        self.clear()

    def clear(self):
        self.k = [np.zeros((0, self.n_kv, self.d), self.dtype) for _ in range(self.n_layer)]
        self.v = [np.zeros((0, self.n_kv, self.d), self.dtype) for _ in range(self.n_layer)]
        self.n = 0

    def rope_frequencies(self):
        c = self.config
        inv = 1.0 / (c.get("rope_theta", 10000.0) ** (np.arange(0, self.d, 2, dtype=np.float64) / self.d))
        s = c.get("rope_scaling")
        kind = s and (s.get("rope_type") or s.get("type"))
        if not s or kind == "default":
            return inv
        if kind != "llama3":
            raise ValueError(f"unsupported rope_scaling {kind}")
        low = s["original_max_position_embeddings"] / s["low_freq_factor"]
        high = s["original_max_position_embeddings"] / s["high_freq_factor"]
        out = []
        for f in inv:
            wave = 2 * math.pi / f
            if wave < high:
                out.append(f)
            elif wave > low:
                out.append(f / s["factor"])
            else:
                t = (s["original_max_position_embeddings"] / wave - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
                out.append((1 - t) * f / s["factor"] + t * f)
        return np.array(out)

    def norm(self, x, w):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.dtype.type(self.eps)) * w

    def rope(self, x, pos):
        """x [t, heads, d]: element i turns with element i + d/2."""
        ang = pos[:, None] * self.inv_freq[None, :]
        cos = np.concatenate([np.cos(ang)] * 2, -1)[:, None].astype(self.dtype)
        sin = np.concatenate([np.sin(ang)] * 2, -1)[:, None].astype(self.dtype)
        half = self.d // 2
        return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin

    def linear(self, x, name):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def attention(self, x, i, pos):
        p, t = f"model.layers.{i}.self_attn.", len(x)
        q = self.linear(x, p + "q_proj").reshape(t, self.n_head, self.d)
        k = self.linear(x, p + "k_proj").reshape(t, self.n_kv, self.d)
        v = self.linear(x, p + "v_proj").reshape(t, self.n_kv, self.d)
        if p + "q_norm.weight" in self.w:
            q, k = self.norm(q, self.w[p + "q_norm.weight"]), self.norm(k, self.w[p + "k_norm.weight"])
        q, k = self.rope(q, pos), self.rope(k, pos)
        self.k[i] = np.concatenate([self.k[i], k])
        self.v[i] = np.concatenate([self.v[i], v])
        out = np.empty((t, self.n_head, self.d), self.dtype)
        mask = np.arange(len(self.k[i]))[None, :] > pos[:, None]
        for h in range(self.n_head):
            g = h // (self.n_head // self.n_kv)
            s = q[:, h] @ self.k[i][:, g].T / self.dtype.type(math.sqrt(self.d))
            s[mask] = -np.inf
            e = np.exp(s - s.max(-1, keepdims=True))
            out[:, h] = e / e.sum(-1, keepdims=True) @ self.v[i][:, g]
        return self.linear(out.reshape(t, -1), p + "o_proj")

    def mlp(self, x, i):
        p = f"model.layers.{i}.mlp."
        g = self.linear(x, p + "gate_proj")
        return self.linear(g / (1 + np.exp(-g)) * self.linear(x, p + "up_proj"), p + "down_proj")

    def feed(self, ids):
        """Appends the tokens; logits [len(ids), vocab]."""
        pos = np.arange(self.n, self.n + len(ids))
        self.n += len(ids)
        x = self.w["model.embed_tokens.weight"][np.asarray(ids)]
        for i in range(self.n_layer):
            p = f"model.layers.{i}."
            x = x + self.attention(self.norm(x, self.w[p + "input_layernorm.weight"]), i, pos)
            x = x + self.mlp(self.norm(x, self.w[p + "post_attention_layernorm.weight"]), i)
        x = self.norm(x, self.w["model.norm.weight"])
        head = self.w["model.embed_tokens.weight"] if self.config.get("tie_word_embeddings") else self.w["lm_head.weight"]
        return x @ head.T

    def logits(self, ids):
        """Logits after each token of a fresh sequence."""
        self.clear()
        return self.feed(ids)

    def generate(self, ids, n, choose=None, stop=True):
        """Continues `ids` by up to n tokens; yields (id, log-probs of that step). choose(logprobs) -> id; greedy if None."""
        row = self.logits(ids)[-1]
        for _ in range(n):
            lp = log_softmax(row)
            tok = int(lp.argmax()) if choose is None else choose(lp)
            yield tok, lp
            if stop and tok in self.eos:
                return
            row = self.feed([tok])[-1]


def log_softmax(x):
    m = x.max(-1, keepdims=True)
    return x - m - np.log(np.exp(x - m).sum(-1, keepdims=True))


def top_of(lp, n):
    """[(id, log-prob)] of the n likeliest tokens; among equals the lower id first."""
    order = np.lexsort((np.arange(len(lp)), -lp))[:n]
    return [(int(i), float(lp[i])) for i in order]


def sampler(temperature, top_p, seed):
    rng = np.random.default_rng(seed)

    def choose(lp):
        p = np.exp((lp - lp.max()) / temperature)
        p /= p.sum()
        order = np.argsort(-p, kind="stable")
        keep = order[: int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1]
        return int(rng.choice(keep, p=p[keep] / p[keep].sum()))

    return choose


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", help="model folder")
    what = ap.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="plain text; <|begin_of_text|> or whatever the tokenizer adds comes first")
    what.add_argument("--chat", action="append", help="a user's turn; give it again for the next turn, answers are generated between")
    what.add_argument("--messages", metavar="FILE", help="JSON list of messages ('-' for standard input)")
    what.add_argument("--ids", help="token ids, separated by commas")
    ap.add_argument("--system", help="system message for --chat")
    ap.add_argument("-n", type=int, default=64, help="tokens to generate at most (default %(default)s)")
    ap.add_argument("--temperature", type=float, default=0, help="0 (default) is greedy")
    ap.add_argument("--top-p", type=float, default=1.0)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--dtype", choices=["f64", "f32"], default="f64")
    ap.add_argument("--top", type=int, default=0, help="print so many alternatives for each token")
    ap.add_argument("--render", action="store_true", help="print the rendered template and its ids, and stop")
    args = ap.parse_args()
    try:
        tok = load_tokenizer(args.model)
        model = None if args.render else Model(args.model, {"f64": np.float64, "f32": np.float32}[args.dtype])
    except (OSError, ValueError, KeyError) as e:
        ap.exit(1, f"reference: {args.model}: {e}\n")
    choose = sampler(args.temperature, args.top_p, args.seed) if args.temperature > 0 else None

    def run(ids):
        out = []
        for t, lp in model.generate(ids, args.n, choose):
            out.append(t)
            if args.top:
                alts = "  ".join(f"{tok.id_to_token(i)}:{v:.4f}" for i, v in top_of(lp, args.top))
                print(f"{t:6d} {lp[t]:9.5f} {tok.id_to_token(t)!r:16} | {alts}")
        return tok.decode(out)

    if args.prompt is not None or args.ids is not None:
        ids = tok.encode(args.prompt).ids if args.prompt is not None else [int(i) for i in args.ids.split(",")]
        print(ids if args.render else run(ids))
        return
    if args.messages:
        messages = json.load(sys.stdin) if args.messages == "-" else load_json(args.messages)
        turns = [None]
    else:
        messages = [{"role": "system", "content": args.system}] if args.system else []
        turns = args.chat
    for user in turns:
        if user is not None:
            messages.append({"role": "user", "content": user})
        text = render_chat(args.model, messages)
        ids = tok.encode(text, add_special_tokens=False).ids
        if args.render:
            print(text, ids, sep="\n")
            return
        answer = run(ids)
        print(f"user: {user}\nassistant: {answer}" if user is not None else answer)
        messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    main()
