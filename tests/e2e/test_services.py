"""What operators look at: gRPC health and reflection, metrics, the admin page, configuration, weirctl, --help."""

import json
import os
import subprocess

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import fleet as fleet_module
from conftest import ROOT, fleet_view, metrics


def test_health(fleet):
    for address in [r["grpc"] for r in fleet.routers + fleet.replicas]:
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as caught:
                stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=5)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection(fleet):
    """What grpcurl does: list the services, fetch their descriptions, and find the method's types."""
    with grpc.insecure_channel(fleet.routers[0]["grpc"]) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "weir.v1.Inference" in database.get_services()
        file = database.FindFileContainingSymbol("weir.v1.Inference")
        assert file.name == "weir/v1/inference.proto"
        assert any(m.name == "GenerateRequest" for m in file.message_type)


def test_unknown_method(fleet):
    with grpc.insecure_channel(fleet.routers[0]["grpc"]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/weir.v1.Inference/Nothing")(b"", timeout=5)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_admin_page_and_views(fleet):
    router = fleet.routers[0]
    status, page = fleet_module.get(f"http://{router['admin']}/")
    assert status == 200 and b"<title>Weir</title>" in page and b"v1/chat/completions" in page
    view = fleet_view(router)
    assert view["self"]["id"] == "router-1" and view["self"]["discovery_connected"]
    assert [r["id"] for r in view["routers"]] == ["router-1", "router-2"]
    assert {r["id"]: r["state"] for r in view["replicas"]} == {"replica-1": "usable", "replica-2": "usable"}
    assert all(r["slots"] > 0 and r["kv_blocks"] > 0 for r in view["replicas"])
    config = json.loads(fleet_module.get(f"http://{router['admin']}/debug/config")[1])
    assert config["rest_listen"]["from"] == "flag" and config["body_bytes_max"]["from"] == "default"
    assert fleet_module.get(f"http://{router['admin']}/nothing")[0] == 404


def test_chat_box_goes_through_the_admin_listener(fleet):
    import openai
    api = openai.OpenAI(base_url=f"http://{fleet.routers[0]['admin']}/v1", api_key=fleet.api_key)
    stream = api.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hi"}], max_tokens=5, stream=True)
    assert len(list(stream)) >= 1


def test_metrics_count_calls_and_tokens(fleet):
    import openai
    router = fleet.routers[1]
    before = metrics(router["admin"])
    api = openai.OpenAI(base_url=f"http://{router['rest']}/v1", api_key=fleet.api_key)
    usage = api.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hi"}], max_tokens=5).usage
    after = metrics(router["admin"])
    for kind, count in (("prompt", usage.prompt_tokens), ("completion", usage.completion_tokens)):
        name = f'weir_tokens_total{{kind="{kind}"}}'
        assert after[name] - before.get(name, 0) == count
    assert not any(fleet.api_key in name for name in after)


def test_keys_come_and_go(fleet):
    """A new key works, and a deleted one stops working, on every router within a second or so."""
    import urllib.request

    def status(router, key):
        request = urllib.request.Request(f"http://{router['rest']}/v1/models", headers={"authorization": f"Bearer {key}"})
        try:
            return urllib.request.urlopen(request, timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code

    def becomes(key, wanted):
        fleet_module.wait_for(f"status {wanted}", lambda: all(status(r, key) == wanted for r in fleet.routers), seconds=5)

    key = fleet.create_key("short-lived")
    becomes(key, 200)
    fleet.ctl("api-key", "delete", "--name", "short-lived")
    becomes(key, 401)
    assert "short-lived" not in fleet.ctl("api-key", "list")
    assert key not in fleet.ctl("api-key", "list", "-o", "json")  # never stored, never shown again


def test_programs_explain_themselves(bin_dir):
    for program in ("weir-router", "weir-replica"):
        path = os.path.join(bin_dir, program)
        help_text = subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout
        assert "--admin-listen" in help_text or "admin_listen" in help_text
        assert subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        good = subprocess.run([path, "--check-config", "--cq-threads", "2"], capture_output=True, text=True, check=True).stdout
        assert '"cq_threads"' in good
        for args, named in ((["--cq-threads", "99"], "cq_threads"), (["--nothing", "1"], "nothing"),
                            (["--drain-timeout-ms", "soon"], "drain_timeout_ms")):
            done = subprocess.run([path, *args], capture_output=True, text=True)
            assert done.returncode == 2 and named in done.stderr.replace("-", "_")


def test_a_taken_port_is_a_clear_error(fleet, bin_dir):
    done = subprocess.run([os.path.join(bin_dir, "weir-router"), "--rest-listen", fleet.routers[0]["rest"], "--discovery",
                           fleet.discovery(), "--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and fleet.routers[0]["rest"].split(":")[1] in done.stderr


def test_a_bad_model_folder_is_a_clear_error(fleet, bin_dir, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    done = subprocess.run([os.path.join(bin_dir, "weir-replica"), "--model-dir", str(tmp_path)], capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 1 and "tokenizer.json" in done.stderr


def test_up_and_down(tmp_path, bin_dir):
    """./dev up --detach in full: the banner's curl line works when pasted, fleet.json says where things are, down stops them."""
    command = ["python3", os.path.join(ROOT, "tools", "fleet.py")]
    places = ["--run-dir", str(tmp_path), "--bin-dir", bin_dir]
    up = subprocess.run([*command, "up", "--detach", "--routers", "1", "--replicas", "1", *places], capture_output=True,
                        text=True, timeout=120)
    assert up.returncode == 0, up.stderr
    fleet = json.loads((tmp_path / "fleet.json").read_text())
    try:
        pasted = up.stdout[up.stdout.index("  curl"):up.stdout.index("\n\n", up.stdout.index("  curl"))]
        done = subprocess.run(["bash", "-c", pasted], capture_output=True, text=True, timeout=60)
        assert "data: [DONE]" in done.stdout, done.stderr
        again = subprocess.run([*command, "up", "--detach", *places], capture_output=True, text=True, timeout=60)
        assert again.returncode == 1 and "running already" in again.stderr
        assert set(fleet) >= {"api_key", "etcd", "routers", "replicas"}
        assert set(fleet["routers"][0]) == {"id", "rest", "grpc", "admin", "mesh", "pid"}
        assert set(fleet["replicas"][0]) == {"id", "grpc", "admin", "pid", "model"}
        ctl = subprocess.run([os.path.join(bin_dir, "weirctl"), "--fleet", str(tmp_path / "fleet.json"), "fleet"],
                             capture_output=True, text=True, timeout=30)
        assert "router-1" in ctl.stdout and "replica-1" in ctl.stdout
    finally:
        subprocess.run([*command, "down", *places], check=True, timeout=60)
    assert not (tmp_path / "fleet.json").exists()
    assert not any(fleet_module.pid_is_ours(e["pid"], ["weir-"]) for e in fleet["routers"] + fleet["replicas"])
