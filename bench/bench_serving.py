#!/usr/bin/env python3
"""./dev bench serving [--json] [--quick] [--preset S] [--weights native] [--threads 2] [--url [NAME=]URL ...] [--rounds N] ...:
a whole server under parallel clients, with random weights.

Ours is one router and one replica, started here; with --url servers that speak OpenAI's completions API and run already are measured
instead (or beside ours, with --ours), each side in its turn, in every round. Prompts are random token ids and answers go on to their
length, so all sides compute the same number of tokens; the counts of the usage are checked. Closed loop: each client asks again
when its answer has ended. All times are as the client sees them (bench/clients.c; a connection for each request):

  out          output tokens of all clients, from the first request sent to the last token
  TTFT         from before the connection is opened to the first token
  gap          between two reads of a stream that brought tokens; tokens that came in one read are one event
  cores        CPU time over wall time: of the server, of the clients, and of everybody else on the machine meanwhile. Where others
               took what the server's threads wanted, times say little.

With several rounds a figure is the median of its rounds. Prompts are new in every run, so that no server knows them from before."""

import argparse
import glob
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import fleet  # noqa: E402

BIN = os.environ.get("WEIR_BIN") or os.path.join(ROOT, "build", "release", "bin")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
KV_BLOCK = 16  # tokens; our cache counts whole blocks (replica/engine/kv.h)
AT_ONCE = 4    # clients on one prefix
QUICK = {"clients": "1,2", "requests": 2, "prompt": 48, "out": 8, "prefix": 160, "own": 16, "ids": "300-2000",
         "model": os.path.join(ROOT, "models", "demo")}


# -- who took how much of the machine ----------------------------------------------------------------------------
def cpu_s(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) * TICK_S
    return total


def machine_cpu_s():
    """Of all processes, and what a host took from all of us."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK_S


def listener(port):
    """The pid of a process of this machine that listens there: [pid] or []."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            with open(table) as file:
                rows = [line.split() for line in file.readlines()[1:]]
            inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) in inodes:
                return [int(link.split("/")[2])]
        except OSError:
            pass
    return []


# -- sides ---------------------------------------------------------------------------------------------------------
class Side:
    """A server that runs; counts_blocks: what its cache must have had of a known prefix is known to the token."""

    def __init__(self, name, target, path, api_key, model, pids, counts_blocks=False):
        self.name, self.target, self.path, self.api_key, self.model = name, target, path, api_key, model
        self.pids, self.counts_blocks = pids, counts_blocks


def ours(args, model, run_dir):
    """A started fleet, and its side. The replica has what ./dev up gives it, but for what is measured."""
    started = fleet.Fleet(run_dir, BIN, model, "bench", port_base=args.port_base, router_args=["--log-level", "warn"], replica_args=[
        "--threads", str(args.threads), "--weights", args.weights, "--kv-type", args.kv, "--step-tokens", str(args.step_tokens)])
    try:
        started.start(1, 1)
    except BaseException:
        started.stop(grace_s=3)
        raise
    pids = [entry["pid"] for entry in started.routers + started.replicas]
    return started, Side("weir", started.routers[0]["rest"], "/v1/completions", started.api_key, "bench", pids, counts_blocks=True)


def running(args, text):
    name, _, url = text.rpartition("=")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.port:
        raise fleet.FleetError(f"--url {text}: not [NAME=]http://host:port[/v1]")
    path = (parts.path.rstrip("/") or "/v1") + "/completions"
    return Side(name or parts.netloc, parts.netloc, path, args.api_key, args.model_name, listener(parts.port))


# -- one run of the clients ----------------------------------------------------------------------------------------
def ask(args, side, n_out, **kwargs):
    """Runs weir-bench-clients: (answers, {server, client, others: cores}). Every count must be as asked for."""
    low, high = args.ids.split("-")
    kwargs = {"target": side.target, "path": side.path, "api_key": side.api_key, "model": side.model, "id_min": low, "id_max": high,
              "out_tokens": n_out, "own_seed": random.getrandbits(63), **kwargs}
    command = [os.path.join(BIN, "weir-bench-clients")] + [x for k, v in kwargs.items() for x in (f"--{k.replace('_', '-')}", str(v))]
    before = time.monotonic(), cpu_s(side.pids), machine_cpu_s()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, server, machine = (b - a for a, b in zip(before, (time.monotonic(), cpu_s(side.pids), machine_cpu_s())))
    if done.returncode != 0:
        raise fleet.FleetError(f"{side.name}: {done.stderr.strip()}")
    *answers, client = (json.loads(line) for line in done.stdout.splitlines())
    check(side, answers, kwargs.get("shared_tokens", 0) + kwargs["own_tokens"], n_out)
    return answers, {"server_cores": server / wall if side.pids else None, "client_cores": client["cpu_s"] / wall,
                     "other_cores": max(0, machine - server - client["cpu_s"]) / wall if side.pids else None}


def check(side, answers, n_prompt, n_out):
    for answer in answers:
        if "error" in answer or answer["status"] != 200:
            raise fleet.FleetError(f"{side.name}: {answer.get('error')}, status {answer['status']}: {answer.get('body', '')}")
        counts = answer.get("prompt_tokens"), answer.get("completion_tokens")
        if counts != (n_prompt, n_out) or answer["token_events"] == 0:
            raise fleet.FleetError(f"{side.name}: usage says {counts} tokens in {answer['token_events']} events for {(n_prompt, n_out)}")


def ttft(answer):
    return answer["first_ms"] - answer["sent_ms"]


def p99(values):
    values = sorted(values)
    return values[-(-len(values) * 99 // 100) - 1] if values else 0


# -- scenarios -----------------------------------------------------------------------------------------------------
def parallel(args, side, n_clients):
    """Fresh prompts, several requests in a row by each client."""
    answers, cores = ask(args, side, args.out, clients=n_clients, requests=args.requests, own_tokens=args.prompt)
    seconds = (max(a["last_ms"] for a in answers) - min(a["sent_ms"] for a in answers)) / 1e3
    n_tokens = sum(a["completion_tokens"] for a in answers)
    first, gaps = [ttft(a) for a in answers], [gap for a in answers for gap in a["gaps_ms"]]
    n_cached = sum(a["cached_tokens"] for a in answers)
    if side.counts_blocks and n_cached:
        raise fleet.FleetError(f"{side.name}: {n_cached} tokens of random prompts came from the cache")
    return {"out_tokens_s": n_tokens / seconds, "ttft_p50_ms": statistics.median(first), "ttft_max_ms": max(first),
            "gap_p99_ms": p99(gaps), "gap_max_ms": max(gaps, default=0), "output_tokens": n_tokens,
            "token_events": sum(a["token_events"] for a in answers), **cores}


def cached(side, args, answers):
    """Tokens that came from the cache, the least of all answers; ours are known beforehand."""
    found = [a["cached_tokens"] for a in answers]
    expected = args.prefix // KV_BLOCK * KV_BLOCK
    if side.counts_blocks and any(n != expected for n in found):
        raise fleet.FleetError(f"{side.name}: {found} tokens from the cache behind a known prefix, not {expected}")
    return min(found)


def prefix(args, side):
    """A long prefix that is new, known, and known and asked for by several at once. A few tokens of each answer are enough."""
    def one(seed, n_clients=1):
        return ask(args, side, n_out, clients=n_clients, shared_seed=seed, shared_tokens=args.prefix, own_tokens=args.own)
    n_out, seeds = min(16, args.out), [random.getrandbits(63) for _ in range(args.tries)]
    cold = [one(seed)[0] for seed in seeds]
    warm = [one(seeds[-1])[0] for _ in range(args.tries)]
    filled = random.getrandbits(63)
    one(filled)
    at_once, cores = one(filled, AT_ONCE)
    return {"ttft_cold_ms": min(ttft(a) for answers in cold for a in answers),
            "ttft_warm_ms": min(ttft(a) for answers in warm for a in answers),
            "ttft_at_once_ms": statistics.mean(ttft(a) for a in at_once),
            "cached_warm": cached(side, args, [a for answers in warm for a in answers]),
            "cached_at_once": cached(side, args, at_once), **cores}


def measure(args, side):
    """[({what: ...}, {figure: value})] of one round."""
    print(f"{side.name} ...", file=sys.stderr, flush=True)
    ask(args, side, min(16, args.out), own_tokens=args.prompt)  # weights are read, threads awake
    rows = [({"clients": n}, parallel(args, side, n)) for n in map(int, args.clients.split(","))]
    return rows + ([({"prefix": args.prefix, "own": args.own}, prefix(args, side))] if args.prefix else [])


def medians(rounds):
    """Of each figure over the rounds."""
    def median(values):
        return None if None in values else statistics.median(values)
    return [(rows[0][0], {key: median([row[1][key] for row in rows]) for key in rows[0][1]}) for rows in zip(*rounds)]


# -- telling -------------------------------------------------------------------------------------------------------
COLUMNS = [("out_tokens_s", "out tok/s"), ("ttft_p50_ms", "TTFT p50"), ("ttft_max_ms", "max"), ("gap_p99_ms", "gap p99"),
           ("gap_max_ms", "max"), ("output_tokens", "tokens"), ("token_events", "events")]
PREFIX_COLUMNS = [("ttft_cold_ms", "TTFT cold"), ("ttft_warm_ms", "warm"), ("ttft_at_once_ms", f"{AT_ONCE} at once"),
                  ("cached_warm", "cached"), ("cached_at_once", f"{AT_ONCE} at once")]
CORES = [("server_cores", "server"), ("client_cores", "clients"), ("other_cores", "others")]


def cell(key, value):
    digits = {"cores": 2, "tokens": 0, "events": 0, "warm": 0, "once": 0}.get(key.rsplit("_", 1)[1], 1)
    return "-" if value is None else f"{value:,.{3 if key == 'client_cores' else digits}f}"


def table(title, label, rows, columns):
    print(f"\n{title}\n  {label:<24}" + "".join(f"{name:>11}" for _, name in columns))
    for name, figures in rows:
        print(f"  {name:<24}" + "".join(f"{cell(key, figures[key]):>11}" for key, _ in columns))


def show(args, results):
    in_parallel = [(f"{what['clients']} x {name}", figures) for name, rows in results.items() for what, figures in rows if "clients" in what]
    table(f"{args.prompt} random tokens in, {args.out} out, {args.requests} requests a client (ms; cores of {os.cpu_count()})",
          "clients x side", sorted(in_parallel, key=lambda row: int(row[0].split()[0])), COLUMNS + CORES)
    behind = [(name, figures) for name, rows in results.items() for what, figures in rows if "prefix" in what]
    if behind:
        table(f"{args.prefix} tokens that are shared + {args.own} that are not (ms; mean of {AT_ONCE} at once; cores while they ran)", "side",
              behind, PREFIX_COLUMNS + CORES)


def show_json(args, results):
    print(json.dumps({"model": os.path.basename(args.model), "weights": args.weights, "kv": args.kv, "threads": args.threads, "rounds": args.rounds,
                      "prompt": args.prompt, "out": args.out, "requests": args.requests}))
    for name, rows in results.items():
        for what, figures in rows:
            for figure, value in figures.items():
                print(json.dumps({"side": name, **what, "figure": figure, "value": value if value is None else round(value, 4)}))


# -- the whole -----------------------------------------------------------------------------------------------------
def measure_all(args):
    started = None
    with tempfile.TemporaryDirectory() as run_dir:
        try:
            sides = [running(args, text) for text in args.url]
            if args.ours or not sides:
                started, side = ours(args, args.model, run_dir)
                sides.insert(0, side)
            rounds = [[measure(args, side) for side in sides] for _ in range(args.rounds)]
            return {side.name: medians(turns) for side, turns in zip(sides, zip(*rounds))}
        finally:
            if started:
                started.stop()


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="S", help="a shape of tools/make_model.py: S, M or L")
    parser.add_argument("--model", metavar="DIR", help="a model folder instead")
    parser.add_argument("--weights", default="native", help="of our replica: native, q8 or q4")
    parser.add_argument("--kv", default="bf16", help="of our replica: f32 or bf16")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of our replica")
    parser.add_argument("--step-tokens", type=int, default=256, help="of our replica")
    parser.add_argument("--url", action="append", default=[], metavar="[NAME=]URL", help="measure what runs there; may be given again")
    parser.add_argument("--ours", action="store_true", help="ours, too, where --url is given")
    parser.add_argument("--api-key", default="none", help="for --url")
    parser.add_argument("--model-name", default="bench", help="asked for at --url")
    parser.add_argument("--clients", default="1,4,8", help="at once; or one number")
    parser.add_argument("--requests", type=int, default=4, help="of each client in a row")
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--out", type=int, default=128, help="tokens")
    parser.add_argument("--prefix", type=int, default=2000, help="tokens that prompts share; 0: leave that out")
    parser.add_argument("--own", type=int, default=64, help="tokens behind them")
    parser.add_argument("--tries", type=int, default=3, help="of the prefix, cold and warm: the best counts")
    parser.add_argument("--ids", default="300-4000", metavar="LOW-HIGH", help="prompts are made of these")
    parser.add_argument("--rounds", type=int, default=1, help="sides take turns in each; a figure is the median of its rounds")
    parser.add_argument("--port-base", type=int, default=10000, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="the demo model and short prompts: to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line, for each figure")
    if "--quick" in sys.argv:
        parser.set_defaults(**QUICK)
    return parser, parser.parse_args()


def main():
    parser, args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped on the way out
    try:
        if not args.model:
            import bench_engine  # makes the model on first use
            args.model = bench_engine.model(args.preset)
        results = measure_all(args)
    except fleet.FleetError as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    show_json(args, results) if args.json else show(args, results)


if __name__ == "__main__":
    main()
