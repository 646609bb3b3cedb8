"""A real fleet for the end-to-end tests: etcd, two routers, two replicas, real clients.

Environment: WEIR_BIN (folder with the binaries), WEIR_PRESET (release, dev, asan, tsan: slower builds get longer deadlines
and smaller crowds)."""

import json
import os
import shutil
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import fleet as fleet_module  # noqa: E402

PRESET = os.environ.get("WEIR_PRESET", "release")
SLOW = PRESET in ("asan", "tsan")
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
    os.environ.pop(name, None)


def pytest_configure(config):
    config.addinivalue_line("markers", "crowd: opens thousands of connections; not under a sanitizer")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if SLOW and "crowd" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"a crowd of connections says nothing under {PRESET}"))


@pytest.fixture(scope="session")
def bin_dir():
    return os.environ.get("WEIR_BIN", os.path.join(ROOT, "build", "release", "bin"))


def check_exit(fleet, codes):
    """Nobody crashed, leaked or raced: the sanitizers exit with a code of their own."""
    bad = {name: code for name, code in codes.items() if code not in (0, -9) and name != "etcd"}
    assert not bad, f"{bad}; logs in {fleet.run_dir}"


def stop_all(fleets):
    """All of them, before any is judged: one left running would join the etcd that gets its port next."""
    for fleet, codes in [(fleet, fleet.stop()) for fleet in fleets]:
        check_exit(fleet, codes)


@pytest.fixture(scope="session")
def make_fleet(tmp_path_factory, bin_dir):
    """make_fleet(n_routers, n_replicas, **Fleet arguments) -> a started fleet; stopped and checked at the end."""
    started = []

    def make(n_routers=2, n_replicas=2, model=os.path.join(ROOT, "models", "demo"), **kwargs):
        kwargs["replica_args"] = ["--threads", "1", *kwargs.get("replica_args", [])]
        fleet = fleet_module.Fleet(tmp_path_factory.mktemp("fleet"), bin_dir, model, port_base=20000, **kwargs)
        started.append(fleet)
        return fleet.start(n_routers, n_replicas)

    yield make
    stop_all(started)


@pytest.fixture(scope="session")
def fleet(make_fleet):
    """The fleet that tests share when they harm nobody."""
    return make_fleet()


@pytest.fixture()
def own_fleet(make_fleet):
    """A fleet of the test's own, to be broken: own_fleet(n_routers, n_replicas); stopped right after the test."""
    mine = []

    def make(*args, **kwargs):
        mine.append(make_fleet(*args, **kwargs))
        return mine[-1]

    yield make
    stop_all(mine)


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory):
    """The demo model without an end token: a stream lasts as long as max_tokens says."""
    out = tmp_path_factory.mktemp("endless") / "demo"
    shutil.copytree(os.path.join(ROOT, "models", "demo"), out)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((out / name).read_text())
        config["eos_token_id"] = None
        (out / name).write_text(json.dumps(config))
    return str(out)


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The gRPC stubs that a user would generate: (inference_pb2, inference_pb2_grpc)."""
    out = tmp_path_factory.mktemp("stubs")
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", os.path.join(ROOT, "proto"), f"--python_out={out}",
                    f"--grpc_python_out={out}", "weir/v1/inference.proto"], check=True, cwd=ROOT)
    sys.path.insert(0, str(out))
    from weir.v1 import inference_pb2, inference_pb2_grpc
    return inference_pb2, inference_pb2_grpc


@pytest.fixture(params=[0, 1], ids=["router-1", "router-2"])
def router(request, fleet):
    """Each of the shared fleet's routers in turn."""
    return fleet.routers[request.param]


def metrics(address):
    """The samples of a process's /metrics: {'name{labels}': value}."""
    status, body = fleet_module.get(f"http://{address}/metrics")
    assert status == 200
    lines = (line.rsplit(" ", 1) for line in body.decode().splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def fleet_view(router):
    status, body = fleet_module.get(f"http://{router['admin']}/debug/fleet")
    assert status == 200
    return json.loads(body)
