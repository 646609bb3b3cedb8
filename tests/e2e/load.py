"""Clients for the tests of failure: many streams at once on one event loop, each told apart."""

import asyncio
import json
import time


class Stream:
    """One streamed chat over a raw socket, so that nothing is hidden: status, events, how it ended."""

    def __init__(self, router, api_key, body, headers=None):
        self.host, port = router["rest"].rsplit(":", 1)
        self.port = int(port)
        self.router, self.api_key, self.body, self.headers = router, api_key, body, headers or {}
        self.status, self.replica, self.text, self.events, self.error = None, None, "", 0, None
        self.done = False
        self.began = asyncio.Event()
        self.closed_early = False
        self.writer = None

    async def open(self):
        reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        body = json.dumps(self.body).encode()
        extra = "".join(f"{k}: {v}\r\n" for k, v in self.headers.items())
        self.writer.write((f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.api_key}\r\n"
                           f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{extra}\r\n").encode() + body)
        return reader

    async def run(self):
        try:
            await self.read(await self.open())
        except (OSError, asyncio.IncompleteReadError) as error:
            self.closed_early = True
            self.error = self.error or repr(error)
        finally:
            self.began.set()
            if self.writer:
                self.writer.close()
        return self

    async def read(self, reader):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.status = int(head.split()[1])
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:]) if k}
        self.replica = fields.get("x-weir-replica")
        if "content-length" in fields:
            self.error = (await reader.readexactly(int(fields["content-length"]))).decode()
            return
        rest = b""
        while True:
            size = int((await reader.readuntil(b"\r\n")).strip(), 16)
            rest += (await reader.readexactly(size + 2))[:-2]
            *events, rest = rest.split(b"\n\n")
            for event in events:
                self.take(event.removeprefix(b"data: "))
            if size == 0:
                return

    def take(self, data):
        if data == b"[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            self.error = chunk["error"]["message"]
            return
        self.events += 1
        for choice in chunk["choices"]:
            self.text += choice["delta"].get("content") or ""
        self.began.set()


def chat(content="Tell me a long story about a river.", **kwargs):
    return {"model": "demo", "stream": True, "messages": [{"role": "user", "content": content}], **kwargs}


async def until(check, seconds=30, every=0.02):
    """Waits until check() is true; says whether it came to be."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        await asyncio.sleep(every)
    return False
