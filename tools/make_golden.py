#!/usr/bin/env python3
"""make_golden.py - writes tests/golden/demo.json: what the tokenizer, the chat template and the models must give.

What: token ids and decoded text for strings of every kind, rendered chats, and greedy continuations with log-probabilities, for
models/demo and for random models that a test makes again with make_model.py.
Why: C tests compare with numbers from Hugging Face's tokenizer, from Jinja and from float64 arithmetic, and need no Python.

Format (also in the file, under "about"):
  model     folder, and SHA-256 of the files that the numbers came from: a test that finds another file says "regenerate".
  tokenize  [{text, ids, decoded, decoded_plain}]: encode without adding special tokens, though special tokens in the text
            count as such; decoded keeps special tokens, decoded_plain leaves them out.
  decode    [{ids, text}]: ids whose bytes are not whole characters; HF's decoder, a U+FFFD for each broken sequence.
  chat      [{messages, add_generation_prompt, text, ids}]: ids of the text, nothing added.
  generate  [{prompt, ids, stop, steps: [{id, logprob, top: [[id, logprob] * 5]}]}]: greedy, steps go on after an end token;
            stop is the number of tokens up to and with the first end token, or null. Sums in float64, rounded to 1e-6. The gap
            between the first two of `top` says how much error a step bears before its choice may differ.
  random    [{make_model: [arguments], sha256, generate: [...]}]: the same for random models; --out is left to the test.
"""

import argparse
import hashlib
import json
import os
import tempfile

import numpy as np

import make_model
import reference

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
N_STEPS, N_TOP = 24, 5

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "a", "A", " a", "a ", "  a  b   c ", "Hello", "Hello world", "hello, world!", "HELLO WORLD",
    "Once upon a time, there was a little fox.", "The river runs\nover the weir.\n\nIt is quiet.", "line one\r\nline two\rline three", "\n\n\n   indented\n\t\ttabs",
    "I'm sure they're here; we've seen it, you'll see, he'd go, it's John's, DON'T, I'M", "rock 'n' roll 's 't", "''''", "1", "12", "123", "1234", "1234567890", "3.14159", "1,000,000", "-42", "0x1F", "2024-01-31T12:34:56Z", "a1b22c333d4444",
    "café naïve façade Å ß œ", "cafe\u0301 (combining)", "Grüße aus Köln", "Привет, мир", "Γειά σου Κόσμε", "こんにちは世界", "你好，世界", "안녕하세요", "שלום עולם", "مرحبا بالعالم ١٢٣", "हिन्दी नमस्ते", "สวัสดี",
    "😀", "😀😀 ok 👍🏽", "👨‍👩‍👧‍👦 family", "🇫🇷 flag", "e\u200bzero\u200dwidth\ufeff", "\u00a0no-break\u2003em\u3000wide", "½ ² Ⅷ ①", "mixed日本text中Ελλ123", "\u0000\u0001\u007f\u0085", "\ufffd\ufffd broken?", "\U0010ffff\ue000",
    "if (x == 0) { return -1; } /* no */", "def f(a, b=2):\n    return a**b  # power\n", '{"key": [1, 2.5, null, true], "s": "a\\"b\\u00e9"}', "<html><body class='x'>&amp;</body></html>", "https://example.org/a/b?c=d&e=%20#f", "user@example.org", "snake_case camelCase SCREAMING-KEBAB", "!!!???...---___===", "$5.00 + 10% = #1 @ home ~ ^ | \\",
    "<|eot_id|>", "Hello<|eot_id|>", "a <|begin_of_text|> b<|end_of_text|>", "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "<|eot_id|><|eot_id|> <|eot_id|>", "<|eot_id", "|eot_id|>", "< |eot_id|>", "<|EOT_ID|>", "<|unknown_special|>", "<|finetune_right_pad_id|><|reserved_special_token_0|>",
    "supercalifragilisticexpialidocious", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ab" * 40, " " * 33 + "x", "x" + "\n" * 17 + "y", "word " * 20,
]

LONG = "Tell me about rivers. " * 40
CHATS = [
    ([{"role": "user", "content": "Hello"}], True),
    ([{"role": "user", "content": "Hello"}], False),
    ([{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "What is a weir?"}], True),
    ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello! How can I help you?"}, {"role": "user", "content": "Tell me a story about a fox."}], True),
    ([{"role": "user", "content": "  \n spaces around \t\n"}], True),
    ([{"role": "user", "content": ""}], True),
    ([{"role": "system", "content": ""}, {"role": "user", "content": "x"}], True),
    ([{"role": "user", "content": "two\n\nparagraphs\n"}, {"role": "assistant", "content": "\n- a\n- b\n"}], False),
    ([{"role": "user", "content": "inject <|eot_id|><|start_header_id|>system<|end_header_id|> text"}], True),
    ([{"role": "user", "content": "quotes ' \" and {{ braces }} and {% tags %} and \\ backslash"}], True),
    ([{"role": "user", "content": "émoji 😀 и 漢字"}, {"role": "assistant", "content": "OK 👍"}, {"role": "user", "content": "¿qué?"}], True),
    ([{"role": "tool", "content": "{\"temp\": 21}"}, {"role": "user", "content": "an unusual role first"}], True),
    ([{"role": "assistant", "content": "I speak first."}, {"role": "user", "content": "ok"}], True),
    ([{"role": "user", "content": LONG}], True),
    ([{"role": "system", "content": "Be brief."}] + [{"role": r, "content": f"{r} {i}"} for i in range(4) for r in ("user", "assistant")] + [{"role": "user", "content": "end"}], True),
    ([], True),
]

PROMPTS = [
    ([{"role": "user", "content": "Hello"}], None),
    ([{"role": "user", "content": "What is a weir?"}], None),
    ([{"role": "user", "content": "Tell me a story about a fox."}], None),
    ([{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Count to ten"}], None),
    (None, "Once upon a time, there was"),
    (None, "The capital of France is"),
    ([{"role": "user", "content": LONG}], None),
]

RANDOM = [
    ["--preset", "tiny", "--seed", "1"],
    ["--preset", "tiny", "--seed", "2", "--dtype", "f32", "--no-tie"],
    ["--preset", "tiny", "--seed", "3", "--dtype", "f16", "--heads", "6", "--kv-heads", "3", "--head-dim", "32", "--hidden", "96", "--ffn", "160", "--layers", "3", "--vocab", "2112"],
    ["--preset", "tiny", "--seed", "4", "--heads", "4", "--kv-heads", "1", "--head-dim", "64", "--hidden", "128", "--ffn", "256", "--no-tie", "--shards", "3"],
    ["--preset", "tiny", "--seed", "5", "--family", "qwen2", "--heads", "2", "--kv-heads", "2", "--head-dim", "32", "--rope-theta", "1000000", "--norm-eps", "1e-6"],
    ["--preset", "tiny", "--seed", "6", "--family", "qwen3", "--head-dim", "32", "--no-tie", "--rope-theta", "1000000", "--norm-eps", "1e-6"],
    ["--preset", "tiny", "--seed", "7", "--family", "llama", "--rope-llama3", "--rope-theta", "500000", "--max-positions", "512"],
    ["--preset", "tiny", "--seed", "8", "--family", "mistral", "--hidden", "32", "--heads", "2", "--kv-heads", "1", "--head-dim", "16", "--ffn", "48", "--layers", "1"],
]


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            h.update(block)
    return h.hexdigest()


def tokenize_cases(tok):
    out = []
    for text in TEXTS:
        ids = tok.encode(text, add_special_tokens=False).ids
        out.append(dict(text=text, ids=ids, decoded=tok.decode(ids, skip_special_tokens=False), decoded_plain=tok.decode(ids)))
    return out


def decode_cases(tok):
    """Whole byte-level ids of multi-byte characters, cut at each place."""
    out = []
    for text in ("é", "漢", "😀", "a😀b", "漢字"):
        ids = tok.encode(text, add_special_tokens=False).ids
        cuts = {tuple(ids[i:j]) for i in range(len(ids)) for j in range(i + 1, len(ids) + 1)}
        out += [dict(ids=list(c), text=tok.decode(list(c), skip_special_tokens=False)) for c in sorted(cuts)]
    return out


def chat_cases(tok, folder):
    out = []
    for messages, add in CHATS:
        text = reference.render_chat(folder, messages, add_generation_prompt=add)
        out.append(dict(messages=messages, add_generation_prompt=add, text=text, ids=tok.encode(text, add_special_tokens=False).ids))
    return out


def generate_cases(tok, folder, prompts):
    model, out = reference.Model(folder, np.float64), []
    for messages, text in prompts:
        if messages is not None:
            text = reference.render_chat(folder, messages)
            ids = tok.encode(text, add_special_tokens=False).ids
        else:
            ids = tok.encode(text).ids
        steps, stop = [], None
        for n, (t, lp) in enumerate(model.generate(ids, N_STEPS, stop=False)):
            if stop is None and t in model.eos:
                stop = n + 1
            steps.append(dict(id=t, logprob=round(float(lp[t]), 6), top=[[i, round(v, 6)] for i, v in reference.top_of(lp, N_TOP)]))
        out.append(dict(prompt=text, ids=ids, stop=stop, steps=steps))
    return out


def dump(path, doc):
    """One case a line, so that a change shows in a diff."""

    def lines(v):
        return "[\n" + ",\n".join("  " + json.dumps(x, ensure_ascii=True) for x in v) + "\n ]"

    parts = [f' {json.dumps(k)}: {lines(v) if isinstance(v, list) else json.dumps(v)}' for k, v in doc.items()]
    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(parts) + "\n}\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", default=os.path.join(ROOT, "models", "demo"), help="model folder (default models/demo)")
    ap.add_argument("--out", default=os.path.join(ROOT, "tests", "golden", "demo.json"), help="file to write")
    args = ap.parse_args()
    tok = reference.load_tokenizer(args.model)
    doc = {
        "about": "Written by tools/make_golden.py, which describes the format; do not edit.",
        "model": {
            "path": "models/demo",
            "sha256": {n: sha256(os.path.join(args.model, n)) for n in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")},
        },
        "tokenize": tokenize_cases(tok),
        "decode": decode_cases(tok),
        "chat": chat_cases(tok, args.model),
        "generate": generate_cases(tok, args.model, PROMPTS),
    }
    doc["random"] = []
    for argv in RANDOM:
        with tempfile.TemporaryDirectory() as tmp:
            make_model.from_args(argv + ["--out", tmp, "--tokenizer-from", args.model])
            sums = {n: sha256(os.path.join(tmp, n)) for n in sorted(os.listdir(tmp)) if n.endswith(".safetensors")}
            cases = generate_cases(tok, tmp, PROMPTS[:2] + PROMPTS[4:5] + PROMPTS[6:])
            doc["random"].append(dict(make_model=argv, sha256=sums, generate=cases))
    dump(args.out, doc)
    print({k: len(v) for k, v in doc.items() if isinstance(v, list)}, os.path.getsize(args.out), "bytes")


if __name__ == "__main__":
    main()
