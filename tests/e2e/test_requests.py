"""Bad input: a clear 4xx that names the field, in OpenAI's shape, over a connection that goes on working."""

import http.client
import json

import pytest

GOOD = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


def post(fleet, router, body, path="/v1/chat/completions", headers=None, connection=None):
    connection = connection or http.client.HTTPConnection(router["rest"], timeout=30)
    data = body if isinstance(body, (bytes, str)) else json.dumps(body)
    connection.request("POST", path, data, {"authorization": f"Bearer {fleet.api_key}", "content-type": "application/json",
                                            **(headers or {})})
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read()), reply.headers


@pytest.mark.parametrize("change, param", [
    ({"model": None}, "model"), ({"model": 7}, "model"), ({"model": ""}, "model"),
    ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"), ({"messages": None}, "messages"),
    ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [GOOD["messages"][0], {"role": "user", "content": 5}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     "messages[0].content[0].image_url"),
    ({"messages": [{"role": "user", "content": "a\u0000b"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "hi", "nmae": "x"}]}, "messages[0].nmae"),
    ({"temperature": 2.1}, "temperature"), ({"temperature": -0.1}, "temperature"), ({"temperature": "hot"}, "temperature"),
    ({"top_p": 1.5}, "top_p"), ({"min_p": -1}, "min_p"), ({"top_k": 101}, "top_k"), ({"top_k": 1.5}, "top_k"),
    ({"n": 0}, "n"), ({"n": 129}, "n"), ({"stop": ["a"] * 5}, "stop"), ({"stop": [""]}, "stop[0]"), ({"stop": 3}, "stop"),
    ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": -1}, "max_tokens"),
    ({"max_completion_tokens": 3}, "max_completion_tokens"), ({"seed": "x"}, "seed"),
    ({"logprobs": 6}, "logprobs"), ({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
    ({"stream": "yes"}, "stream"), ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"user": 7}, "user"), ({"metadata": {"a": 1}}, "metadata.a"), ({"tepmerature": 1}, "tepmerature"),
])
def test_bad_field_is_named(fleet, router, change, param):
    status, body, _ = post(fleet, router, {**GOOD, **change})
    assert status == 400, body
    assert body["error"]["param"] == param, body
    assert body["error"]["type"] == "invalid_request_error" and body["error"]["message"]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"model": "demo",}', b'{"model": "demo"} x', b'{"model": "\xff"}',
                                  b'{"model": "demo", "model": "demo", "messages": []}', b'{"a":' * 100])
def test_malformed_json(fleet, router, text):
    status, body, _ = post(fleet, router, text)
    assert status == 400 and body["error"]["type"] == "invalid_request_error"


def test_paths_methods_and_keys(fleet, router):
    connection = http.client.HTTPConnection(router["rest"], timeout=30)

    def ask(method, path, headers=None, body=None):
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.headers

    assert ask("GET", "/healthz")[0] == 200 and ask("GET", "/readyz")[0] == 200
    assert ask("GET", "/nothing")[0] == 404
    key = {"authorization": f"Bearer {fleet.api_key}"}
    assert ask("GET", "/v1/chat/completions", key)[0] == 405
    assert ask("GET", "/inference/v1/models", key)[0] == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": fleet.api_key}, {"authorization": "Bearer "}):
        status, body, fields = ask("GET", "/v1/models", headers)
        assert status == 401 and json.loads(body)["error"]["code"] == "invalid_api_key"
        assert fields["www-authenticate"] == "Bearer"
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
        for body in (b"{}", b" " * 20000):  # a key is asked for whatever the body
            assert ask(method, path, {"content-type": "application/json"}, body)[0] == 401
            connection.close()
    status, body, _ = post(fleet, router, "a=b", headers={"content-type": "application/x-www-form-urlencoded"})
    assert status == 415


def test_unknown_model_is_404(fleet, router):
    status, body, _ = post(fleet, router, {**GOOD, "model": "nothing"})
    assert status == 404 and body["error"]["code"] == "model_not_found" and body["error"]["param"] == "model"


def test_too_long_a_prompt_is_400(fleet, router):
    status, body, _ = post(fleet, router, {**GOOD, "messages": [{"role": "user", "content": "river " * 20000}]})
    assert status == 400 and body["error"]["code"] == "context_length_exceeded" and body["error"]["param"] == "messages"


def test_too_large_a_body_is_413(fleet, router):
    connection = http.client.HTTPConnection(router["rest"], timeout=30)
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in (("authorization", f"Bearer {fleet.api_key}"), ("content-type", "application/json"),
                        ("content-length", str(1 << 30))):
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    assert reply.status == 413 and json.loads(reply.read())["error"]["code"] == "request_too_large"


def test_connection_goes_on_after_a_refusal(fleet, router):
    connection = http.client.HTTPConnection(router["rest"], timeout=30)
    assert post(fleet, router, {**GOOD, "n": 0}, connection=connection)[0] == 400
    assert post(fleet, router, GOOD, connection=connection)[0] == 200


def test_long_body_arrives_whole(fleet, router):
    """More than one 64 KiB chunk between router and replica; the replica sees all of it (and refuses its length)."""
    status, body, _ = post(fleet, router, {**GOOD, "messages": [{"role": "user", "content": "x" * 1_000_000}]})
    assert status == 400 and body["error"]["code"] == "context_length_exceeded"


def test_content_parts(fleet, router):
    parts = [{"type": "text", "text": "Tell me "}, {"type": "text", "text": "a story."}]
    one = post(fleet, router, {**GOOD, "temperature": 0, "max_tokens": 8, "messages": [{"role": "user", "content": parts}]})
    two = post(fleet, router, {**GOOD, "temperature": 0, "max_tokens": 8,
                               "messages": [{"role": "user", "content": "Tell me a story."}]})
    assert one[0] == two[0] == 200 and one[1]["choices"] == two[1]["choices"]


def test_request_id(fleet, router):
    for sent, got in (("abc.DEF:1-2_3", "abc.DEF:1-2_3"), ("a b\tc;d", "abcd")):
        assert post(fleet, router, GOOD, headers={"x-request-id": sent})[2]["x-request-id"] == got
    minted = {post(fleet, router, GOOD)[2]["x-request-id"] for _ in range(3)}
    assert len(minted) == 3 and all(len(i) >= 16 for i in minted)
    assert post(fleet, router, {**GOOD, "n": 0}, headers={"x-request-id": "err-1"})[1]["request_id"] == "err-1"
