"""The official clients, unchanged, through either router: curl, the openai package, generated gRPC stubs."""

import asyncio
import json
import subprocess

import grpc
import openai
import pytest

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]


def client(fleet, router, **kwargs):
    return openai.OpenAI(base_url=f"http://{router['rest']}/v1", api_key=fleet.api_key, max_retries=0, **kwargs)


def curl(fleet, router, body, *args):
    done = subprocess.run(["curl", "-sS", "-N", f"http://{router['rest']}/v1/chat/completions",
                           "-H", f"Authorization: Bearer {fleet.api_key}", "-H", "Content-Type: application/json",
                           "-d", json.dumps(body), *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(fleet, router):
    answer = json.loads(curl(fleet, router, {"model": "demo", "messages": MESSAGES, "max_tokens": 24, "seed": 1}))
    assert answer["object"] == "chat.completion" and answer["id"].startswith("chatcmpl-") and answer["model"] == "demo"
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"].strip()
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 0 and 0 < usage["completion_tokens"] <= 24
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


def test_curl_stream(fleet, router):
    text = curl(fleet, router, {"model": "demo", "messages": MESSAGES, "max_tokens": 24, "stream": True, "seed": 1}, "-i")
    head, body = text.replace("\r\n", "\n").split("\n\n", 1)
    assert "200" in head.split("\n")[0] and "text/event-stream" in head.lower()
    events = [e for e in body.split("\n\n") if e]
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(e.removeprefix("data: ")) for e in events[:-1]]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all(c["usage"] is None for c in chunks[:-1]) and chunks[-1]["usage"]["completion_tokens"] <= 24
    assert [c["choices"][0]["finish_reason"] for c in chunks].count(None) == len(chunks) - 1


def test_openai_sync_equals_stream(fleet, router):
    api = client(fleet, router)
    whole = api.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=40, seed=7, temperature=0.8)
    stream = api.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=40, seed=7, temperature=0.8,
                                         stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_openai_async(fleet, router):
    async def run():
        async with openai.AsyncOpenAI(base_url=f"http://{router['rest']}/v1", api_key=fleet.api_key) as api:
            async def one(seed):
                stream = await api.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=20, seed=seed,
                                                           stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in stream])
            return await asyncio.gather(*(one(seed) for seed in range(8)))
    texts = asyncio.run(run())
    assert all(texts) and len(set(texts)) > 1


def test_openai_completion(fleet, router):
    answer = client(fleet, router).completions.create(model="demo", prompt="Once upon a time", max_tokens=8, temperature=0,
                                                      logprobs=2)
    choice = answer.choices[0]
    assert answer.object == "text_completion" and choice.text
    assert len(choice.logprobs.tokens) == answer.usage.completion_tokens == len(choice.logprobs.token_logprobs)
    assert all(lp <= 0 for lp in choice.logprobs.token_logprobs)


def test_openai_models(fleet, router):
    api = client(fleet, router)
    assert [m.id for m in api.models.list()] == ["demo"]
    assert api.models.retrieve("demo").object == "model"
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("nothing")


def test_n_and_logprobs(fleet, router):
    answer = client(fleet, router).chat.completions.create(model="demo", messages=MESSAGES, n=3, max_tokens=6, seed=3,
                                                           logprobs=True, top_logprobs=2)
    assert sorted(c.index for c in answer.choices) == [0, 1, 2]
    assert len({c.message.content for c in answer.choices}) > 1  # each choice has its own randomness
    for choice in answer.choices:
        assert 1 <= len(choice.logprobs.content) <= 6
        for token in choice.logprobs.content:
            assert len(token.top_logprobs) == 2 and token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob


def test_stop_string(fleet, router):
    api = client(fleet, router)
    whole = api.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=60, temperature=0)
    text = whole.choices[0].message.content
    stop = text[len(text) // 2:][:3]
    cut = api.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=60, temperature=0, stop=[stop])
    assert cut.choices[0].message.content == text[:text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens <= whole.usage.completion_tokens


def test_headers(fleet, router):
    raw = client(fleet, router).chat.completions.with_raw_response.create(
        model="demo", messages=MESSAGES, max_tokens=4, extra_headers={"x-request-id": "my-id.1"},
        extra_body={"perf_metrics_in_response": True})
    assert raw.headers["x-request-id"] == "my-id.1"
    assert raw.headers["x-weir-replica"] in {r["id"] for r in fleet.replicas}
    body = json.loads(raw.text)
    assert int(raw.headers["fireworks-prompt-tokens"]) == body["usage"]["prompt_tokens"]
    first, whole = (float(raw.headers[f"fireworks-server-{n}"]) for n in ("time-to-first-token", "processing-time"))
    assert 0 < first <= whole
    assert body["perf_metrics"]["prompt-tokens"] == body["usage"]["prompt_tokens"]


def test_grpc_stub(fleet, router, stubs):
    pb, pb_grpc = stubs
    request = pb.GenerateRequest(model="demo", max_tokens=20, seed=7, temperature=0.8,
                                 chat=pb.Chat(messages=[pb.Message(**MESSAGES[0])]))
    meta = (("authorization", f"Bearer {fleet.api_key}"), ("x-session-affinity", "me"), ("x-request-id", "rpc.1"))
    with grpc.insecure_channel(router["grpc"]) as channel:
        stub = pb_grpc.InferenceStub(channel)
        call = stub.Generate(request, metadata=meta, timeout=30)
        events = list(call)
        assert dict(call.trailing_metadata())["x-request-id"] == "rpc.1"
        assert [m.id for m in stub.ListModels(pb.ListModelsRequest(), metadata=meta).models] == ["demo"]
    kinds = [e.WhichOneof("event") for e in events]
    assert kinds[0] == "started" and kinds[-2:] == ["finished", "done"] and kinds.count("done") == 1
    text = "".join(e.delta.text for e in events if e.WhichOneof("event") == "delta")
    rest = client(fleet, router).chat.completions.create(model="demo", messages=MESSAGES, max_tokens=20, seed=7, temperature=0.8)
    assert text == rest.choices[0].message.content  # one request, whichever way it came in
    assert events[-1].done.usage.completion_tokens == rest.usage.completion_tokens


def test_grpc_errors(fleet, router, stubs):
    pb, pb_grpc = stubs
    chat = pb.Chat(messages=[pb.Message(role="user", content="hi")])
    key = (("authorization", f"Bearer {fleet.api_key}"),)
    with grpc.insecure_channel(router["grpc"]) as channel:
        stub = pb_grpc.InferenceStub(channel)
        for request, meta, code, param in (
                (pb.GenerateRequest(model="demo", chat=chat), (), grpc.StatusCode.UNAUTHENTICATED, None),
                (pb.GenerateRequest(model="demo", chat=chat, top_p=2), key, grpc.StatusCode.INVALID_ARGUMENT, "top_p"),
                (pb.GenerateRequest(model="no", chat=chat), key, grpc.StatusCode.NOT_FOUND, "model"),
                (pb.GenerateRequest(model="demo", chat=chat, user="a\0b"), key, grpc.StatusCode.INVALID_ARGUMENT, None),
                (pb.GenerateRequest(model="demo"), key, grpc.StatusCode.INVALID_ARGUMENT, None)):
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Generate(request, metadata=meta, timeout=30))
            assert caught.value.code() == code
            if param:
                assert dict(caught.value.trailing_metadata())["weir-error-param"] == param
