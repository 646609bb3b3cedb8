#!/usr/bin/env python3
"""Starts, watches and stops a local fleet: etcd, routers, replicas. Used by ./dev up and by the end-to-end tests.

Standard library only. Every process is a child with its own log file in the run folder; a fleet is written down in
<run>/fleet.json so that scripts need not guess. Ports start at well-known numbers and step over those that are taken.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PORTS = {"etcd": 2379, "etcd-peer": 2380, "rest": 8080, "router-grpc": 8180, "router-admin": 8280,
         "replica-grpc": 8380, "replica-admin": 8480, "mesh": 8580}
READY_S = 60


class FleetError(Exception):
    """Something a person can act on; printed without a traceback."""


def port_is_free(port):
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0")):
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def get(url, timeout=2.0, headers=None):
    """(status, body) of a GET; (0, reason) when nobody answers. Whose certificate it is does not matter here."""
    tls = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=timeout) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, ValueError) as error:
        return 0, str(error).encode()


def wait_for(what, check, seconds=READY_S, process=None, log=None):
    """Polls check() until it is true; a FleetError names what it waited for, and shows the log's end."""
    deadline = time.monotonic() + seconds
    while True:
        if check():
            return
        dead = process is not None and process.poll() is not None
        if dead or time.monotonic() > deadline:
            tail = ""
            if log and os.path.exists(log):
                with open(log, errors="replace") as file:
                    tail = "\n" + "".join(file.readlines()[-12:])
            how = f"ended with code {process.returncode}" if dead else f"was not ready after {seconds:.0f} s"
            raise FleetError(f"{what} {how}{tail}")
        time.sleep(0.05)


class Fleet:
    """One local fleet. Use it as a context manager in tests, or through main() as ./dev up."""

    def __init__(self, run_dir, bin_dir, model, model_name="demo", router_args=(), replica_args=(), env=None,
                 say=lambda text: None, port_base=0, lease_s=5):
        self.run_dir = os.path.abspath(run_dir)
        self.bin_dir = os.path.abspath(bin_dir)
        self.model = os.path.abspath(model)
        self.model_name = model_name
        self.router_args, self.replica_args = list(router_args), list(replica_args)
        self.env = dict(os.environ, **(env or {}))
        self.say = say
        self.port_base = port_base
        self.lease_s = lease_s
        self.taken = set()
        self.processes = {}  # name -> Popen
        self.etcd_port = None
        self.api_key = None
        self.admin_token = secrets.token_hex(16)
        self.env["WEIR_ROUTER_ADMIN_TOKEN"] = self.env["WEIR_ADMIN_TOKEN"] = self.admin_token
        self.routers, self.replicas = [], []
        os.makedirs(self.run_dir, exist_ok=True)

    # -- processes ---------------------------------------------------------------------------------------------
    def port(self, kind):
        port = PORTS[kind] + self.port_base
        while port in self.taken or not port_is_free(port):
            port += 1
            if port > 65000:
                raise FleetError(f"no free port for {kind}")
        self.taken.add(port)
        return port

    def log_path(self, name):
        return os.path.join(self.run_dir, f"{name}.log")

    def spawn(self, name, command, env=None):
        with open(self.log_path(name), "ab") as log:
            try:
                self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                                        env=dict(self.env, **(env or {})), start_new_session=True)
            except FileNotFoundError:
                raise FleetError(f"{command[0]} is not there: build first (./dev build)") from None
        return self.processes[name]

    def binary(self, name):
        return os.path.join(self.bin_dir, name)

    # -- etcd --------------------------------------------------------------------------------------------------
    @property
    def etcd(self):
        return f"127.0.0.1:{self.etcd_port}"

    def start_etcd(self):
        if self.etcd_port is None:
            self.etcd_port = self.port("etcd")
            self.etcd_peer_port = self.port("etcd-peer")
            shutil.rmtree(os.path.join(self.run_dir, "etcd"), ignore_errors=True)
        if not shutil.which("etcd"):
            raise FleetError("etcd is not installed (package etcd-server)")
        url, peer = f"http://{self.etcd}", f"http://127.0.0.1:{self.etcd_peer_port}"
        process = self.spawn("etcd", [
            "etcd", "--name", "weir", "--data-dir", os.path.join(self.run_dir, "etcd"), "--log-level", "warn",
            "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"weir={peer}"],
            env={"ETCD_UNSUPPORTED_ARCH": os.uname().machine})
        wait_for("etcd", lambda: get(url + "/health")[0] == 200, process=process, log=self.log_path("etcd"))

    def discovery(self):
        return f"etcd://{self.etcd}"

    def ctl(self, *args):
        """Runs weirctl against this fleet; returns its standard output."""
        admin = ["--admin", self.routers[0]["admin"]] if self.routers and "--admin" not in args else []
        done = subprocess.run([self.binary("weirctl"), "--source", self.discovery(), *admin, *args], env=self.env,
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise FleetError(f"weirctl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def create_account(self, name, *args):
        return json.loads(self.ctl("account", "create", name, *args, "-o", "json"))

    def create_key(self, name, account="demo"):
        return json.loads(self.ctl("api-key", "create", "--account", account, "--key-name", name, "-o", "json"))["key"]

    def knows(self, router, key):
        scheme = "https" if "--rest-tls-cert" in self.router_args else "http"
        return get(f"{scheme}://{router['rest']}/v1/models", headers={"authorization": f"Bearer {key}"})[0] == 200

    # -- routers and replicas ----------------------------------------------------------------------------------
    def start_replica(self, extra_args=(), wait=True, index=None, model=None, model_name=None):
        index = len(self.replicas) + 1 if index is None else index
        name = f"replica-{index}"
        known = next((r for r in self.replicas if r["id"] == name), None)
        grpc = known["grpc"] if known else f"127.0.0.1:{self.port('replica-grpc')}"
        admin = known["admin"] if known else f"127.0.0.1:{self.port('replica-admin')}"
        model_name = model_name or self.model_name
        process = self.spawn(name, [
            self.binary("weir-replica"), "--id", name, "--model-dir", os.path.abspath(model or self.model),
            "--model-name", model_name, "--grpc-listen", grpc, "--admin-listen", admin,
            "--discovery", self.discovery(), "--lease-ttl-s", str(self.lease_s), *self.replica_args, *extra_args])
        entry = {"id": name, "grpc": grpc, "admin": admin, "pid": process.pid, "model": model_name}
        if known:
            self.replicas[self.replicas.index(known)] = entry
        else:
            self.replicas.append(entry)
        if wait:
            wait_for(name, lambda: get(f"http://{admin}/readyz")[0] == 200, process=process, log=self.log_path(name))
        return entry

    def start_router(self, extra_args=(), wait=True, index=None):
        index = len(self.routers) + 1 if index is None else index
        name = f"router-{index}"
        known = next((r for r in self.routers if r["id"] == name), None)
        kinds = {"rest": "rest", "grpc": "router-grpc", "admin": "router-admin", "mesh": "mesh"}
        rest, grpc, admin, mesh = (known[k] if known else f"127.0.0.1:{self.port(kind)}" for k, kind in kinds.items())
        process = self.spawn(name, [
            self.binary("weir-router"), "--id", name, "--rest-listen", rest, "--grpc-listen", grpc,
            "--admin-listen", admin, "--mesh-listen", mesh, "--discovery", self.discovery(), "--lease-ttl-s", str(self.lease_s),
            *self.router_args, *extra_args])
        entry = {"id": name, "rest": rest, "grpc": grpc, "admin": admin, "mesh": mesh, "pid": process.pid}
        if known:
            self.routers[self.routers.index(known)] = entry
        else:
            self.routers.append(entry)
        if wait:
            wait_for(name, lambda: get(f"http://{admin}/readyz")[0] == 200, process=process, log=self.log_path(name))
        return entry

    def usable(self, router):
        """Ids of the replicas that this router can send work to."""
        status, body = get(f"http://{router['admin']}/debug/fleet")
        if status != 200:
            return set()
        return {r["id"] for r in json.loads(body)["replicas"] if r["state"] == "usable"}

    def wait_attached(self, ids=None, seconds=READY_S):
        ids = set(ids if ids is not None else (r["id"] for r in self.replicas))
        for router in self.routers:
            wait_for(f"{router['id']}'s way to {', '.join(sorted(ids))}", lambda: self.usable(router) == ids, seconds,
                     process=self.processes.get(router["id"]), log=self.log_path(router["id"]))

    # -- the whole ---------------------------------------------------------------------------------------------
    def start(self, n_routers, n_replicas):
        self.say("etcd ...")
        self.start_etcd()
        self.say(f"{n_replicas} replica{'s' * (n_replicas != 1)} load {os.path.relpath(self.model, ROOT)} ...")
        for _ in range(n_replicas):
            self.start_replica(wait=False)
        self.say(f"{n_routers} router{'s' * (n_routers != 1)} ...")
        for _ in range(n_routers):
            self.start_router(wait=False)
        for entry in self.replicas + self.routers:
            wait_for(entry["id"], lambda: get(f"http://{entry['admin']}/readyz")[0] == 200,
                     process=self.processes[entry["id"]], log=self.log_path(entry["id"]))
        self.create_account("demo", "--unlimited", "true")
        self.api_key = self.create_key("demo")
        for router in self.routers:
            wait_for(f"{router['id']}'s view of the key", lambda: self.knows(router, self.api_key))
        self.wait_attached()
        self.write()
        return self

    def write(self):
        path = os.path.join(self.run_dir, "fleet.json")
        pids = {name: process.pid for name, process in self.processes.items()}
        with open(path + ".new", "w") as file:
            json.dump({"api_key": self.api_key, "admin_token": self.admin_token, "etcd": self.etcd, "routers": self.routers,
                       "replicas": self.replicas, "etcd_pid": pids.get("etcd")}, file, indent=2)
            file.write("\n")
        os.replace(path + ".new", path)

    def signal(self, name, number):
        self.processes[name].send_signal(number)

    def kill(self, name):
        """kill -9 and reap."""
        self.processes[name].kill()
        self.processes.pop(name).wait()

    def stop(self, grace_s=20):
        """Routers, then replicas, then etcd; whoever does not go in time is killed. Returns the exit codes."""
        codes = {}
        for prefix in ("router", "replica", "etcd"):
            group = {n: p for n, p in self.processes.items() if n.startswith(prefix)}
            for process in group.values():
                if process.poll() is None:
                    process.terminate()
                    process.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + grace_s
            for name, process in group.items():
                try:
                    codes[name] = process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    codes[name] = process.wait()
                del self.processes[name]
        return codes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


# -- ./dev up and ./dev down -----------------------------------------------------------------------------------
def pid_is_ours(pid, words):
    """Is this process still the one we started? Pids are used again; a command line tells."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
        return any(word.encode() in command for word in words)
    except OSError:
        return False


def read_fleet(run_dir):
    try:
        with open(os.path.join(run_dir, "fleet.json")) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def fleet_pids(fleet):
    """Every process of a fleet that still runs, in the order in which to stop them."""
    groups = [(fleet["routers"], "weir-router"), (fleet["replicas"], "weir-replica"),
              ([{"pid": fleet.get("etcd_pid") or 0}], "etcd")]
    return [(entry["pid"], word) for entries, word in groups for entry in entries if pid_is_ours(entry["pid"], [word])]


def down(run_dir, quiet=False):
    fleet = read_fleet(run_dir)
    running = fleet_pids(fleet) if fleet else []
    if not running and not quiet:
        print("no fleet is running")
    for word in ("weir-router", "weir-replica", "etcd"):
        group = [pid for pid, w in running if w == word]
        for pid in group:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        for pid in group:
            while pid_is_ours(pid, [word]):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
    if fleet:
        os.unlink(os.path.join(run_dir, "fleet.json"))
    if running and not quiet:
        print(f"stopped {len(running)} processes")


def banner(fleet):
    rest, admin = fleet.routers[0]["rest"], fleet.routers[0]["admin"]
    lines = ["", "The fleet is up."]
    for router in fleet.routers:
        lines.append(f"  {router['id']:<10} REST http://{router['rest']}/v1   gRPC {router['grpc']}   "
                     f"admin http://{router['admin']}/")
    for replica in fleet.replicas:
        lines.append(f"  {replica['id']:<10} {replica['model']}   gRPC {replica['grpc']}   admin {replica['admin']}")
    lines += [f"  API key    {fleet.api_key}", f"  Live view and a chat box: http://{admin}/", "", "Try:",
              f"  curl -N http://{rest}/v1/chat/completions -H 'Authorization: Bearer {fleet.api_key}' \\",
              "    -H 'Content-Type: application/json' \\",
              f"    -d '{{\"model\": \"{fleet.model_name}\", \"stream\": true, "
              "\"messages\": [{\"role\": \"user\", \"content\": \"Tell me a story about a fox.\"}]}'", ""]
    return "\n".join(lines)


def watch(fleet):
    """Until Ctrl-C; a process that dies on its own is an error that is told, not a silent gap."""
    while True:
        for name, process in list(fleet.processes.items()):
            if process.poll() is not None:
                print(f"{name} ended with code {process.returncode}: see {fleet.log_path(name)}", file=sys.stderr)
                del fleet.processes[name]
        if not fleet.processes:
            raise FleetError("every process has ended")
        time.sleep(0.5)


def up(args):
    if fleet_pids(read_fleet(args.run_dir) or {"routers": [], "replicas": []}):
        raise FleetError("a fleet is running already: ./dev down stops it")
    if not os.path.exists(os.path.join(args.model, "config.json")):
        raise FleetError(f"{args.model}: not a model folder (no config.json)")
    name = os.path.basename(os.path.abspath(args.model))
    # The replicas of one machine share its cores instead of fighting over them.
    replica_args = ["--threads", str(max(1, (os.cpu_count() or 1) // args.replicas))]
    replica_args += ["--tensor-parallel", str(args.tp)] if args.tp > 1 else []
    replica_args += ["--weights", args.weights] if args.weights != "native" else []
    replica_args += ["--kv-type", args.kv_type] if args.kv_type != "bf16" else []
    replica_args += ["--deterministic"] if args.deterministic else []
    fleet = Fleet(args.run_dir, args.bin_dir, args.model, name, replica_args=replica_args,
                  say=lambda text: print(text, flush=True))

    def interrupted(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupted)
    try:
        fleet.start(args.routers, args.replicas)
        print(banner(fleet), flush=True)
        if args.detach:
            print("It runs in the background: ./dev down stops it, ./dev ctl fleet looks at it.")
            return
        print("Ctrl-C stops it.", flush=True)
        watch(fleet)
    except KeyboardInterrupt:
        print("\nstopping ...", flush=True)
        fleet.stop()
        remove(os.path.join(args.run_dir, "fleet.json"))
    except BaseException:
        fleet.stop(grace_s=3)
        raise


def remove(path):
    if os.path.exists(path):
        os.unlink(path)


def main():
    parser = argparse.ArgumentParser(prog="./dev up", description="start a local fleet")
    parser.add_argument("command", choices=["up", "down"], help=argparse.SUPPRESS)
    parser.add_argument("--routers", type=int, default=2, metavar="N", help="routers to start (2)")
    parser.add_argument("--replicas", type=int, default=2, metavar="M", help="replicas to start (2)")
    parser.add_argument("--tp", type=int, default=1, metavar="T", help="tensor-parallel ranks in each replica (1)")
    parser.add_argument("--weights", default="native", choices=["native", "q8", "q4"],
                        help="how replicas keep weights (native)")
    parser.add_argument("--kv-type", default="bf16", choices=["bf16", "f32"],
                        help="how replicas keep keys and values; f32 takes twice the memory (bf16)")
    parser.add_argument("--deterministic", action="store_true",
                        help="on one GPU: no token differs with its company, at a price for prompts")
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "demo"), metavar="DIR",
                        help="a Hugging Face model folder (the bundled demo model)")
    parser.add_argument("--detach", action="store_true", help="leave it running; ./dev down stops it")
    parser.add_argument("--run-dir", default=os.path.join(ROOT, "build", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--bin-dir", default=os.path.join(ROOT, "build", "release", "bin"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        if args.routers < 1 or args.replicas < 1 or args.tp < 1:
            raise FleetError("--routers, --replicas and --tp must be 1 or more")
        down(args.run_dir) if args.command == "down" else up(args)
    except FleetError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
