#!/usr/bin/env python3
"""make_perplexity.py - writes tests/golden/perplexity.json: held-out demo text as token ids, and the demo model's perplexity on it.

What: rows of tokens from documents that train_demo.py keeps for validation, with a mark at each token that the model has to
write itself (the assistant's words and plain text), and exp of the mean loss of those, by reference.py in float64.
Why: to say what 8-bit and 4-bit weights cost (`./dev bench perplexity`), with a check that the measure itself is right.
"""

import argparse
import json
import math
import os

import numpy as np

import demo_text
import make_golden
import reference
import train_demo

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEED = 1 + 1000003  # of the validation text


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", default=os.path.join(ROOT, "models", "demo"))
    ap.add_argument("--out", default=os.path.join(ROOT, "tests", "golden", "perplexity.json"))
    ap.add_argument("--rows", type=int, default=12)
    ap.add_argument("--length", type=int, default=512)
    args = ap.parse_args()
    tok = reference.load_tokenizer(args.model)
    ids, weights = train_demo.encode_docs(tok, demo_text.documents(600, seed=SEED), 0.0)
    model, rows, loss, n = reference.Model(args.model, np.float64), [], 0.0, 0
    for start in range(0, args.rows * args.length, args.length):
        row = [int(i) for i in ids[start : start + args.length]]
        mine = [bool(w == 1) for w in weights[start : start + args.length]]
        lp = reference.log_softmax(model.logits(row))
        for i in range(1, len(row)):
            if mine[i]:
                loss -= float(lp[i - 1][row[i]])
                n += 1
        rows.append(dict(ids=row, scored="".join(str(int(m)) for m in mine)))
        print(f"row {len(rows)}: perplexity so far {math.exp(loss / n):.5f} over {n} tokens", flush=True)
    sha = make_golden.sha256(os.path.join(args.model, "model.safetensors"))
    with open(args.out, "w", encoding="utf-8") as f:
        f.write(f'{{"about": "Written by tools/make_perplexity.py; do not edit.",\n "sha256": "{sha}",\n "perplexity": {math.exp(loss / n):.6f},\n "rows": [\n')
        f.write(",\n".join("  " + json.dumps(r, separators=(",", ":")) for r in rows) + "\n ]}\n")


if __name__ == "__main__":
    main()
