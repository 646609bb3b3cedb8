#!/usr/bin/env python3
"""./dev bench engine [--json] [--preset S] [--threads N] ...: prompts and decoding on a CPU, with random weights.

The model is made once, in build/bench-models; what is measured and how is told in bench_engine.c."""

import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The shapes of make_model.py's presets, as the one family that the engine runs.
FAMILY = {"M": ["--family", "llama"]}


def python_with_numpy():
    """Ours, or one in build/venv-model."""
    if subprocess.run([sys.executable, "-c", "import numpy"], stderr=subprocess.DEVNULL).returncode == 0:
        return sys.executable
    venv = os.path.join(ROOT, "build", "venv-model")
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        with open(os.path.join(ROOT, "tools", "requirements-model.txt")) as file:
            numpy = next(line.strip() for line in file if line.startswith("numpy"))
        subprocess.run(["/usr/bin/python3", "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", numpy], check=True, stdout=sys.stderr)
    return python


def model(preset):
    path = os.path.join(ROOT, "build", "bench-models", preset)
    if not os.path.exists(os.path.join(path, "model.safetensors")):
        subprocess.run([python_with_numpy(), os.path.join(ROOT, "tools", "make_model.py"), "--preset", preset, "--out", path] + FAMILY.get(preset, []),
                       check=True, stdout=sys.stderr)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="S", help="a shape of tools/make_model.py: S, M or L; or several, with commas")
    parser.add_argument("--weights", default="native,q8,q4", help="native, q8, q4; or several, with commas")
    parser.add_argument("--kv", default="bf16", help="keys and values: f32 or bf16")
    parser.add_argument("--activations", default="fast", choices=["fast", "exact"], help="what they are rounded to, where there is a choice")
    parser.add_argument("--threads", default="1,2", help="or one number")
    parser.add_argument("--step-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["prefill", "prefix", "decode"], help="figures of this kind alone")
    parser.add_argument("--cpu-time", action="store_true", help="count the process's own time: for one thread on a busy machine")
    parser.add_argument("--json", action="store_true", help="one object a line")
    args = parser.parse_args()
    for preset in args.preset.split(","):
        path = model(preset)
        with open(os.path.join(path, "config.json")) as file:
            config = json.load(file)
        head = config["vocab_size"] * config["hidden_size"] * (1 if config["tie_word_embeddings"] else 2)
        for weights in args.weights.split(","):
            for threads in args.threads.split(","):
                run(args, path, head, weights, threads)


def run(args, path, head, weights, threads):
    command = [os.path.join(ROOT, "build", "release", "bin", "weir-bench-engine"), "--model", path, "--weights", weights, "--kv", args.kv, "--activations", args.activations]
    command += ["--head-params", str(head), "--threads", threads, "--step-tokens", str(args.step_tokens), "--rounds", str(args.rounds)]
    command += ["--only", args.only] if args.only else []
    subprocess.run(command + (["--cpu-time"] if args.cpu_time else []) + (["--json"] if args.json else []), check=True)


if __name__ == "__main__":
    main()
