"""Many different requests at once: each answer is the one it gets alone; nothing is left behind, and nothing is shared
that should not be."""

import asyncio
import random

import openai
import pytest

from conftest import SLOW, metrics
from load import Stream, chat, until

SCHEMA = {"type": "object", "properties": {"mood": {"enum": ["glad", "sad"]}, "n": {"type": "integer", "minimum": 0,
                                                                                   "maximum": 9999}},
          "required": ["mood", "n"], "additionalProperties": False}
OPENINGS = ["Tell me a story about a fox.", "Tell me of the crow and the moon.", "What did the river say?", "Sing."]


def request(i, rng):
    """The i-th of the mix: plain, seeded, filtered, bound by a schema, several choices, with log-probabilities."""
    body = {"messages": [{"role": "user", "content": OPENINGS[i % 4] + f" ({i % 7})" * (i % 5)}],
            "max_tokens": rng.randint(1, 48), "temperature": 0 if i % 2 == 0 else rng.uniform(0.3, 1.5), "seed": 1000 + i}
    extra = {}
    if i % 8 == 1:
        body["top_p"], extra["top_k"] = 0.8, 30
    if i % 8 == 3:
        extra["typical_p"], body["frequency_penalty"] = 0.8, 0.5
    if i % 8 == 5:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "m", "schema": SCHEMA}}
    if i % 8 == 7:
        extra["mirostat_target"] = 4.0
    if i % 6 == 2:
        body["n"] = 3
    if i % 6 == 4:
        body["logprobs"], body["top_logprobs"] = True, 2
    if i % 9 == 0:
        extra["ignore_eos"] = True
    return {**body, "extra_body": extra}


async def ask(api, body, stream):
    """What a client can tell of an answer, but for when it came and what was cached."""
    if not stream:
        answer = await api.chat.completions.create(model="demo", **body)
        return {c.index: (c.message.content, c.finish_reason, [t.logprob for t in c.logprobs.content] if c.logprobs else [])
                for c in answer.choices}, answer.usage.prompt_tokens, answer.usage.completion_tokens
    choices, usage = {i: ["", None, []] for i in range(body.get("n", 1))}, None
    async for chunk in await api.chat.completions.create(model="demo", stream=True, **body):
        for c in chunk.choices:
            choices[c.index][0] += c.delta.content or ""
            choices[c.index][1] = c.finish_reason or choices[c.index][1]
            choices[c.index][2] += [t.logprob for t in c.logprobs.content] if c.logprobs else []
        usage = chunk.usage or usage
    return {i: tuple(c) for i, c in choices.items()}, usage.prompt_tokens, usage.completion_tokens


def check_mixed(fleet, n, turns):
    rng = random.Random(7)
    bodies = [request(i, rng) for i in range(n)]

    async def run():
        apis = [openai.AsyncOpenAI(base_url=f"http://{r['rest']}/v1", api_key=fleet.api_key, max_retries=0, timeout=300)
                for r in fleet.routers]
        alone = [await ask(apis[0], body, stream=False) for body in bodies]
        for turn in range(turns):
            together = await asyncio.gather(*(ask(apis[(i + turn) % len(apis)], body, stream=(i + turn) % 3 > 0)
                                              for i, body in enumerate(bodies)))
            for i, (one, many) in enumerate(zip(alone, together)):
                assert one == many, f"request {i} in turn {turn}: {bodies[i]}"
        for api in apis:
            await api.close()
    asyncio.run(run())


def test_64_mixed_requests_equal_each_alone(fleet):
    check_mixed(fleet, 64, 1 if SLOW else 3)


@pytest.mark.parametrize("args", [["--weights", "q8"], ["--weights", "q4"], ["--kv-type", "f32", "--deterministic"],
                                  ["--tensor-parallel", "2"]], ids=" ".join)
def test_the_same_however_the_model_is_kept(own_fleet, args):
    check_mixed(own_fleet(1, 1, replica_args=args), 24, 1)


def test_killed_clients_leave_no_blocks(own_fleet, endless_model):
    fleet = own_fleet(1, 1, model=endless_model)
    router, replica = fleet.routers[0], fleet.replicas[0]

    def now(name):
        return metrics(replica["admin"])[name]

    async def run():
        rng = random.Random(3)
        for _ in range(2 if SLOW else 5):
            kinds = [{}, {"response_format": {"type": "grammar", "grammar": "root ::= [a-z ]+"}}, {"echo": True, "logprobs": True},
                     {"repetition_penalty": 1.2, "mirostat_target": 5.0, "raw_output": True}]
            streams = [Stream(router, fleet.api_key, chat(seed=i, max_tokens=900, n=1 + i % 3, **kinds[i % 4]))
                       for i in range(24)]
            tasks = [asyncio.create_task(s.run()) for s in streams]
            assert await until(lambda: sum(s.events > 0 for s in streams) > 8, 60)
            for s in rng.sample(streams, len(streams)):  # in any order, some before their first token
                s.writer.close()
                if rng.random() < 0.3:
                    await asyncio.sleep(0.01)
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await until(lambda: now("weir_replica_kv_blocks_used") == 0, 20)
            assert now("weir_replica_running_sequences") == 0 and now("weir_replica_waiting_calls") == 0
        after = await Stream(router, fleet.api_key, chat(max_tokens=8)).run()
        assert after.done
    asyncio.run(run())


def test_two_accounts_with_the_same_prompt_share_nothing(make_fleet):
    fleet = make_fleet(1, 1)  # one replica: what there is to find would be found
    story = [{"role": "user", "content": "Tell me of the fox that two accounts ask for. " * 12}]
    keys = []
    for name in ("first", "second"):
        fleet.create_account(name, "--unlimited", "true")
        keys.append(fleet.create_key(name, account=name))

    def cached(key):
        api = openai.OpenAI(base_url=f"http://{fleet.routers[0]['rest']}/v1", api_key=key)
        usage = api.chat.completions.create(model="demo", messages=story, max_tokens=1, temperature=0).usage
        return usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens

    async def known():
        return await until(lambda: all(fleet.knows(fleet.routers[0], key) for key in keys), 20)
    assert asyncio.run(known())
    assert cached(keys[0])[0] == 0
    warm, prompt = cached(keys[0])
    assert prompt - 17 <= warm < prompt
    assert cached(keys[1])[0] == 0
    assert cached(keys[1])[0] == warm
