#!/usr/bin/env python3
"""./dev bench router [--json] [--quick]: the router beside HAProxy and nginx, in turn, in one run.

All on loopback. The measured process alone is on core 0 (router: one loop; HAProxy: one thread; nginx: one worker), the
load generator and the stub behind it share core 1. The router speaks gRPC to a stub replica that costs nothing; the proxies forward
to an HTTP stub of the same process that answers with the same bytes. Connections are reused on both sides everywhere. Each figure
is the median over rounds in which all sides took their turn. CPU time is the measured process's own, from /proc."""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import fleet  # noqa: E402

BIN = os.environ.get("WEIR_BIN") or os.path.join(ROOT, "build", "release", "bin")
KEY = "bench-key"
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


def pinned(core):
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 and shutil.which("taskset") else []


def cpu_us(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) * TICK_US
    return total


def memory_mb(pids, row="VmRSS"):
    """Resident now, or with row VmHWM the most that ever was."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            total += next((int(line.split()[1]) for line in file if line.startswith(row)), 0) / 1024
    return total


class Side:
    """Something that answers: a process to measure, or the bare stub (no pids)."""

    def __init__(self, name, target, pids, grpc=False):
        self.name, self.target, self.pids, self.grpc = name, target, pids, grpc


class Bench:
    def __init__(self, folder, n_streams):
        self.folder, self.n_streams = folder, n_streams
        self.processes = []
        self.ports = iter(p for p in range(31000, 32000) if fleet.port_is_free(p))

    def spawn(self, command, core, **kwargs):
        process = subprocess.Popen(pinned(core) + command, stderr=open(os.path.join(self.folder, "log"), "ab"), **kwargs)
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
        self.processes = []

    def start_stub(self, *args):
        process = self.spawn([os.path.join(BIN, "weir-stub"), *args], 1, stdout=subprocess.PIPE, text=True)
        return json.loads(process.stdout.readline())

    def start_router(self, stub):
        path = os.path.join(self.folder, "fleet.json")
        entries = {"replicas/demo/stub": {"id": "stub", "model": "demo", "grpc": f"127.0.0.1:{stub['grpc']}", "admin": "127.0.0.1:1"},
                   f"keys/{hashlib.sha256(KEY.encode()).hexdigest()}": {"account": "bench"}}
        with open(path, "w") as file:
            json.dump({"entries": entries}, file)
        rest, grpc, admin = (f"127.0.0.1:{next(self.ports)}" for _ in range(3))
        process = self.spawn([os.path.join(BIN, "weir-router"), "--rest-listen", rest, "--admin-listen", admin, "--grpc-listen",
                              grpc, "--io-threads", "1", "--cq-threads", "1", "--discovery", f"file:{path}",
                              "--connections-max", "60000", "--log-level", "warn"], 0)
        fleet.wait_for("weir-router", lambda: fleet.get(f"http://{admin}/readyz")[0] == 200, 20, process,
                       os.path.join(self.folder, "log"))
        return [Side("weir", rest, [process.pid]), Side("weir gRPC", grpc, [process.pid], grpc=True)]

    def start_haproxy(self, stub):
        port = next(self.ports)
        path = os.path.join(self.folder, "haproxy.cfg")
        with open(path, "w") as file:
            file.write(f"""global
  maxconn {self.n_streams}
  nbthread 1
defaults
  mode http
  option http-keep-alive
  option http-no-delay
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{stub['http']}
""")
        process = self.spawn(["haproxy", "-db", "-f", path], 0)
        fleet.wait_for("haproxy", lambda: not fleet.port_is_free(port), 10, process, os.path.join(self.folder, "log"))
        return Side("haproxy", f"127.0.0.1:{port}", [process.pid])

    def start_nginx(self, stub):
        port = next(self.ports)
        path = os.path.join(self.folder, "nginx.conf")
        with open(path, "w") as file:
            file.write(f"""worker_processes 1;
pid {self.folder}/nginx.pid;
error_log {self.folder}/nginx.log error;
worker_rlimit_nofile {resource.getrlimit(resource.RLIMIT_NOFILE)[0]};
daemon off;
events {{ worker_connections {3 * self.n_streams}; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {self.folder}/b; proxy_temp_path {self.folder}/p; fastcgi_temp_path {self.folder}/f;
  uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
  upstream stub {{ server 127.0.0.1:{stub['http']}; keepalive 2048; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    location / {{ proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
""")
        process = self.spawn(["nginx", "-c", path], 0)
        fleet.wait_for("nginx", lambda: not fleet.port_is_free(port), 10, process)
        workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        return Side("nginx", f"127.0.0.1:{port}", [int(pid) for pid in workers])

    def load(self, side, **kwargs):
        """One run of weir-bench; adds the measured process's CPU time per request and per event."""
        kwargs |= {"grpc": True} if side.grpc else {}
        args = [x for key, value in kwargs.items() for x in (f"--{key.replace('_', '-')}", str(value))]
        args = [a for a in args if a != "True"]
        before = cpu_us(side.pids)
        done = subprocess.run(pinned(1) + [os.path.join(BIN, "weir-bench"), "--target", side.target, "--api-key", KEY, *args],
                              capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise fleet.FleetError(f"{side.name}: {done.stderr.strip()}")
        out = json.loads(done.stdout)
        if out["errors"]:
            raise fleet.FleetError(f"{side.name}: {out['errors']} errors, first: {out['error']}")
        # The warm-up is loaded too: the share of CPU time that belongs to the measured part.
        seconds, warmup = kwargs.get("seconds", 5), kwargs.get("warmup", 1)
        out["cpu_us"] = (cpu_us(side.pids) - before) * seconds / (seconds + warmup)
        return out


def medians(rows):
    """Median of each number over the rounds."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def rounds(bench, sides, n, run):
    results = {side.name: [] for side in sides}
    for _ in range(n):
        for side in sides:
            results[side.name].append(run(side))
    return {name: medians(rows) for name, rows in results.items()}


def unary(bench, sides, n, seconds):
    def closed(side):
        out = bench.load(side, connections=64, seconds=seconds, warmup=0.5)
        cpu = out["cpu_us"] / max(1, out["requests"])
        return {"requests_s": out["requests_s"], "cpu_us": cpu, "per_core_s": 1e6 / cpu if cpu else 0,
                "p50_ms": out["latency_ms"]["p50"], "p99_ms": out["latency_ms"]["p99"]}
    return rounds(bench, sides, n, closed)


def latency(bench, sides, n, seconds, rate, connections):
    def open_loop(side):
        out = bench.load(side, connections=connections, rate=rate, seconds=seconds, warmup=0.5)
        return {k: out["latency_ms"][k] for k in ("p50", "p99")} | {"requests_s": out["requests_s"]}
    found = rounds(bench, [side for side in sides if not side.grpc], n, open_loop)
    direct = found.pop("direct")
    for row in found.values():
        row["added_p50"], row["added_p99"] = row["p50"] - direct["p50"], row["p99"] - direct["p99"]
    return {"direct": direct, **found}


def streams(bench, sides, n, seconds, connections, warmup):
    def run(side):
        out = bench.load(side, connections=connections, seconds=seconds, warmup=warmup, stream=True)
        return {"events_s": out["events_s"], "cpu_us": out["cpu_us"] / max(1, out["events"]), "gap_p99_ms": out["gap_ms"]["p99"]}
    found = rounds(bench, sides, n, run)
    for row in found.values():
        row["per_core_s"] = 1e6 / row["cpu_us"] if row["cpu_us"] else 0
    return found


def held(bench, connections):
    """One round: so many streams at once, and the most memory that the process ever had. One side at a time, since together
    they would have more connections to the stub than it has descriptors."""
    found = {}
    for start in (lambda stub: bench.start_router(stub)[0], bench.start_haproxy, bench.start_nginx):
        side = start(bench.start_stub(*PLANS["held"]))
        idle = memory_mb(side.pids)
        out = bench.load(side, connections=connections, seconds=4, warmup=2, stream=True)
        peak = memory_mb(side.pids, "VmHWM")
        found[side.name] = {"idle_mb": idle, "peak_mb": peak, "kb_a_stream": (peak - idle) * 1024 / connections,
                            "events_s": out["events_s"]}
        bench.stop()
    return found


def version(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().split("\n")[0]


def cpu_name():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "?")


def raise_file_limit():
    """As far as we may; returns how many streams a proxy can hold then, with a descriptor on each side."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (max(hard, 65536), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            break
        except (ValueError, PermissionError):
            continue
    return min(10000, (limit - 2000) // 2)


RATES = (1000, 5000, 10000)
# What the stub does in each phase: steps of an answer, and their pace.
PLANS = {"unary": ["--deltas", "1", "--tokens", "16"], "paced": ["--deltas", "200", "--gap-us", "10000"],
         "saturated": ["--deltas", "2000"], "held": ["--deltas", "4", "--gap-us", "1000000"]}


def run_phase(bench, phase, report, n, seconds):
    if phase == "held":
        report["held"] = held(bench, report["held_streams"])
        return
    stub = bench.start_stub(*PLANS[phase])
    rest, grpc = bench.start_router(stub)
    proxies = [bench.start_haproxy(stub), bench.start_nginx(stub)]
    if phase == "unary":
        direct = Side("direct", f"127.0.0.1:{stub['http']}", [])
        report["one_at_a_time"] = latency(bench, [direct, rest] + proxies, n, seconds, 200, 1)
        for rate in RATES:
            report[f"open_{rate}"] = latency(bench, [direct, rest] + proxies, n, seconds, rate, 64)
        report["unary"] = unary(bench, [rest, grpc] + proxies, n, seconds)
    elif phase == "paced":
        report["paced"] = streams(bench, [rest, grpc] + proxies, n, seconds, 256, warmup=1)
    else:
        report["saturated"] = streams(bench, [rest, grpc] + proxies, n, seconds, 16, warmup=0.5)


def measure(quick):
    n_held = raise_file_limit()
    n, seconds = (1, 1) if quick else (3, 2)
    report = {"machine": f"{os.cpu_count()} cores, {cpu_name()}", "load_average": os.getloadavg()[0],
              "held_streams": n_held,
              "versions": {"haproxy": version(["haproxy", "-v"]), "nginx": version(["nginx", "-v"])},
              "method": f"medians of {n} rounds of {seconds} s, sides in turn; "
                        + ("measured process on core 0, generator and stub on core 1; " if pinned(0) else "nothing pinned; ")
                        + "400-byte prompts, 16-token answers; connections reused"}
    for phase in PLANS:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(folder, n_held + 100)
            try:
                run_phase(bench, phase, report, n, seconds)
            finally:
                bench.stop()
    return report


def table(title, rows, columns):
    print(f"\n{title}")
    print("  " + " " * 10 + "".join(f"{c:>16}" for c in columns))
    for name, row in rows.items():
        print(f"  {name:<10}" + "".join(f"{row[c]:>16,.3f}" if c in row else f"{'-':>16}" for c in columns))


def show(report):
    print(f"{report['machine']}; load average at the start {report['load_average']:.1f}\n{report['method']}")
    print("; ".join(report["versions"].values()))
    table("Unary, closed loop, 64 connections", report["unary"], ["requests_s", "cpu_us", "per_core_s", "p50_ms", "p99_ms"])
    latencies = {"one_at_a_time": "One request at a time, 200/s"} | {f"open_{rate}": f"Open loop, {rate:,}/s" for rate in RATES}
    for key, title in latencies.items():
        table(f"{title} (ms)", report[key], ["p50", "p99", "added_p50", "added_p99", "requests_s"])
    for key, title in (("paced", "Streams: 256, an event each 10 ms"), ("saturated", "Streams: 16, as fast as they go")):
        table(title, report[key], ["events_s", "cpu_us", "per_core_s", "gap_p99_ms"])
    table(f"Memory: {report['held_streams']:,} streams, an event each second", report["held"],
          ["idle_mb", "peak_mb", "kb_a_stream", "events_s"])


def main():
    parser = argparse.ArgumentParser(prog="./dev bench router", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works")
    args = parser.parse_args()
    try:
        report = measure(args.quick)
    except fleet.FleetError as error:
        sys.exit(f"{parser.prog}: {error}")
    print(json.dumps(report)) if args.json else show(report)


if __name__ == "__main__":
    main()
