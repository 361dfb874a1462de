"""Python clients (pycrdt), driven by the same JSON lines as `fleet.mjs`, as far as the tests need them.

pycrdt's `Provider` syncs over a channel; connecting, connecting again and awareness are the program's business. They are done
here as pycrdt's documentation shows.
"""

import asyncio
import base64
import json
import random
import sys
import time
from urllib.parse import quote, urlencode

from pycrdt import (
    Array,
    Awareness,
    Doc,
    Map,
    Provider,
    Text,
    XmlElement,
    XmlFragment,
    YMessageType,
    create_awareness_message,
    read_message,
)
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

RETRY_S = 0.5
POLL_S = 0.02


class Channel:
    """A WebSocket as `Provider` wants it; awareness is taken out on the way."""

    def __init__(self, socket, path, awareness):
        self.socket = socket
        self.path = path
        self.awareness = awareness

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await self.recv()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    async def recv(self):
        while True:
            message = await self.socket.recv()
            if message[0] != YMessageType.AWARENESS:
                return message
            self.awareness.apply_awareness_update(read_message(message[1:]), "remote")

    async def send(self, message):
        await self.socket.send(message)


class Client:
    def __init__(self, name, base, room, token, user):
        self.name = name
        self.url = f"{base.replace('http', 'ws', 1)}/yjs/{quote(room)}?{urlencode({'token': token})}"
        self.doc = Doc()
        self.text = self.doc.get("text", type=Text)
        self.map = self.doc.get("map", type=Map)
        self.array = self.doc.get("array", type=Array)
        self.xml = self.doc.get("xml", type=XmlFragment)
        self.tokens = self.doc.get("tokens", type=Array)
        self.awareness = Awareness(self.doc)
        self.awareness.set_local_state_field("user", {"name": user})
        self.awareness.observe(self._awareness_changed)
        self.socket = None
        self.synced = False
        self.opened = 0
        self.closes = []
        self.told = []
        self.online = asyncio.Event()
        self.online.set()
        self.tasks = [asyncio.create_task(self._run()), asyncio.create_task(self.awareness.start())]

    async def _run(self):
        while True:
            await self.online.wait()
            try:
                async with connect(self.url) as socket:
                    self.socket = socket
                    self.opened += 1
                    async with Provider(self.doc, Channel(socket, self.url, self.awareness)) as provider:
                        await self._send_awareness([self.doc.client_id])
                        synced = asyncio.create_task(self._await_sync(provider))
                        await socket.wait_closed()
                        self.told.append({"code": socket.close_code, "reason": socket.close_reason})
                        synced.cancel()
            except* (ConnectionClosed, OSError, TimeoutError) as error:
                self.closes.append(str(error.exceptions[0]))
            self.socket = None
            self.synced = False
            others = [one for one in self.awareness.states if one != self.doc.client_id]
            self.awareness.remove_awareness_states(others, "disconnected")
            await asyncio.sleep(RETRY_S)

    async def _await_sync(self, provider):
        await provider.synced.wait()
        self.synced = True

    def _awareness_changed(self, topic, event):
        changes, origin = event
        if topic == "update" and origin == "local" and self.socket is not None:
            changed = [one for ids in changes.values() for one in ids]
            self.tasks.append(asyncio.create_task(self._send_awareness(changed)))

    async def _send_awareness(self, ids):
        try:
            await self.socket.send(create_awareness_message(self.awareness.encode_awareness_update(ids)))
        except (AttributeError, ConnectionClosed):
            pass  # The connection ended meanwhile; the next one begins with the whole state.

    def cut(self):
        self.online.clear()
        if self.socket is not None:
            self.socket.transport.abort()

    def edit(self, rng):
        with self.doc.transaction():
            choice = rng.randrange(5)
            word = rng.choice(["snake ", "grüße ", "蛇 ", "🐍 "])
            if choice == 0:
                self.text.insert(0, word)
            elif choice == 1:
                self.text += word
            elif choice == 2:
                self.map[rng.choice("abcdef")] = rng.randrange(1000)
            elif choice == 3:
                self.array.append(word)
            else:
                element = self.xml.children.append(XmlElement(rng.choice(["p", "h1"])))
                element.attributes["by"] = self.name

    @property
    def status(self):
        return {
            "name": self.name,
            "clientId": self.doc.client_id,
            "connected": self.socket is not None,
            "synced": self.synced,
            "opened": self.opened,
            "closes": self.closes,
            "told": self.told,
        }


clients = {}


def named(request):
    return [clients[name] for name in request.get("clients") or clients]


async def until(timeout_ms, done, complaint):
    started = time.monotonic()
    while not done():
        if time.monotonic() - started > timeout_ms / 1000:
            raise RuntimeError(f"{complaint()} after {timeout_ms} ms")
        await asyncio.sleep(POLL_S)


async def open_client(request):
    name = request["client"]
    clients[name] = Client(name, request["base"], request["room"], request["token"], request["user"])
    return {"clientId": clients[name].doc.client_id}


async def edit(request):
    rng = random.Random(request["seed"])
    for _ in range(request["count"]):
        rng.choice(named(request)).edit(rng)
        await asyncio.sleep(request.get("pauseMs", 2) / 1000)


async def wait(request):
    conditions = {
        "connected": lambda one: one.status["connected"],
        "disconnected": lambda one: not one.status["connected"],
        "synced": lambda one: one.synced,
    }
    condition = conditions[request["until"]]

    def missing():
        return [one.status for one in named(request) if not condition(one)]

    await until(max(request["timeoutMs"], 120_000), lambda: not missing(), lambda: f"not {request['until']}: {missing()}")


async def wait_awareness(request):
    client = clients[request["client"]]
    wanted = sorted(request["ids"])

    def seen():
        return sorted(client.awareness.states)

    await until(request["timeoutMs"], lambda: seen() == wanted, lambda: f"{client.name} sees {seen()}, not {wanted}")


def insert(client, request):
    """Answers the update that it makes."""
    before = client.doc.get_state()
    client.text.insert(request["at"], request["text"])
    return base64.b64encode(client.doc.get_update(before)).decode()


def simple(answer):
    async def command(request):
        return answer(clients[request["client"]], request)

    return command


COMMANDS = {
    "open": open_client,
    "edit": edit,
    "wait": wait,
    "waitAwareness": wait_awareness,
    "offline": simple(lambda client, _: client.cut()),
    "online": simple(lambda client, _: client.online.set()),
    "insert": simple(insert),
    "write": simple(lambda client, request: client.tokens.append(request["token"])),
    "status": simple(lambda client, _: client.status),
    "update": simple(lambda client, _: base64.b64encode(client.doc.get_update()).decode()),
    "tokens": simple(lambda client, _: client.tokens.to_py()),
    "awareness": simple(
        lambda client, _: [{"clientId": one, "state": state} for one, state in client.awareness.states.items()]
    ),
    "setAwareness": simple(lambda client, request: client.awareness.set_local_state(request["state"])),
}


def answer(line):
    print(json.dumps(line), flush=True)


async def handle(line):
    request = json.loads(line)
    try:
        result = await COMMANDS[request["do"]](request)
        answer({"id": request["id"], "ok": result})
    except Exception as error:
        answer({"id": request["id"], "error": repr(error)})


async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: answer({"event": "uncaught", "error": str(context)}))
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    under_way = set()
    while line := await reader.readline():
        task = asyncio.create_task(handle(line))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


try:
    asyncio.run(main())
finally:
    sys.stdout.flush()
