#!/usr/bin/env python3
"""train_demo.py - trains the demo model (models/demo) from nothing, on a CPU, in well under an hour.

What: draws text from demo_text.py, trains a byte-level BPE tokenizer on it (Llama-3's split rule and special tokens), trains
a small Llama-architecture model, and writes a standard Hugging Face folder in bf16.
Why: tests, demos and first runs of Weir need a real folder with a real tokenizer, template and weights, small enough to be
in the repository and free of other people's text.

  * JAX, not PyTorch: its CPU wheel is small, and that of PyTorch on the same index brings gigabytes of CUDA.
  * Muon for the weight matrices, AdamW for embeddings and norms: at this size it needs about half of AdamW's steps.
  * Documents are packed end to end and attention may look past a document's start. So the model has seen every distance
    up to the row length, which matters for long prompts; each document starts with <|begin_of_text|>, which it learns to
    read as a reset. Rows are --seq tokens, and --seq-long in the last part of the training. That part must be large: past the
    longest row it has seen at a useful learning rate, the model writes nonsense, and validation on short rows does not show
    it. So validation reports the rows of both lengths.
  * The tokens that the model will have to write (an assistant's words and the end of its turn, plain text) weigh 1 in the
    loss, the others (the user's and the system's words) --user-weight: they are there to be understood, not spoken.

The same seed and versions give the same tokenizer and, up to the summation order of the machine, the same weights.
An existing tokenizer.json in --out is kept unless --new-tokenizer is given: ids in test fixtures stand on it.
"""

import argparse
import json
import math
import os
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

VOCAB = 2048
SPECIALS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
]
# The split rule of Llama 3: contractions, words, numbers of up to three digits, punctuation runs, line ends, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim"
    " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
SHAPE = dict(hidden=256, layers=5, heads=8, kv_heads=4, head_dim=32, ffn=512)
ROPE_THETA = 10000.0
NORM_EPS = 1e-5
MAX_POSITIONS = 1024


# ---------------------------------------------------------------- tokenizer


def train_tokenizer(docs):
    """Byte-level BPE over the words of the documents; special tokens take the last ids, as in Llama 3."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tok = Tokenizer(models.BPE(ignore_merges=True))
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - len(SPECIALS),
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
    )
    tok.train_from_iterator((t for doc in docs for _, t in doc), trainer)
    if tok.get_vocab_size() != VOCAB - len(SPECIALS):
        sys.exit(f"train_demo: the text gives only {tok.get_vocab_size()} tokens; draw more documents")
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    bos = SPECIALS[0]
    tok.post_processor = processors.Sequence(
        [
            processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True),
            processors.TemplateProcessing(
                single=f"{bos} $A",
                pair=f"{bos} $A {bos}:1 $B:1",
                special_tokens=[(bos, tok.token_to_id(bos))],
            ),
        ]
    )
    return tok


def encode_docs(tok, docs, user_weight):
    """One long row of token ids, and for each the weight of predicting it. A document is [(role, text), ...]."""
    ids_of = {s: tok.token_to_id(s) for s in SPECIALS}
    bos, eot, end = ids_of["<|begin_of_text|>"], ids_of["<|eot_id|>"], ids_of["<|end_of_text|>"]
    h0, h1 = ids_of["<|start_header_id|>"], ids_of["<|end_header_id|>"]
    texts = [t.strip() for doc in docs for _, t in doc]
    flat = []
    for i in range(0, len(texts), 20000):
        flat += [e.ids for e in tok.encode_batch(texts[i : i + 20000], add_special_tokens=False)]
    head = {r: [h0] + tok.encode(r, add_special_tokens=False).ids + [h1] for r in ("system", "user", "assistant")}
    nl = tok.encode("\n\n", add_special_tokens=False).ids
    ids, wts, k = [], [], 0
    for doc in docs:
        ids.append(bos)
        wts.append(0.0)
        for role, _ in doc:
            body = flat[k]
            k += 1
            if role == "text":
                ids += body + [end]
                wts += [1.0] * (len(body) + 1)
                continue
            pre = head[role] + nl
            w = 1.0 if role == "assistant" else user_weight
            ids += pre + body + [eot]
            wts += [0.0 if role == "assistant" else 0.05] * len(pre) + [w] * (len(body) + 1)
    return np.array(ids, np.uint16), np.array(wts, np.float16)


# ---------------------------------------------------------------- model


def init_params(seed):
    s, rng = SHAPE, np.random.default_rng(seed)
    n, h, q, kv = s["layers"], s["hidden"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]

    def mat(rows, cols, std):
        return rng.normal(0, std, (n, rows, cols)).astype(np.float32)

    std = 1 / math.sqrt(h)
    out = std / math.sqrt(2 * n)
    return dict(
        embed=rng.normal(0, 0.02, (VOCAB, h)).astype(np.float32),
        norm=np.ones(h, np.float32),
        ln1=np.ones((n, h), np.float32),
        ln2=np.ones((n, h), np.float32),
        q=mat(h, q, std),
        k=mat(h, kv, std),
        v=mat(h, kv, std),
        o=mat(q, h, out),
        gate=mat(h, s["ffn"], std),
        up=mat(h, s["ffn"], std),
        down=mat(s["ffn"], h, out),
    )


def make_matmul(jax, jnp):
    """x [..., k] @ w [k, n] from bf16 inputs into f32, both ways: on a CPU with AMX five times as fast as in f32."""

    def dot(a, b, dims):
        bf = jnp.bfloat16
        return jax.lax.dot_general(a.astype(bf), b.astype(bf), (dims, ((), ())), preferred_element_type=jnp.float32)

    @jax.custom_vjp
    def matmul(x, w):
        return dot(x, w, ((1,), (0,)))

    def back(saved, g):
        x, w = saved
        return dot(g, w, ((1,), (1,))), dot(x, g, ((0,), (0,)))

    matmul.defvjp(lambda x, w: (dot(x, w, ((1,), (0,))), (x, w)), back)
    return lambda x, w: matmul(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[-1])


def make_forward(jax, jnp, seq):
    s, mm = SHAPE, make_matmul(jax, jnp)
    d, g = s["head_dim"], s["heads"] // s["kv_heads"]
    inv = 1.0 / (ROPE_THETA ** (np.arange(0, d, 2) / d))
    ang = np.arange(seq)[:, None] * inv[None, :]
    cos = np.concatenate([np.cos(ang)] * 2, -1).astype(np.float32)
    sin = np.concatenate([np.sin(ang)] * 2, -1).astype(np.float32)
    blk = min(64, seq)
    corner = np.where(np.tril(np.ones((blk, blk), bool)), 0.0, -1e30).astype(np.float32)
    corner = np.concatenate([corner] * g, 0)

    def norm(x, w):
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + NORM_EPS) * w

    def rope(x):  # [b, t, n, d], the two halves of a head make the pairs
        a, b = jnp.split(x, 2, -1)
        return x * cos[:, None] + jnp.concatenate([-b, a], -1) * sin[:, None]

    def attend(q, k, v):
        """One key head: q [g, seq, d], k and v [seq, d]. In blocks of rows, each with the keys it may see: three times
        as fast on a CPU as a whole square with half of it masked."""
        outs = []
        for i in range(0, seq, blk):
            a = q[:, i : i + blk].reshape(-1, d) @ k[: i + blk].T * (1 / math.sqrt(d))
            a = jnp.concatenate([a[:, :i], a[:, i:] + corner], 1)
            a = jnp.exp(a - jax.lax.stop_gradient(a.max(-1, keepdims=True)))
            outs.append((a @ v[: i + blk] / a.sum(-1, keepdims=True)).reshape(g, blk, d))
        return jnp.concatenate(outs, 1)

    def layer(x, p):
        b, t, h = x.shape
        y = norm(x, p["ln1"])
        q = rope(mm(y, p["q"]).reshape(b, t, s["heads"], d)).reshape(b, t, s["kv_heads"], g, d)
        k = rope(mm(y, p["k"]).reshape(b, t, s["kv_heads"], d))
        v = mm(y, p["v"]).reshape(b, t, s["kv_heads"], d)
        fold = b * s["kv_heads"]
        q = q.transpose(0, 2, 3, 1, 4).reshape(fold, g, t, d)
        k, v = (m.transpose(0, 2, 1, 3).reshape(fold, t, d) for m in (k, v))
        a = jax.vmap(attend)(q, k, v).reshape(b, s["heads"], t, d).transpose(0, 2, 1, 3).reshape(b, t, -1)
        x = x + mm(a, p["o"])
        y = norm(x, p["ln2"])
        return x + mm(jax.nn.silu(mm(y, p["gate"])) * mm(y, p["up"]), p["down"])

    names = ("ln1", "ln2", "q", "k", "v", "o", "gate", "up", "down")

    def forward(p, ids):
        x = p["embed"][ids] * 1.0
        for i in range(s["layers"]):
            x = layer(x, {n: p[n][i] for n in names})
        return mm(norm(x, p["norm"]), p["embed"].T)

    return forward


def make_step(jax, jnp, seq, args):
    forward = make_forward(jax, jnp, seq)
    matrices = ("q", "k", "v", "o", "gate", "up", "down")

    def loss_fn(p, ids, wts):
        logits = forward(p, ids[:, :-1])
        tgt = ids[:, 1:]
        lse = jax.nn.logsumexp(logits, -1)
        nll = lse - jnp.take_along_axis(logits, tgt[..., None], -1)[..., 0]
        w = wts[:, 1:].astype(jnp.float32)
        return (nll * w).sum() / w.sum()

    def orthogonal(m):
        """Newton-Schulz: the nearest (semi-)orthogonal matrix to each update, roughly."""
        flip = m.shape[-2] > m.shape[-1]
        if flip:
            m = m.swapaxes(-1, -2)
        m = m / (jnp.sqrt((m * m).sum((-1, -2), keepdims=True)) + 1e-7)
        for _ in range(5):
            a = m @ m.swapaxes(-1, -2)
            m = 3.4445 * m + (-4.7750 * a + 2.0315 * (a @ a)) @ m
        return m.swapaxes(-1, -2) if flip else m

    def step(p, st, ids, wts, n, rate):
        loss, grad = jax.value_and_grad(loss_fn)(p, ids, wts)
        newp, newst = {}, {}
        for k, g in grad.items():
            if k in matrices:
                mom = 0.95 * st[k][0] + g
                upd = orthogonal(g + 0.95 * mom)
                scale = math.sqrt(max(1.0, g.shape[-1] / g.shape[-2]))
                newp[k] = p[k] * (1 - rate * args.lr_muon * 0.1) - rate * args.lr_muon * scale * upd
                newst[k] = (mom,)
            else:
                m = 0.9 * st[k][0] + 0.1 * g
                v = 0.98 * st[k][1] + 0.02 * g * g
                mh, vh = m / (1 - 0.9 ** (n + 1)), v / (1 - 0.98 ** (n + 1))
                newp[k] = p[k] - rate * args.lr_adam * mh / (jnp.sqrt(vh) + 1e-8)
                newst[k] = (m, v)
        return newp, newst, loss

    return jax.jit(step, donate_argnums=(0, 1)), jax.jit(loss_fn)


def fresh_state(p):
    two = ("embed", "norm", "ln1", "ln2")
    return {k: tuple(np.zeros_like(a) for _ in range(2 if k in two else 1)) for k, a in p.items()}


# ---------------------------------------------------------------- export


def to_bf16_bits(a):
    """Round to nearest, ties to even, as every bf16 writer does."""
    u = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def write_json(path, obj):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(obj, f, indent=2, ensure_ascii=False)
        f.write("\n")


def config_of(tok):
    s = SHAPE
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tok.token_to_id("<|begin_of_text|>"),
        "eos_token_id": [tok.token_to_id("<|eot_id|>"), tok.token_to_id("<|end_of_text|>")],
        "head_dim": s["head_dim"],
        "hidden_act": "silu",
        "hidden_size": s["hidden"],
        "initializer_range": 0.02,
        "intermediate_size": s["ffn"],
        "max_position_embeddings": MAX_POSITIONS,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": s["heads"],
        "num_hidden_layers": s["layers"],
        "num_key_value_heads": s["kv_heads"],
        "rms_norm_eps": NORM_EPS,
        "rope_scaling": None,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": VOCAB,
    }


def export_tokenizer(tok, out):
    os.makedirs(out, exist_ok=True)
    tok.save(os.path.join(out, "tokenizer.json"), pretty=True)
    added = {
        str(tok.token_to_id(s)): {
            "content": s,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for s in SPECIALS
    }
    write_json(
        os.path.join(out, "tokenizer_config.json"),
        {
            "added_tokens_decoder": added,
            "bos_token": "<|begin_of_text|>",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|eot_id|>",
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": MAX_POSITIONS,
            "pad_token": "<|finetune_right_pad_id|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    write_json(
        os.path.join(out, "special_tokens_map.json"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|finetune_right_pad_id|>"},
    )
    write_json(os.path.join(out, "config.json"), config_of(tok))
    write_json(
        os.path.join(out, "generation_config.json"),
        {
            "bos_token_id": tok.token_to_id("<|begin_of_text|>"),
            "do_sample": True,
            "eos_token_id": [tok.token_to_id("<|eot_id|>"), tok.token_to_id("<|end_of_text|>")],
            "pad_token_id": tok.token_to_id("<|finetune_right_pad_id|>"),
            "temperature": 0.7,
            "top_p": 0.9,
        },
    )


def export_weights(p, out):
    """Hugging Face names and layout: a linear layer's matrix is [out, in], so each of ours is transposed."""
    tensors = {"model.embed_tokens.weight": p["embed"], "model.norm.weight": p["norm"]}
    names = {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
    }
    for i in range(SHAPE["layers"]):
        for k, name in names.items():
            a = np.asarray(p[k][i])
            tensors[f"model.layers.{i}.{name}.weight"] = a.T if a.ndim == 2 else a
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        bits = to_bf16_bits(np.asarray(tensors[name])).tobytes()
        header[name] = {"dtype": "BF16", "shape": list(np.shape(tensors[name])), "data_offsets": [at, at + len(bits)]}
        blobs.append(bits)
        at += len(bits)
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    tmp = os.path.join(out, "model.safetensors.tmp")
    with open(tmp, "wb") as f:
        f.write(len(raw).to_bytes(8, "little"))
        f.write(raw)
        for b in blobs:
            f.write(b)
    os.replace(tmp, os.path.join(out, "model.safetensors"))


# ---------------------------------------------------------------- main


def rows_of(n_tokens, seq, rng):
    """Start positions of rows in a random order: the stream cut at a random offset, so rows differ between epochs."""
    first = int(rng.integers(0, seq))
    starts = np.arange(first, n_tokens - seq - 1, seq)
    rng.shuffle(starts)
    return starts


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", default=os.path.join(HERE, "..", "models", "demo"), help="folder to write")
    ap.add_argument("--docs", type=int, default=90000, help="documents to draw (about 110 tokens each)")
    ap.add_argument("--steps", type=int, default=1800, help="optimizer steps")
    ap.add_argument("--minutes", type=float, help="end after this time even with fewer steps; the schedule follows")
    ap.add_argument("--tokens-per-step", type=int, default=4096)
    ap.add_argument("--seq", type=int, default=512, help="row length, tokens")
    ap.add_argument("--seq-long", type=int, default=1024, help="row length in the last part")
    ap.add_argument("--long-part", type=float, default=0.4, help="share of the steps with long rows")
    ap.add_argument("--lr-muon", type=float, default=0.02)
    ap.add_argument("--lr-adam", type=float, default=0.004)
    ap.add_argument("--warmup", type=int, default=40, help="steps of warm-up")
    ap.add_argument("--user-weight", type=float, default=0.1, help="loss weight of the user's and system's words")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--new-tokenizer", action="store_true", help="retrain tokenizer.json though --out has one")
    ap.add_argument("--tokenizer-only", action="store_true", help="stop after the tokenizer and the JSON files")
    ap.add_argument("--save", metavar="FILE.npz", help="also keep the f32 weights here, at each export")
    ap.add_argument("--start-from", metavar="FILE.npz", help="continue from f32 weights kept with --save")
    ap.add_argument("--export-every", type=int, default=0, help="also export every so many steps")
    args = ap.parse_args()
    if args.tokens_per_step % args.seq or args.tokens_per_step % args.seq_long:
        ap.error("--tokens-per-step must be a multiple of --seq and of --seq-long")

    import demo_text

    t0 = time.time()
    docs = demo_text.documents(args.docs, seed=args.seed)
    print(f"{len(docs)} documents in {time.time() - t0:.0f} s", flush=True)

    path = os.path.join(args.out, "tokenizer.json")
    if os.path.exists(path) and not args.new_tokenizer:
        from tokenizers import Tokenizer

        tok = Tokenizer.from_file(path)
        print("kept the tokenizer of", path)
    else:
        tok = train_tokenizer(docs[:30000])
    export_tokenizer(tok, args.out)
    if args.tokenizer_only:
        return

    ids, wts = encode_docs(tok, docs, args.user_weight)
    val_ids, val_wts = encode_docs(tok, demo_text.documents(600, seed=args.seed + 1000003), 0.0)
    print(f"{len(ids)} tokens to train on, {len(val_ids)} held out; {time.time() - t0:.0f} s", flush=True)

    import jax
    import jax.numpy as jnp

    if args.start_from:
        with np.load(args.start_from) as z:
            p = {k: z[k] for k in z.files}
    else:
        p = init_params(args.seed)
    print(f"{sum(a.size for a in p.values())} parameters", flush=True)
    st = fresh_state(p)
    rng = np.random.default_rng(args.seed)
    short = make_step(jax, jnp, args.seq, args)
    long = make_step(jax, jnp, args.seq_long, args)
    seq, fns, queue = args.seq, short, np.zeros(0, np.int64)

    def batch(src, w, starts, seq):
        at = starts[:, None] + np.arange(seq + 1)[None, :]
        return src[at].astype(np.int32), w[at].astype(np.float32)

    def validate(n):
        """Held-out loss of the words that the model has to write, in short and in long rows."""
        for length, (_, loss_of) in ((args.seq, short), (args.seq_long, long)):
            rows, per = np.arange(0, len(val_ids) - length - 1, length), args.tokens_per_step // length
            tot = cnt = 0.0
            for i in range(0, len(rows) - per + 1, per):
                a, w = batch(val_ids, val_wts, rows[i : i + per], length)
                k = w[:, 1:].sum()
                tot += float(loss_of(p, a, w)) * k
                cnt += k
            v = tot / cnt
            print(f"step {n} validation, rows of {length}: loss {v:.4f} perplexity {math.exp(v):.3f}", flush=True)

    def export():
        host = {k: np.asarray(a) for k, a in p.items()}
        export_weights(host, args.out)
        if args.save:
            np.savez(args.save, **host)

    t1, n, done = time.time(), 0, 0.0
    while done < 1:
        if seq != args.seq_long and done >= 1 - args.long_part:
            seq, fns, queue = args.seq_long, long, np.zeros(0, np.int64)
        rows = args.tokens_per_step // seq
        if len(queue) < rows:
            queue = rows_of(len(ids), seq, rng)
        take, queue = queue[:rows], queue[rows:]
        a, w = batch(ids, wts, take, seq)
        rate = min(1.0, (n + 1) / args.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        p, st, loss = fns[0](p, st, a, w, np.float32(n), np.float32(rate))
        n += 1
        dt = time.time() - t1
        done = n / args.steps
        if args.minutes:
            done = max(done, dt / 60 / args.minutes)
        if n % 20 == 0 or done >= 1:
            print(f"step {n} loss {float(loss):.4f} {dt:.0f} s {n * args.tokens_per_step / dt:.0f} tokens/s", flush=True)
        if n % 200 == 0:
            validate(n)
        if args.export_every and n % args.export_every == 0:
            export()
    export()
    validate(n)
    print(f"done: training took {time.time() - t1:.0f} s", flush=True)


if __name__ == "__main__":
    main()
