"""Accounts, keys and models as operators and clients meet them: two routers, the admin API, REST and gRPC."""

import base64
import json
import socket
import time
import urllib.error
import urllib.request

import fleet as fleet_module
import grpc
import pytest


def admin(fleet, method, path, body=None, token=None, router=0):
    """(status, answer) of one request to the admin API."""
    headers = {"authorization": f"Bearer {fleet.admin_token if token is None else token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{fleet.routers[router]['admin']}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def put(fleet, key, value):
    """A record put into etcd past the API."""
    body = json.dumps({"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()})
    urllib.request.urlopen(urllib.request.Request(f"http://{fleet.etcd}/v3/kv/put", body.encode())).read()


def chat(router, key, model="demo"):
    """(status, body) of a short chat."""
    body = json.dumps({"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(f"http://{router['rest']}/v1/chat/completions", body,
                                     {"authorization": f"Bearer {key}", "content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def rpc(router, key, stubs, model="demo"):
    """(grpc code, error code in the trailers) of the same chat."""
    pb, pb_grpc = stubs
    message = pb.GenerateRequest(model=model, max_tokens=2, chat=pb.Chat(messages=[pb.Message(role="user", content="hi")]))
    with grpc.insecure_channel(router["grpc"]) as channel:
        call = pb_grpc.InferenceStub(channel).Generate(message, metadata=(("authorization", f"Bearer {key}"),), timeout=30)
        try:
            list(call)
        except grpc.RpcError:
            pass
        return call.code(), dict(call.trailing_metadata()).get("weir-error-code")


def everywhere(fleet, check):
    """Waits until check(router) holds on every router."""
    for router in fleet.routers:
        fleet_module.wait_for(router["id"], lambda: check(router), seconds=20)


def test_accounts_over_the_admin_api(fleet):
    status, made = admin(fleet, "POST", "/v1/accounts?accountId=crud", {"displayName": "C", "spendTier": 2})
    assert status == 200 and made["name"] == "accounts/crud" and made["spendTier"] == 2 and made["createTime"]
    status, error = admin(fleet, "POST", "/v1/accounts?accountId=crud")
    assert status == 409 and error["code"] == 6
    assert admin(fleet, "GET", "/v1/accounts/crud", router=1) == (200, made)
    status, changed = admin(fleet, "PATCH", "/v1/accounts/crud", {"hasPaymentMethod": True}, router=1)
    assert status == 200 and changed["hasPaymentMethod"] and changed["spendTier"] == 2 and changed["displayName"] == "C"
    status, error = admin(fleet, "PATCH", "/v1/accounts/crud", {"spendTier": 17})
    assert status == 400 and error["details"] == [{"field": "spendTier"}]
    assert admin(fleet, "POST", "/v1/accounts/crud:suspend", {"suspendState": "FAILED_PAYMENTS"})[1]["suspendState"] == "FAILED_PAYMENTS"
    assert admin(fleet, "POST", "/v1/accounts/crud:resume")[1]["suspendState"] == "UNSUSPENDED"
    assert admin(fleet, "GET", "/v1/accounts/nobody")[0] == 404
    assert admin(fleet, "DELETE", "/v1/accounts/crud")[0] == 405
    assert admin(fleet, "GET", "/v1/fleet/nothing")[0] == 404


def test_lists_come_in_pages(fleet):
    for i in range(5):
        admin(fleet, "POST", f"/v1/accounts?accountId=page-{i}")
    names, token = [], ""
    while True:
        status, page = admin(fleet, "GET", f"/v1/accounts?pageSize=2&pageToken={token}")
        assert status == 200 and len(page["accounts"]) <= 2
        names += [a["name"] for a in page["accounts"]]
        token = page.get("nextPageToken")
        if not token:
            break
    assert names == sorted(names) and {f"accounts/page-{i}" for i in range(5)} <= set(names)
    assert admin(fleet, "GET", "/v1/accounts?pageSize=x")[1]["details"] == [{"field": "pageSize"}]


def test_a_malformed_path_or_query_is_refused(fleet):
    admin(fleet, "POST", "/v1/accounts?accountId=cut")
    for path in ("/v1/accounts/cut%00x", "/v1/accounts/cut%zz", "/v1/accounts/cut%2"):
        assert admin(fleet, "GET", path)[0] == 400
    assert admin(fleet, "POST", "/v1/accounts/cut%00x/apiKeys", {"displayName": "k"})[0] == 400
    assert admin(fleet, "GET", "/v1/accounts/cut/apiKeys")[1] == {"apiKeys": []}
    for path, field in (("/v1/accounts?pageToken=%zz", "pageToken"), ("/v1/accounts?pageSize=%zz", "pageSize"),
                        ("/v1/accounts/cut/limits?model=%00", "model"), ("/v1/accounts/cut/serverlessRateLimits?deployment=%", "deployment")):
        status, error = admin(fleet, "GET", path)
        assert status == 400 and error["details"] == [{"field": field}], path
    status, error = admin(fleet, "POST", "/v1/accounts?accountId=%zz")
    assert status == 400 and error["details"] == [{"field": "accountId"}]


def test_a_broken_record_is_not_the_clients_fault(fleet):
    """What somebody put into etcd past the API: told apart from a bad request, and a broken model or key can be deleted."""
    put(fleet, "/weir/accounts/broken", '{"spendTier":99}')
    put(fleet, "/weir/models/broken", '{"sizeClass":"HUGE"}')
    short = "0123456789abcdef0123456789abcdef"  # no SHA-256
    put(fleet, f"/weir/keys/{short}", '{"name":"no account"}')
    for method, path in (("GET", "/v1/accounts/broken"), ("PATCH", "/v1/accounts/broken"), ("GET", "/v1/fleet/models/broken")):
        status, error = admin(fleet, method, path, {"spendTier": 1} if method == "PATCH" else None)
        assert status == 500 and error["code"] == 15 and "stored record" in error["message"], error
    assert admin(fleet, "DELETE", "/v1/fleet/models/broken")[0] == 200
    assert admin(fleet, "GET", "/v1/fleet/models/broken")[0] == 404
    fleet_module.wait_for("the key's record", lambda: short in {
        k["sha256"] for k in admin(fleet, "GET", "/v1/accounts/-/apiKeys")[1]["apiKeys"]}, seconds=5)
    status, gone = admin(fleet, "DELETE", f"/v1/accounts/-/apiKeys/{short[:24]}")
    assert status == 200 and gone["sha256"] == short
    assert short not in {k["sha256"] for k in admin(fleet, "GET", "/v1/accounts/-/apiKeys")[1]["apiKeys"]}


def test_a_key_of_ones_own_is_taken_once(fleet):
    fleet.create_account("mover", "--has-payment-method", "true")
    own = "a-key-of-another-service-0123456789"
    status, made = admin(fleet, "POST", "/v1/accounts/mover/apiKeys", {"displayName": "k", "key": own})
    assert status == 200 and made["key"] == own
    assert chat(fleet.routers[0], own)[0] == 200  # at once, on the router that answered
    status, error = admin(fleet, "POST", "/v1/accounts/mover/apiKeys", {"displayName": "k", "key": own})
    assert status == 409 and error["code"] == 6 and made["keyId"] in error["message"] and own not in error["message"]
    status, error = admin(fleet, "POST", "/v1/accounts/mover/apiKeys", {"displayName": "k", "key": "short"})
    assert status == 400 and error["details"] == [{"field": "key"}]
    assert admin(fleet, "DELETE", f"/v1/accounts/mover/apiKeys/{made['keyId']}")[0] == 200
    assert chat(fleet.routers[0], own)[0] == 401  # at once


def test_weirctl_and_the_api_agree(fleet):
    made = fleet.create_account("by-ctl", "--tier", "3", "--has-payment-method", "true", "--limits", '{"requestsPerMinute":5}')
    assert made["limits"] == {"requestsPerMinute": 5} and made == admin(fleet, "GET", "/v1/accounts/by-ctl", router=1)[1]
    assert "by-ctl" in fleet.ctl("account", "list")
    fleet.ctl("model", "create", "x/y", "--deployment", "demo", "--size-class", "SMALL", "--deprecation-date", "2030-01-01")
    status, model = admin(fleet, "GET", "/v1/fleet/models/x%2Fy")
    assert status == 200 and model["deployment"] == "demo" and model["deprecationDate"] == "2030-01-01T00:00:00Z"
    fleet.ctl("model", "delete", "x/y")
    assert admin(fleet, "GET", "/v1/fleet/models/x%2Fy")[0] == 404


@pytest.mark.parametrize("token", ["", "wrong"])
def test_nobody_enters_without_the_token(fleet, token):
    for method, path in (("GET", "/v1/accounts"), ("POST", "/v1/accounts?accountId=thief"), ("GET", "/v1/fleet/models"),
                         ("GET", "/v1/accounts/-/apiKeys")):
        status, error = admin(fleet, method, path, token=token)
        assert status == 401 and error["code"] == 16
    assert admin(fleet, "GET", "/v1/accounts/thief")[0] == 404
    assert admin(fleet, "GET", "/v1/accounts", token=fleet.api_key)[0] == 401


def test_the_token_is_asked_for_before_the_body_is_taken(fleet):
    host, port = fleet.routers[0]["admin"].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(b"POST /v1/accounts?accountId=big HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\ncontent-type: "
                       b"application/json\r\ncontent-length: 10000000\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_key_is_shown_once_and_revoked_everywhere(fleet, stubs):
    fleet.create_account("revoked", "--has-payment-method", "true")
    status, key = admin(fleet, "POST", "/v1/accounts/revoked/apiKeys", {"displayName": "k"})
    assert status == 200 and key["key"].startswith("weir_") and len(key["key"]) == 5 + 64
    everywhere(fleet, lambda r: chat(r, key["key"])[0] == 200)
    listed = admin(fleet, "GET", "/v1/accounts/revoked/apiKeys")[1]["apiKeys"]
    assert [k["keyId"] for k in listed] == [key["keyId"]] and "key" not in listed[0]
    assert admin(fleet, "POST", "/v1/accounts/nobody/apiKeys", {})[0] == 404
    assert admin(fleet, "DELETE", f"/v1/accounts/demo/apiKeys/{key['keyId']}")[0] == 404  # another account's
    assert admin(fleet, "POST", "/v1/accounts/revoked/apiKeys:delete", {"keyId": key["keyId"]})[0] == 200
    everywhere(fleet, lambda r: chat(r, key["key"])[0] == 401)
    assert rpc(fleet.routers[1], key["key"], stubs) == (grpc.StatusCode.UNAUTHENTICATED, "invalid_api_key")


def test_an_expired_key_stops(fleet):
    fleet.create_account("expiring")
    soon = int(time.time()) + 4
    key = admin(fleet, "POST", "/v1/accounts/expiring/apiKeys", {"expireTime": soon})[1]
    assert key["expireTime"].endswith("Z")
    everywhere(fleet, lambda r: chat(r, key["key"])[0] == 200)
    fleet_module.wait_for("the key's end", lambda: chat(fleet.routers[0], key["key"])[0] == 401, seconds=20)
    assert "expired" in chat(fleet.routers[1], key["key"])[1]["error"]["message"]


def test_a_suspended_account_is_told_so(fleet, stubs):
    fleet.create_account("late", "--has-payment-method", "true")
    key = fleet.create_key("k", "late")
    everywhere(fleet, lambda r: chat(r, key)[0] == 200)
    admin(fleet, "POST", "/v1/accounts/late:suspend", {"suspendState": "MONTHLY_SPEND_LIMIT_EXCEEDED"})
    everywhere(fleet, lambda r: chat(r, key)[0] == 412)
    status, body = chat(fleet.routers[1], key)
    assert body["error"]["code"] == "account_suspended" and "monthly spend limit" in body["error"]["message"]
    assert rpc(fleet.routers[0], key, stubs) == (grpc.StatusCode.FAILED_PRECONDITION, "account_suspended")
    admin(fleet, "POST", "/v1/accounts/late:resume")
    everywhere(fleet, lambda r: chat(r, key)[0] == 200)


@pytest.mark.parametrize("model,code,name,grpc_code", [
    ("t-paying", 402, "payment_required", grpc.StatusCode.PERMISSION_DENIED),
    ("t-hidden", 404, "model_not_found", grpc.StatusCode.NOT_FOUND),
    ("t-gone", 404, "model_not_found", grpc.StatusCode.NOT_FOUND),
    ("t-nothing", 404, "model_not_found", grpc.StatusCode.NOT_FOUND),
    ("t-other", 403, "forbidden", grpc.StatusCode.PERMISSION_DENIED),
])
def test_models_say_who_may_use_them(fleet, stubs, model, code, name, grpc_code):
    if admin(fleet, "POST", "/v1/accounts?accountId=guest", {"limits": {"requestsPerMinute": 10000}, "models": ["demo", "t-paying", "t-hidden", "t-gone", "t-nothing", "t-alias"]})[0] == 200:
        # While the demo model is an alias of its own, its name stays open to the others.
        admin(fleet, "POST", "/v1/fleet/models?modelId=demo", {"deployment": "demo"})
        admin(fleet, "POST", "/v1/fleet/models?modelId=t-alias", {"deployment": "demo"})
        admin(fleet, "POST", "/v1/fleet/models?modelId=t-paying", {"deployment": "demo", "needsPaymentMethod": True})
        admin(fleet, "POST", "/v1/fleet/models?modelId=t-hidden", {"deployment": "demo", "public": False, "accounts": ["demo"]})
        admin(fleet, "POST", "/v1/fleet/models?modelId=t-gone", {"deployment": "demo", "deprecationDate": "2020-01-01"})
        admin(fleet, "POST", "/v1/fleet/models?modelId=t-other", {"deployment": "demo"})
    key = fleet.create_key(model, "guest")
    everywhere(fleet, lambda r: chat(r, key, "t-alias")[0] == 200)
    for router in fleet.routers:
        status, body = chat(router, key, model)
        assert status == code and body["error"]["code"] == name and body["error"]["param"] == "model"
    assert rpc(fleet.routers[0], key, stubs, model) == (grpc_code, name)
    status, body = chat(fleet.routers[1], key, "t-alias")
    assert body["model"] == "t-alias"  # as it was asked for


def models(router, key):
    request = urllib.request.Request(f"http://{router['rest']}/v1/models", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return {m["id"] for m in json.loads(reply.read())["data"]}


def test_the_list_of_models_is_the_accounts_own(fleet, stubs):
    pb, pb_grpc = stubs
    fleet.create_account("lister", "--has-payment-method", "true")
    key = fleet.create_key("k", "lister")
    admin(fleet, "POST", "/v1/fleet/models?modelId=demo", {"deployment": "demo"})
    admin(fleet, "POST", "/v1/fleet/models?modelId=l%2Falias", {"deployment": "demo"})
    admin(fleet, "POST", "/v1/fleet/models?modelId=l-private", {"deployment": "demo", "public": False, "accounts": ["demo"]})
    admin(fleet, "POST", "/v1/fleet/models?modelId=l-unserved", {"deployment": "nobody-serves-this"})
    everywhere(fleet, lambda r: "l/alias" in models(r, key))
    everywhere(fleet, lambda r: "l-private" in models(r, fleet.api_key))
    for router in fleet.routers:
        assert {"demo", "l/alias"} <= models(router, key) and not {"l-private", "l-unserved"} & models(router, key)
    with grpc.insecure_channel(fleet.routers[1]["grpc"]) as channel:
        listed = pb_grpc.InferenceStub(channel).ListModels(pb.ListModelsRequest(), metadata=(("authorization", f"Bearer {key}"),))
    assert {m.id for m in listed.models} == models(fleet.routers[1], key)
    for i in ("l%2Falias", "l-private", "l-unserved", "demo", "t-alias", "t-paying", "t-hidden", "t-gone", "t-other"):
        admin(fleet, "DELETE", f"/v1/fleet/models/{i}")
    everywhere(fleet, lambda r: models(r, key) == {"demo"})  # as the replicas call it
