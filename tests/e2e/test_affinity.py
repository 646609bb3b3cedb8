"""Same key, same replica, whichever router; an even spread; few keys move when a replica comes."""

import concurrent.futures
import http.client
import json
import random

from conftest import SLOW


class Asker:
    """One keep-alive connection to a router that asks which replica serves a key."""

    def __init__(self, fleet, router):
        self.connection = http.client.HTTPConnection(router["rest"], timeout=30)
        self.key = fleet.api_key

    def replica(self, affinity):
        body = json.dumps({"model": "demo", "max_tokens": 1, "temperature": 0,
                           "messages": [{"role": "user", "content": "hi"}]})
        self.connection.request("POST", "/v1/chat/completions", body, {
            "authorization": f"Bearer {self.key}", "content-type": "application/json", "x-session-affinity": affinity})
        reply = self.connection.getresponse()
        text = reply.read()
        assert reply.status == 200, text
        return reply.headers["x-weir-replica"]


def place_all(fleet, keys, n_connections=8):
    """{key: replica}, asked of both routers in turn over a few connections."""
    parts = [keys[i::n_connections] for i in range(n_connections)]

    def run(i):
        asker = Asker(fleet, fleet.routers[i % len(fleet.routers)])
        return {key: asker.replica(key) for key in parts[i]}

    with concurrent.futures.ThreadPoolExecutor(n_connections) as pool:
        return {k: v for part in pool.map(run, range(n_connections)) for k, v in part.items()}


def test_same_key_same_replica_through_both_routers(fleet):
    first, second = (Asker(fleet, router) for router in fleet.routers)
    keys = [f"session-{i}" for i in range(100)]
    same = sum(first.replica(key) == second.replica(key) for key in keys)
    assert same == 100


def test_body_keys_are_keys_too(fleet):
    """`user` and `prompt_cache_key` keep a session on its replica when there is no header."""
    import openai
    seen = {}
    for field in ("user", "prompt_cache_key"):
        for i in range(20):
            for router in fleet.routers:
                api = openai.OpenAI(base_url=f"http://{router['rest']}/v1", api_key=fleet.api_key)
                reply = api.chat.completions.with_raw_response.create(
                    model="demo", messages=[{"role": "user", "content": f"message {random.random()}"}], max_tokens=1,
                    extra_body={field: f"k{i}"})
                seen.setdefault((field, i), set()).add(reply.headers["x-weir-replica"])
    assert all(len(replicas) == 1 for replicas in seen.values())
    assert len({r for replicas in seen.values() for r in replicas}) == 2  # and not all on one


def test_spread_and_movement(own_fleet):
    fleet = own_fleet(2, 2)
    n = 200 if SLOW else 1000
    keys = [f"{random.Random(1).random()}-{i}" for i in range(n)]
    before = place_all(fleet, keys)
    counts = {r["id"]: list(before.values()).count(r["id"]) for r in fleet.replicas}
    print("spread over two:", counts)
    assert all(abs(count - n / 2) <= (0.3 if SLOW else 0.15) * n / 2 for count in counts.values()), counts
    new = fleet.start_replica()["id"]
    fleet.wait_attached()
    after = place_all(fleet, keys)
    moved = {key for key in keys if before[key] != after[key]}
    print(f"moved: {len(moved) / n:.1%}; between the old two: {sum(after[key] != new for key in moved)}")
    # Under a sanitizer a replica is truly behind at times, and load moves a key: that is the bound at work, not the ring.
    assert sum(after[key] != new for key in moved) <= (0.05 * n if SLOW else 0)
    assert 0.25 <= len(moved) / n <= 0.42
