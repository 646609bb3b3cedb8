"""Rows of the failure table, with real processes: a replica killed, etcd gone, a router drained."""

import asyncio
import os
import random
import signal
import time

import fleet as fleet_module
from conftest import SLOW, fleet_view, metrics
from load import Stream, chat, until

# Long prompts make the time before the first token long enough to be killed in.
LONG = "Tell me about rivers, foxes and bread. " * (8 if SLOW else 24)
ENDLESS = {"max_tokens": 400}  # with the model that never ends an answer


def counter(fleet, name):
    return sum(v for r in fleet.routers for k, v in metrics(r["admin"]).items() if k.startswith(name))


def test_replica_killed_under_load(own_fleet, endless_model):
    """64 streams open, kill -9: what has no token yet succeeds elsewhere, nothing hangs, metrics say what happened."""
    fleet = own_fleet(2, 2, model=endless_model)

    async def run():
        streams = [Stream(fleet.routers[i % 2], fleet.api_key, chat(f"{i} {LONG}", seed=i, **ENDLESS),
                          {"x-session-affinity": f"s{i}"}) for i in range(64)]
        tasks = [asyncio.create_task(s.run()) for s in streams]
        assert await until(lambda: sum(s.events > 0 for s in streams) >= 8, 60)
        began = {s for s in streams if s.events > 0}
        fleet.kill("replica-1")
        await asyncio.wait_for(asyncio.gather(*tasks), 300 if SLOW else 120)  # nothing hangs
        return streams, began

    streams, began = asyncio.run(run())
    broken = [s for s in streams if not s.done]
    assert all(s.replica == "replica-1" and s in began or s.events > 0 for s in broken), [s.error for s in broken]
    waited = [s for s in streams if s not in began]
    served = [s for s in waited if s.done]
    # A stream may have begun between our look and the kill; whoever had no token is served.
    assert all(s.done or s.events > 0 for s in waited)
    assert served and {s.replica for s in served} <= {"replica-1", "replica-2"}
    print(f"{len(streams)} streams: {len(streams) - len(broken)} whole, {len(broken)} broken in mid-stream, "
          f"{len(served)} of the {len(waited)} without a token served")
    for s in broken:
        assert s.error and not s.done  # told by an event, not by silence
    assert counter(fleet, "weir_attach_breaks_total") >= 2
    lost = {k: v for r in fleet.routers for k, v in metrics(r["admin"]).items() if k.startswith("weir_calls_lost_total")}
    assert sum(lost.values()) >= 1
    assert counter(fleet, 'weir_call_retries_total{reason="lost"') >= 1
    for router in fleet.routers:  # out of the rotation at once
        assert fleet.usable(router) == {"replica-2"}


def test_a_replica_that_comes_back_is_used_again(own_fleet):
    """Killed and started again under its old name and ports, before its lease has run out: routers take it back."""
    fleet = own_fleet(2, 2)
    fleet.kill("replica-1")
    for router in fleet.routers:
        fleet_module.wait_for("the loss", lambda: fleet.usable(router) == {"replica-2"}, 5)
    fleet.start_replica(index=1)
    fleet.wait_attached({"replica-1", "replica-2"}, seconds=15)


def test_a_router_killed_harms_nobody_else(own_fleet, endless_model):
    """Its own streams break and their sequences are freed; the other router serves on."""
    fleet = own_fleet(2, 1, model=endless_model)

    async def run():
        streams = [Stream(r, fleet.api_key, chat(seed=i, **ENDLESS)) for i in range(4) for r in fleet.routers]
        tasks = [asyncio.create_task(s.run()) for s in streams]
        assert await until(lambda: all(s.events > 0 for s in streams), 60)
        fleet.kill("router-1")
        await asyncio.gather(*tasks)
        return streams

    streams = asyncio.run(run())
    assert all(s.done == (s.router["id"] == "router-2") for s in streams)
    replica = fleet.replicas[0]["admin"]
    fleet_module.wait_for("the freed sequences", lambda: metrics(replica)["weir_replica_running_sequences"] == 0, 10)
    assert metrics(replica)['weir_replica_calls_total{reason="cancelled"}'] == 4


def test_etcd_gone_under_load(own_fleet):
    """No request fails while etcd is away; when it is back the fleet converges and what was added appears."""
    away_s = float(os.environ.get("WEIR_ETCD_AWAY_S", 10 if SLOW else 60))
    fleet = own_fleet(2, 2)
    results = []
    stop = asyncio.Event()

    async def worker(i):
        rng = random.Random(i)
        while not stop.is_set():
            s = Stream(fleet.routers[i % 2], fleet.api_key, chat(max_tokens=8, seed=rng.randrange(1 << 30)),
                       {"x-session-affinity": f"w{i}-{rng.randrange(100)}"})
            results.append(await s.run())
            await asyncio.sleep(0.05)

    async def run():
        workers = [asyncio.create_task(worker(i)) for i in range(6)]
        await asyncio.sleep(1)
        fleet.signal("etcd", signal.SIGTERM)
        fleet.processes.pop("etcd").wait()
        begin = time.monotonic()
        fleet.start_replica(wait=False)  # comes up while nobody can be told
        await asyncio.sleep(away_s)
        n_away = len(results)
        assert all(fleet_view(r)["self"]["discovery_connected"] is False for r in fleet.routers)
        await asyncio.to_thread(fleet.start_etcd)
        key = await asyncio.to_thread(fleet.create_key, "second")
        print(f"etcd was away for {time.monotonic() - begin:.0f} s; {n_away} requests by then")
        assert await until(lambda: all(fleet.usable(r) == {"replica-1", "replica-2", "replica-3"}
                                       for r in fleet.routers), 30)
        fresh = [await Stream(r, key, chat(max_tokens=4)).run() for r in fleet.routers]
        stop.set()
        await asyncio.gather(*workers)
        return fresh

    fresh = asyncio.run(run())
    assert all(s.done for s in fresh), [s.error for s in fresh]
    failed = [s for s in results if not s.done]
    print(f"{len(results)} requests, {len(failed)} failed")
    assert len(results) > 20 and not failed, [s.error for s in failed][:3]


def test_router_drains_on_sigterm(own_fleet, endless_model):
    """A router told to end finishes its streams, is not ready meanwhile, and ends with code 0."""
    fleet = own_fleet(2, 1, model=endless_model)
    router = fleet.routers[0]

    async def run():
        streams = [Stream(router, fleet.api_key, chat(seed=i, **ENDLESS)) for i in range(8)]
        tasks = [asyncio.create_task(s.run()) for s in streams]
        assert await until(lambda: all(s.events > 0 for s in streams), 60)
        fleet.signal("router-1", signal.SIGTERM)
        # Not ready, and then no new connections, while the open streams go on.
        assert await until(lambda: fleet_module.get(f"http://{router['admin']}/readyz")[0] in (503, 0), 5)
        assert await until(lambda: fleet_module.get(f"http://{router['rest']}/healthz")[0] == 0, 5)
        await asyncio.gather(*tasks)
        return streams

    streams = asyncio.run(run())
    assert all(s.done for s in streams), [s.error for s in streams]
    assert fleet.processes.pop("router-1").wait(30) == 0
    other = fleet.routers[1]
    gone = until(lambda: "router-1" not in {r["id"] for r in fleet_view(other)["routers"]}, 30)
    assert asyncio.run(gone)  # its registration, as soon as the other hears of it


def test_replica_drains_on_sigterm(own_fleet, endless_model):
    """A replica told to end finishes what runs; new work goes elsewhere without an error."""
    fleet = own_fleet(1, 2, model=endless_model)
    router = fleet.routers[0]

    async def run():
        streams = [Stream(router, fleet.api_key, chat(seed=i, **ENDLESS), {"x-session-affinity": f"d{i}"}) for i in range(16)]
        tasks = [asyncio.create_task(s.run()) for s in streams]
        assert await until(lambda: all(s.events > 0 for s in streams), 60)
        assert any(s.replica == "replica-1" for s in streams)
        fleet.signal("replica-1", signal.SIGTERM)
        assert await until(lambda: "replica-1" not in fleet.usable(router), 5)
        new = [await Stream(router, fleet.api_key, chat(max_tokens=2), {"x-session-affinity": f"d{i}"}).run() for i in range(16)]
        await asyncio.gather(*tasks)
        return streams, new

    streams, new = asyncio.run(run())
    assert all(s.done for s in streams), [s.error for s in streams]
    assert all(s.done and s.replica == "replica-2" for s in new)
    assert fleet.processes.pop("replica-1").wait(30) == 0


def test_saturated_is_503_with_retry_after(own_fleet, endless_model):
    """More work than slots and queue: 503 with Retry-After, never a hang; what was admitted is served."""
    fleet = own_fleet(1, 1, model=endless_model, replica_args=["--slots", "2", "--queue-max", "2"])
    router = fleet.routers[0]

    async def run():
        streams = [Stream(router, fleet.api_key, chat(seed=i, **ENDLESS), {"x-session-affinity": f"d{i}"}) for i in range(24)]
        return await asyncio.gather(*(s.run() for s in streams))

    streams = asyncio.run(run())
    shed = [s for s in streams if s.status == 503]
    assert shed and all("service_overloaded" in s.error for s in shed)
    assert all(s.done for s in streams if s.status == 200) and any(s.done for s in streams)
    assert len(shed) + sum(s.done for s in streams) == len(streams)
    assert counter(fleet, "weir_shed_total") == len(shed)
