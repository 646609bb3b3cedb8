"""TLS everywhere: HTTPS for clients, TLS on the gRPC port, mutual TLS between routers and replicas, on the admin port and in
the mesh."""

import json
import ssl
import subprocess
import urllib.request

import grpc
import httpx
import openai
import pytest

import fleet as fleet_module
from conftest import check_exit


def make_pki(out):
    """A CA, and a certificate for 127.0.0.1 signed by it: {ca, cert, key}."""

    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=out)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "req.pem", "-subj", "/CN=127.0.0.1")
    (out / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem",
            "-days", "2", "-extfile", "ext")
    return {name: str(out / file) for name, file in (("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem"))}


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Certificates of the same names, signed by somebody else."""
    return make_pki(tmp_path_factory.mktemp("stranger"))


def test_tls_end_to_end(own_fleet, pki, stubs):
    pb, pb_grpc = stubs
    fleet = own_fleet(1, 1, router_args=[
        "--rest-tls-cert", pki["cert"], "--rest-tls-key", pki["key"], "--grpc-tls-cert", pki["cert"], "--grpc-tls-key", pki["key"],
        "--fabric-tls-ca", pki["ca"], "--fabric-tls-cert", pki["cert"], "--fabric-tls-key", pki["key"]],
        replica_args=["--tls-ca", pki["ca"], "--tls-cert", pki["cert"], "--tls-key", pki["key"]])
    router = fleet.routers[0]
    messages = [{"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=f"https://{router['rest']}/v1", api_key=fleet.api_key,
                       http_client=httpx.Client(verify=pki["ca"])) as api:
        assert list(api.chat.completions.create(model="demo", messages=messages, max_tokens=5, stream=True))
    with open(pki["ca"], "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    with grpc.secure_channel(router["grpc"], credentials) as channel:
        request = pb.GenerateRequest(model="demo", max_tokens=5, chat=pb.Chat(messages=[pb.Message(**messages[0])]))
        events = list(pb_grpc.InferenceStub(channel).Generate(request, metadata=(("authorization", f"Bearer {fleet.api_key}"),)))
    assert events[-1].WhichOneof("event") == "done"
    # Plaintext on a TLS port is refused, and harms nobody.
    assert fleet_module.get(f"http://{router['rest']}/healthz")[0] in (0, 400)
    # A router without a certificate gets no replica.
    fleet.router_args = ["--fabric-tls-ca", pki["ca"]]
    stranger = fleet.start_router(wait=False)
    fleet_module.wait_for("the stranger's view", lambda: b'"replica-1"' in fleet_module.get(
        f"http://{stranger['admin']}/debug/fleet")[1])
    assert fleet.usable(stranger) == set() and fleet.usable(router) == {"replica-1"}


@pytest.fixture()
def routers_alone(tmp_path_factory, bin_dir):
    """An etcd, and routers that each test starts as it likes."""
    fleet = fleet_module.Fleet(tmp_path_factory.mktemp("mtls"), bin_dir, "models/demo", port_base=23000)
    fleet.start_etcd()
    yield fleet
    check_exit(fleet, fleet.stop())


def admin_over_tls(router, path, pki, cert=None, token=None):
    """The status of a GET on the admin port over TLS; 0 when the handshake was refused."""
    tls = ssl.create_default_context(cafile=pki["ca"])
    if cert:
        tls.load_cert_chain(cert["cert"], cert["key"])
    with httpx.Client(verify=tls) as client:
        try:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return client.get(f"https://{router['admin']}{path}", headers=headers).status_code
        except httpx.TransportError:
            return 0


def test_the_admin_port_serves_who_has_a_certificate(routers_alone, pki, stranger):
    fleet = routers_alone
    tls = ["--admin-tls-ca", pki["ca"], "--admin-tls-cert", pki["cert"], "--admin-tls-key", pki["key"]]
    router = fleet.start_router([*tls, "--admin-token", ""], wait=False)
    fleet_module.wait_for("the router", lambda: admin_over_tls(router, "/healthz", pki, pki) == 200)
    assert admin_over_tls(router, "/v1/accounts", pki, pki) == 200  # the certificate alone is enough where there is no token
    assert admin_over_tls(router, "/v1/accounts", pki) == 0
    assert admin_over_tls(router, "/v1/accounts", pki, stranger) == 0
    assert admin_over_tls(router, "/metrics", pki) == 0
    assert fleet_module.get(f"http://{router['admin']}/v1/accounts")[0] in (0, 400)
    made = json.loads(fleet.ctl("account", "create", "over-tls", "-o", "json", "--admin-ca", pki["ca"], "--admin-cert", pki["cert"],
                                "--admin-key", pki["key"]))
    assert made["name"] == "accounts/over-tls"
    with pytest.raises(fleet_module.FleetError):
        fleet.ctl("account", "list", "--admin-ca", pki["ca"])
    # Where there is a token, it takes both.
    both = fleet.start_router(tls, wait=False)
    fleet_module.wait_for("the router", lambda: admin_over_tls(both, "/healthz", pki, pki) == 200)
    assert admin_over_tls(both, "/v1/accounts", pki, pki) == 401
    assert admin_over_tls(both, "/v1/accounts", pki, pki, token=fleet.admin_token) == 200
    assert admin_over_tls(both, "/v1/accounts", pki, token=fleet.admin_token) == 0


@pytest.mark.parametrize("args", [["--admin-tls-ca", "ca"], ["--admin-tls-key", "key"], ["--rest-tls-key", "key"],
                                  ["--mesh-tls-cert", "cert", "--mesh-tls-key", "key"], ["--mesh-tls-ca", "ca"]])
def test_half_of_tls_is_no_plaintext_port(routers_alone, pki, args):
    router = routers_alone.start_router([pki.get(word, word) for word in args], wait=False)
    process = routers_alone.processes.pop(router["id"])
    assert process.wait(timeout=20) == 1
    with open(routers_alone.log_path(router["id"])) as log:
        assert "start_failed" in log.read()


def connected(router):
    """Ids of the routers that this one sends to."""
    request = urllib.request.Request(f"http://{router['admin']}/v1/fleet/mesh", headers={"authorization": f"Bearer {router['token']}"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        return {p["id"] for p in json.loads(reply.read())["peers"] if p["connected"]}


def test_the_mesh_is_of_routers_with_certificates(routers_alone, pki, stranger):
    fleet = routers_alone

    def start(cert):
        args = ["--mesh-tls-ca", cert["ca"], "--mesh-tls-cert", cert["cert"], "--mesh-tls-key", cert["key"]] if cert else []
        router = fleet.start_router(args, wait=False)
        fleet_module.wait_for(router["id"], lambda: fleet_module.get(f"http://{router['admin']}/healthz")[0] == 200)
        return {**router, "token": fleet.admin_token}

    first, second = start(pki), start(pki)
    others = [start(stranger), start(None)]
    fleet_module.wait_for("the mesh", lambda: connected(first) == {second["id"]} and connected(second) == {first["id"]})
    for other in others:
        assert connected(other) == set()
    assert connected(first) == {second["id"]}
    # Nobody without a certificate is heard by the port, either.
    with open(pki["ca"], "rb") as ca, open(pki["cert"], "rb") as cert, open(pki["key"], "rb") as key:
        root, served = ca.read(), (key.read(), cert.read())
    assert b"router-1" in greet(first, grpc.ssl_channel_credentials(root, *served))
    assert greet(first, grpc.ssl_channel_credentials(root)) is None


def greet(router, credentials):
    """What the mesh port answers to a hello; None when it does not."""
    hello = b"\x0a\x0c\x0a\x08intruder\x18\x01"  # Frame{hello: {router: "intruder", version: 1}}
    with grpc.secure_channel(router["mesh"], credentials) as channel:
        call = channel.stream_stream("/weir.mesh.v1.Mesh/Exchange", lambda b: b, lambda b: b)
        try:
            return b"".join(call(iter([hello]), timeout=10))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            return None
