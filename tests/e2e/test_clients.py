"""Clients that misbehave: slow, gone, many, hostile. None of them disturbs another."""

import asyncio
import json
import resource
import socket
import time

import pytest

from conftest import metrics
from load import Stream, chat, until

ENDLESS = {"max_tokens": 900}  # with the model that never ends an answer


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def raise_fd_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def quick(fleet, router, n=5):
    """n short requests; the slowest one's seconds."""
    slowest = 0
    for i in range(n):
        begin = time.monotonic()
        s = await Stream(router, fleet.api_key, chat(max_tokens=2, seed=i)).run()
        assert s.done, s.error
        slowest = max(slowest, time.monotonic() - begin)
    return slowest


def running(fleet):
    return sum(metrics(r["admin"])["weir_replica_running_sequences"] for r in fleet.replicas)


def total(fleet, name):
    return sum(metrics(r["admin"])[name] for r in fleet.replicas)


def test_abort_frees_the_sequence_within_one_step(own_fleet, endless_model):
    """Streams aborted in the middle, and requests aborted before the first token: the replica lets go at once."""
    fleet = own_fleet(1, 1, model=endless_model, replica_args=["--slots", "8"])
    router = fleet.routers[0]

    async def run():
        # 8 run, 8 more wait for a slot: those have no token yet.
        streams = [Stream(router, fleet.api_key, chat(seed=i, **ENDLESS)) for i in range(16)]
        tasks = [asyncio.create_task(s.run()) for s in streams]
        assert await until(lambda: sum(s.events > 0 for s in streams) == 8, 60)
        waiting = [s for s in streams if s.events == 0]
        assert metrics(fleet.replicas[0]["admin"])["weir_replica_waiting_calls"] == 8
        for s in waiting:
            s.writer.close()
        assert await until(lambda: metrics(fleet.replicas[0]["admin"])["weir_replica_waiting_calls"] == 0, 10)
        assert running(fleet) == 8  # nobody else was touched
        steps = total(fleet, "weir_replica_steps_total")
        for s in streams:
            s.writer.close()
        assert await until(lambda: running(fleet) == 0, 10)
        steps = total(fleet, "weir_replica_steps_total") - steps
        await asyncio.gather(*tasks, return_exceptions=True)
        return steps

    steps = asyncio.run(run())
    tokens = metrics(fleet.replicas[0]["admin"])['weir_replica_calls_total{reason="cancelled"}']
    print(f"16 calls cancelled ({tokens:.0f} counted), {steps:.0f} steps from the first close to the last release")
    assert tokens == 16
    assert metrics(fleet.replicas[0]["admin"])["weir_replica_running_sequences"] == 0


def test_slow_writers_and_idle_connections_are_bounded(own_fleet):
    """Heads and bodies that never finish are cut at their absolute deadlines; others are served meanwhile."""
    fleet = own_fleet(1, 1, router_args=["--head-timeout-ms", "1500", "--body-timeout-ms", "1500", "--idle-timeout-ms", "2500"])
    router = fleet.routers[0]
    host, port = router["rest"].split(":")

    async def drip(first):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(first)
        begin = time.monotonic()
        try:
            while time.monotonic() - begin < 20:
                writer.write(b"a")
                await writer.drain()
                if await asyncio.wait_for(reader.read(1000), 0.2) == b"":
                    break
        except asyncio.TimeoutError:
            return await rest(reader, begin)
        except OSError:
            pass
        return time.monotonic() - begin

    async def rest(reader, begin):
        try:
            await asyncio.wait_for(reader.read(), 20)
        except OSError:
            pass
        return time.monotonic() - begin

    async def run():
        body = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {fleet.api_key}\r\ncontent-length: 99\r\n\r\n"
        drips = [asyncio.create_task(drip(b"GET / HT")) for _ in range(20)]
        drips += [asyncio.create_task(drip(body.encode())) for _ in range(20)]
        drips += [asyncio.create_task(drip(b"")) for _ in range(20)]
        await quick(fleet, router)
        return await asyncio.gather(*drips)

    lasted = asyncio.run(run())
    assert max(lasted) < 15, max(lasted)


def test_slow_reader_is_cut_and_others_are_not(own_fleet, endless_model):
    """A client that stops reading fills its own bounded buffer and is cancelled; its neighbours stream on."""
    fleet = own_fleet(1, 1, model=endless_model, router_args=["--output-bytes-max", "65536"],
                      replica_args=["--slots", "80"])
    router = fleet.routers[0]
    host, port = router["rest"].split(":")
    # Enough that the kernel's own buffers, some megabytes, cannot take it all.
    body = chat(n=64, logprobs=True, top_logprobs=5, **ENDLESS)

    async def run():
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        sock.setblocking(False)
        data = json.dumps(body).encode()
        sock.send((f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {fleet.api_key}\r\n"
                   f"content-length: {len(data)}\r\n\r\n").encode() + data)
        assert await until(lambda: running(fleet) == 64, 30)
        for _ in range(3):
            await quick(fleet, router, 1)
        assert await until(lambda: running(fleet) == 0, 120)  # cut: not because it was done
        sock.close()

    asyncio.run(run())
    assert metrics(fleet.replicas[0]["admin"])['weir_replica_calls_total{reason="cancelled"}'] == 1
    assert any("output_full" in k and v == 1 for k, v in metrics(router["admin"]).items())


SMUGGLING = {
    "length and chunked": b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"content-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
    "signed length": b"content-length: +4\r\n\r\nabcd",
    "list of lengths": b"content-length: 4, 4\r\n\r\nabcd",
    "chunked twice": b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "unknown encoding": b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"content-length : 4\r\n\r\nabcd",
    "folded header": b"x: a\r\n b\r\n\r\n",
    "bare line feed": b"x: a\ncontent-length: 4\r\n\r\nabcd",
    "NUL in a value": b"x: a\0b\r\n\r\n",
    "second host": b"host: y\r\n\r\n",
    "bad chunk size": b"transfer-encoding: chunked\r\n\r\n0x4\r\nabcd\r\n0\r\n\r\n",
    "chunk without its end": b"transfer-encoding: chunked\r\n\r\n4\r\nabcdXX0\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLING)
def test_smuggling_is_refused(fleet, router, name):
    host, port = router["rest"].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + fleet.api_key.encode() +
                     b"\r\n" + SMUGGLING[name] + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        data = b""
        try:
            while piece := sock.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
    assert data.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), data[:100]
    assert data.count(b"HTTP/1.1") == 1  # what was smuggled in was never looked at, and the connection is closed


@pytest.mark.crowd
def test_ten_thousand_idle_connections(own_fleet):
    limit = raise_fd_limit()
    n = min(10000, limit - 500)
    fleet = own_fleet(1, 1)
    router = fleet.routers[0]
    host, port = router["rest"].split(":")

    async def run():
        before = await quick(fleet, router, 20)
        rss = rss_mb(router["pid"])
        crowd = []
        for i in range(n):
            crowd.append(socket.create_connection((host, int(port))))
        assert await until(lambda: metrics(router["admin"]).get('weir_http_connections{listener="rest"}', 0) >= n, 30)
        during = await quick(fleet, router, 20)
        grown = rss_mb(router["pid"]) - rss
        for sock in crowd:
            sock.close()
        return before, during, grown

    before, during, grown = asyncio.run(run())
    print(f"{n} idle connections: {grown:.1f} MB more; slowest of 20 requests {before * 1e3:.0f} -> {during * 1e3:.0f} ms")
    assert grown < 60  # 6 KB each, kernel memory aside


@pytest.mark.crowd
def test_a_thousand_streams_within_200_mb(own_fleet, endless_model):
    raise_fd_limit()
    fleet = own_fleet(1, 2, model=endless_model, replica_args=["--slots", "512", "--queue-max", "2048"])
    router = fleet.routers[0]

    async def run():
        streams = [Stream(router, fleet.api_key, chat(seed=i, max_tokens=60),
                          {"x-session-affinity": f"t{i}"}) for i in range(1000)]
        tasks = [asyncio.create_task(s.run()) for s in streams]
        peak, together = 0, 0
        while not all(t.done() for t in tasks):
            peak = max(peak, rss_mb(router["pid"]))
            together = max(together, sum(s.writer is not None and not s.done for s in streams))
            await asyncio.sleep(0.2)
        await asyncio.gather(*tasks)
        return streams, peak, together

    streams, peak, together = asyncio.run(run())
    print(f"{together} streams at once, {sum(s.events for s in streams)} events; router's peak {peak:.0f} MB")
    assert all(s.done for s in streams), [s.error for s in streams if not s.done][:3]
    assert together >= 900 and peak < 200
