"""Clients of Python. Usage: clients.py KIND URL PAUSE_MS WORKERS SECONDS

Each worker sends GET and POST in turn, with pauses, and never retries. At the end, one line of JSON has the number of
answered requests, the failures by text, and the first and last generation that answered. A wrong response is a failure."""

import asyncio
import collections
import http.client
import importlib.metadata
import json
import re
import sys
import threading
import time
import urllib.parse
import warnings

TIMEOUT = 15


class Tally:
    def __init__(self):
        self.answered, self.failures, self.generations, self.lock = 0, collections.Counter(), [], threading.Lock()

    def failed(self, error):
        cause = error
        while str(cause) == "" and (cause.__cause__ or cause.__context__):
            cause = cause.__cause__ or cause.__context__
        text = f"{type(error).__name__}: {type(cause).__name__ if cause is not error else ''} {cause}"
        # Addresses and stream numbers differ from one failure to the next.
        text = re.sub(r"0x[0-9a-f]+|:\d+\b|stream_id:? ?\d+|last_stream_id:? ?\d+", "", " ".join(text.split()))
        with self.lock:
            self.failures[text[:160]] += 1

    def check(self, sent, status, body, generation=None):
        """Checks a response: the body of a POST must have come back."""
        if status != 200:
            return self.failed(ValueError(f"status {status}"))
        if sent is None and generation is None:
            found = re.match(rb"generation=(\d+) ", body)
            if not found:
                return self.failed(ValueError("a wrong body of GET"))
            generation = found[1]
        elif body != sent:
            return self.failed(ValueError("a wrong body of POST"))
        with self.lock:
            self.answered += 1
            if generation is not None:
                self.generations.append(int(generation))

    def report(self, version):
        print(json.dumps({
            "version": version,
            "answered": self.answered,
            "failed": sum(self.failures.values()),
            "failures": self.failures,
            "first": min(self.generations, default=0),
            "last": max(self.generations, default=0),
        }))


tally = Tally()


def body(worker, n):
    """Returns the body of the nth request: None, or some KiB that no other request sends."""
    return None if n % 2 == 0 else f"{worker}-{n} ".encode() * 300


def in_threads(worker_of):
    """Runs blocking workers. `worker_of()` returns a function that takes a body or None, sends one request, and returns the
    status and body of the response."""

    def work(worker):
        time.sleep(pause * worker / workers)
        ask, n = worker_of(), 0
        while time.monotonic() < end:
            sent = body(worker, n)
            try:
                tally.check(sent, *ask(sent))
            except Exception as error:
                tally.failed(error)
            n += 1
            time.sleep(pause)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]


async def in_tasks(ask):
    async def work(worker):
        await asyncio.sleep(pause * worker / workers)
        n = 0
        while time.monotonic() < end:
            sent = body(worker, n)
            try:
                tally.check(sent, *await asyncio.wait_for(ask(sent), TIMEOUT))
            except Exception as error:
                tally.failed(error)
            n += 1
            await asyncio.sleep(pause)

    await asyncio.gather(*(work(worker) for worker in range(workers)))


def use_requests():
    import requests

    warnings.simplefilter("ignore")

    def worker():
        session = requests.Session()

        def ask(sent):
            if sent is None:
                answer = session.get(url + "/", timeout=TIMEOUT, verify=False)
            else:
                answer = session.post(url + "/echo", data=sent, timeout=TIMEOUT, verify=False)
            return answer.status_code, answer.content

        return ask

    in_threads(worker)
    return f"requests {requests.__version__}, urllib3 {importlib.metadata.version('urllib3')}"


def use_http_client(version):
    class Connection(http.client.HTTPConnection):
        _http_vsn, _http_vsn_str = (10, "HTTP/1.0") if version == "1.0" else (11, "HTTP/1.1")

    headers = {"Connection": "keep-alive"} if version == "1.0" else {}

    def worker():
        # HTTPConnection reconnects by itself after a response with `Connection: close`.
        connection = Connection(urllib.parse.urlsplit(url).netloc, timeout=TIMEOUT)

        def ask(sent):
            try:
                if sent is None:
                    connection.request("GET", "/", headers=headers)
                else:
                    connection.request("POST", "/echo", body=sent, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except Exception:
                connection.close()
                raise

        return ask

    in_threads(worker)
    return f"Python {sys.version.split()[0]}"


def use_httpx(http2):
    import httpx

    async def main():
        async with httpx.AsyncClient(http1=not http2, http2=http2, verify=False, timeout=TIMEOUT) as client:

            async def ask(sent):
                answer = await (client.get(url + "/") if sent is None else client.post(url + "/echo", content=sent))
                return answer.status_code, answer.content

            await in_tasks(ask)

    asyncio.run(main())
    return f"httpx {httpx.__version__}" + (f", h2 {importlib.metadata.version('h2')}" if http2 else "")


def use_aiohttp():
    import aiohttp

    async def main():
        async with aiohttp.ClientSession() as session:

            async def ask(sent):
                request = session.get(url + "/") if sent is None else session.post(url + "/echo", data=sent)
                async with request as answer:
                    return answer.status, await answer.read()

            await in_tasks(ask)

    asyncio.run(main())
    return f"aiohttp {aiohttp.__version__}"


def use_grpc():
    """Makes unary calls of clock.Clock/Now, with messages that are short enough to encode by hand."""
    import grpc

    channel = grpc.insecure_channel(urllib.parse.urlsplit(url).netloc)
    now = channel.unary_unary("/clock.Clock/Now")

    def worker():
        def ask(sent):
            name = (sent or b"zoo")[:50]
            time_ = now(b"\x0a" + bytes([len(name)]) + name, timeout=TIMEOUT)
            # Field 1 is the generation, which is below 128, and the greeting contains the name.
            if time_[:1] != b"\x08" or name not in time_:
                raise ValueError("a wrong message")
            return 200, sent, time_[1]

        return ask

    in_threads(worker)
    return f"grpcio {grpc.__version__}"


KINDS = {
    "requests": use_requests,
    "http.client-1.0": lambda: use_http_client("1.0"),
    "http.client-1.1": lambda: use_http_client("1.1"),
    "httpx": lambda: use_httpx(False),
    "httpx-http2": lambda: use_httpx(True),
    "aiohttp": use_aiohttp,
    "grpc": use_grpc,
}

kind, url, pause, workers, seconds = sys.argv[1:]
pause, workers = float(pause) / 1000, int(workers)
end = time.monotonic() + float(seconds)
tally.report(KINDS[kind]())
