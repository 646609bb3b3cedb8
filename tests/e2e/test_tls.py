"""TLS everywhere: HTTPS for clients, TLS on the gRPC port, and mutual TLS between routers and replicas."""

import subprocess

import grpc
import httpx
import openai
import pytest

import fleet as fleet_module


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A CA, and a certificate for 127.0.0.1 signed by it: {ca, cert, key}."""
    out = tmp_path_factory.mktemp("pki")

    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=out)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "req.pem", "-subj", "/CN=127.0.0.1")
    (out / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem",
            "-days", "2", "-extfile", "ext")
    return {name: str(out / file) for name, file in (("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem"))}


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
