"""Keys and their limits: exact under many clients at once, and remembered by a server that was killed."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL.ImageFile import ImageFile

from clearsight.core.catalogue import parse
from clearsight.errors import Refused
from clearsight.serving import ledger as ledger_module
from clearsight.serving.explanations import Explaining
from clearsight.serving.gate import Gate
from clearsight.serving.keys import Key, digest, new_key, read_keys, read_limit, read_limits
from clearsight.serving.ledger import Ledger
from clearsight.serving.pictures import checked_size, decoded
from clearsight.serving.problems import Problem
from clearsight.serving.serve import gate_of
from clearsight.serving.service import Service
from clearsight.serving.settings import Settings
from clearsight.serving.torch_backend import torch_backend
from servers import as_file, picture, pooled_model, served

PNG = as_file(picture())  # 40 x 30 pixels


def service(gate: Gate, settings: Settings | None = None) -> Service:
    return Service(torch_backend(pooled_model()), "small", settings, gate)


def in_turn(address: str, key: str, n: int, clients: int = 50, path: str = "/predict") -> list[httpx.Response]:
    """n requests from so many clients at once."""

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=clients)
        head = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=30, headers=head) as client:
            return await asyncio.gather(*[client.post(path, content=PNG) for _ in range(n)])

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        ("requests=23/ever", 23),
        (f"bytes={len(PNG) * 17 + 5}/ever", 17),
        ("pixels=15500/ever", 12),
        ("requests=9/day", 9),
    ],
)
def test_fifty_clients_get_exactly_what_the_limit_allows(tmp_path, limit, allowed):
    file = tmp_path / "keys.json"
    key, other = new_key(file, "lab", [limit]), new_key(file, "free", [])
    with served(service(gate_of(file))) as address:
        responses = in_turn(address, key, 60)
        statuses = [r.status_code for r in responses]
        assert (statuses.count(200), statuses.count(429)) == (allowed, 60 - allowed)
        refused = next(r for r in responses if r.status_code == 429)
        assert "the key lab may use" in refused.json()["error"]
        assert ("retry-after" in refused.headers) == ("day" in limit)
        assert [r.status_code for r in in_turn(address, other, 5)] == [200] * 5


def test_seconds_are_never_used_twice(tmp_path):
    """Each begins only while something is left, so that many at once do not share it."""
    file = tmp_path / "keys.json"
    key = new_key(file, "lab", ["seconds=0.02/ever"])
    log: list[str] = []
    gate = gate_of(file)
    with served(service(gate), log=log) as address:
        first = httpx.post(f"{address}/predict", content=PNG, headers={"X-API-Key": key})
        statuses = [first.status_code, *(r.status_code for r in in_turn(address, key, 80))]
        lines = [json.loads(line) for line in log]
        measures = httpx.get(f"{address}/metrics", headers={"X-API-Key": key}).text
    (entry,) = read_keys(file).values()
    with_ledger = Ledger(tmp_path / "keys.json.usage")
    used = with_ledger.used(entry, entry.limits[0])
    with_ledger.close()
    spent = [line["model_seconds"] for line in lines if line["status"] == 200]
    assert statuses[0] == 200
    assert set(statuses) == {200, 429}
    assert f"clearsight_batch_pictures_count {len(spent)}.0" in measures  # what is refused does not use the model
    assert used / 1e6 == pytest.approx(sum(spent), abs=1e-6 * len(spent))
    assert used / 1e6 - max(spent) < 0.02 + 1e-6 * len(spent)  # the last began while something was left


def test_no_key_and_a_wrong_key_are_refused_before_anything_is_read(tmp_path):
    file = tmp_path / "keys.json"
    key = new_key(file, "lab", ["requests=2/ever"])
    with served(service(gate_of(file))) as address:
        for path in ("/predict", "/explain", "/embed", "/v1/models/small:predict", "/v2/models/small/infer"):
            for head in ({}, {"X-API-Key": "cs_wrong"}, {"Authorization": "Basic eDp5"}, {"X-API-Key": digest(key)}):
                response = httpx.post(f"{address}{path}", content=PNG, headers=head)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert "API key" in response.json()["error"]
        assert httpx.get(f"{address}/metrics").status_code == 401
        assert httpx.get(f"{address}/metrics", headers={"X-API-Key": key}).status_code == 200
        assert httpx.get(f"{address}/v2/health/ready").status_code == 200
        for status in (200, 200, 429):  # the refused ones are not counted
            assert httpx.post(f"{address}/predict", content=PNG, headers={"X-API-Key": key}).status_code == status


def test_the_file_holds_no_key_and_is_read_back(tmp_path):
    file = tmp_path / "keys.json"
    key = new_key(file, "lab", ["requests=1k/hour", "seconds=2.5/minute"])
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert read_keys(file) == {digest(key): Key("lab", read_limits(["requests=1000/hour", "seconds=2.5/minute"]))}
    assert len(key) >= 43  # 256 bits in base64
    with pytest.raises(Refused, match="named 'lab' already"):
        new_key(file, "lab", [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("requests=5", "write one such as"),
        ("request=5/day", "did you mean requests"),
        ("requests=5/dya", "did you mean day"),
        ("requests=0/day", "above 0"),
    ],
)
def test_a_wrong_limit_is_refused(text, words):
    with pytest.raises(Refused, match=words):
        read_limit(text)


def test_two_limits_on_the_same_are_refused():
    with pytest.raises(Refused, match="limited twice"):
        read_limits(["requests=5/day", "requests=6/day"])


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"keys": 5}', '{"keys": []}', '{"keys": [{"name": "x"}]}', '{"keys": [{"name": 5, "sha256": "0"}]}'],
)
def test_a_broken_file_of_keys_is_refused(tmp_path, text):
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(Refused, match=r"new-key|it needs name"):
        read_keys(file)


def test_a_period_begins_anew(tmp_path, monkeypatch):
    key = Key("lab", read_limits(["requests=2/minute", "requests=3/hour"]))
    now = 3600.0 * 5 + 59
    monkeypatch.setattr(ledger_module.time, "time", lambda: now)
    book = Ledger(tmp_path / "x")
    assert [book.take(key, "requests", 1) for _ in range(3)] == [None, None, key.limits[0]]
    now += 2  # the next minute: one is left of the hour, and what was refused is not counted
    assert [book.take(key, "requests", 1) for _ in range(2)] == [None, key.limits[1]]
    assert book.take(key, "bytes", 10**9) is None
    now += 3600
    assert book.take(key, "requests", 1) is None
    book.close()


def test_what_would_be_too_much_is_not_charged(tmp_path):
    key = Key("lab", read_limits(["bytes=10/ever"]))
    gate = Gate({}, Ledger(tmp_path / "x"))
    gate.take(key, "bytes", 6)
    with pytest.raises(Problem, match="10 bytes in all"):
        gate.take(key, "bytes", 5)
    gate.take(key, "bytes", 4)
    gate.close()


def test_requests_that_share_a_limit_on_seconds_work_one_after_the_other(tmp_path):
    key = Key("lab", read_limits(["seconds=1/ever"]))
    gate = Gate({}, Ledger(tmp_path / "x"))
    inside = 0

    async def ask() -> bool:
        nonlocal inside
        try:
            async with gate.timed(key) as spent:
                inside += 1
                assert inside == 1
                await asyncio.sleep(0.01)
                spent.append(0.4)
                inside -= 1
        except Problem:
            return False
        return True

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*[ask() for _ in range(50)])

    assert sum(asyncio.run(all_at_once())) == 3  # 0.4, 0.8, and the one that begins with 0.2 left
    gate.close()


SERVER = """if True:
    import sys
    from clearsight.serving.serve import serve
    sys.path.insert(0, {tests!r})
    from servers import pooled_model
    serve(pooled_model(), port=0, name="small", keys={keys!r}, say=lambda line: print(line, flush=True))
"""


@contextmanager
def started(keys: Path | None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, which is gone on leaving."""
    code = SERVER.format(tests=str(Path(__file__).parents[1]), keys=keys and str(keys))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


@pytest.mark.slow
def test_killed_and_started_again_it_has_forgotten_nothing_that_it_answered(tmp_path):
    file = tmp_path / "keys.json"
    key = new_key(file, "lab", ["requests=40/ever"])
    with started(file) as (process, address):
        assert [r.status_code for r in in_turn(address, key, 25)] == [200] * 25
        process.kill()
        process.wait(10)
    with started(file) as (_, address):
        statuses = [r.status_code for r in in_turn(address, key, 30)]
    assert statuses.count(200) == 15


def test_what_a_process_wrote_down_before_it_was_killed_is_there(tmp_path):
    code = f"""if True:
        from pathlib import Path
        from clearsight.serving.keys import Key, read_limits
        from clearsight.serving.ledger import Ledger
        key, book = Key("lab", read_limits(["requests=10000/ever"])), Ledger(Path({str(tmp_path / "x")!r}))
        while True:
            assert book.take(key, "requests", 1) is None
            print("answered", flush=True)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(50):
            process.stdout.readline()
        process.kill()
        answered = 50 + len(process.stdout.readlines())
    key, book = Key("lab", read_limits(["requests=10000/ever"])), Ledger(tmp_path / "x")
    assert book.used(key, key.limits[0]) in (answered, answered + 1)  # one may be charged and not answered
    book.close()


def stalled(address: str) -> socket.socket:
    """A connection whose request has come but for the last two bytes of its body."""
    host, port = address.removeprefix("http://").split(":")
    slow = socket.create_connection((host, int(port)), timeout=10)
    body = b'{"instances": [[[1, 2], [3, 4]]]}'
    head = f"POST /v1/models/small:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    slow.sendall(head.encode() + body[:-2])
    time.sleep(0.2)
    return slow


def is_refused(address: str) -> bool:
    """Whether a server that was told to stop takes no new connection, which may be a moment later."""
    for _ in range(100):
        try:
            httpx.get(f"{address}/v2")
        except httpx.TransportError:
            return True
        time.sleep(0.02)
    return False


def test_told_to_stop_it_ends_what_it_accepted_and_takes_nothing_new():
    gate = Gate()
    stop = []
    with served(service(gate), made=stop) as address, stalled(address) as slow:
        stop[0].should_exit = True
        assert is_refused(address)
        slow.sendall(b"]}")
        assert slow.recv(10000).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.slow
def test_it_ends_with_status_0_when_it_is_told_to_stop():
    with started(None) as (process, address), stalled(address) as slow:
        process.send_signal(signal.SIGTERM)
        assert is_refused(address)
        assert process.poll() is None
        slow.sendall(b"]}")
        assert slow.recv(10000).startswith(b"HTTP/1.1 200 OK")
        assert process.wait(10) == 0


def test_a_client_that_is_slow_is_told_so():
    settings = Settings(body_seconds=0.3)
    with served(service(Gate(), settings), head_seconds=0.3) as address:
        host, port = address.removeprefix("http://").split(":")
        for sent in (b"POST /predict HT", b"", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"):
            with socket.create_connection((host, int(port)), timeout=5) as slow:
                slow.sendall(sent)
                answer = b""
                while part := slow.recv(1000):
                    answer += part
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"send it at once" in answer
        assert httpx.post(f"{address}/predict", content=PNG).status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_thousand_requests_leave_no_error_and_no_memory(capsys):
    """Answers, maps, explanations, features, tensors and broken pictures, 32 at a time."""
    tensor = {"name": "picture", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [9] * 12}
    kinds: list[tuple[str, dict[str, object], int]] = [
        ("/predict", {"content": PNG}, 200),
        ("/predict?map=true", {"content": as_file(picture(1), "JPEG")}, 200),
        ("/explain?as=overlay", {"content": PNG}, 200),
        ("/embed", {"files": {"picture": PNG}}, 200),
        ("/v2/models/small/infer", {"json": {"inputs": [tensor]}}, 200),
        ("/v1/models/small:predict", {"json": {"instances": [[[1, 2], [3, 4]]]}}, 200),
        ("/predict", {"content": PNG[:200]}, 400),
        ("/predict?top=x", {"content": PNG}, 422),
        ("/explain?method=grad-cam", {"content": PNG}, 200),
        ("/nowhere", {}, 404),
    ]

    async def ask(address: str, numbers: range) -> list[int]:
        wrong: list[int] = []
        turns = iter(numbers)
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:

            async def one() -> None:
                for i in turns:
                    path, options, status = kinds[i % (10 if i % 20 == 8 or i % 10 != 8 else 1)]
                    response = await client.post(path, **options)
                    if response.status_code != status:
                        wrong.append(response.status_code)

            await asyncio.gather(*[one() for _ in range(32)])
        return wrong

    def megabytes(process: subprocess.Popen[str]) -> float:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return pages * 4096 / 1e6

    with started(None) as (process, address):
        used = []
        for part in range(5):
            assert asyncio.run(ask(address, range(2000 * part, 2000 * part + 2000))) == []
            used.append(megabytes(process))
        measures = httpx.get(f"{address}/metrics").text
    with capsys.disabled():
        print("megabytes after each 2,000 requests:", [round(m, 1) for m in used])
    counted = [float(x.split()[1]) for x in measures.splitlines() if x.startswith("clearsight_requests_total")]
    assert sum(counted) == 10_000
    assert used[-1] - used[1] < 10  # the first requests fill caches


def test_an_explanation_that_takes_too_long_is_given_up():
    with served(service(Gate(), Settings(explain_seconds=0.0001))) as address:
        slow = httpx.post(f"{address}/explain?method=lrp", content=PNG)
        assert slow.status_code == 503
        assert slow.headers["retry-after"] == "1"
        assert "lrp took longer than 0.0001 seconds" in slow.json()["error"]
        assert httpx.post(f"{address}/predict", content=PNG).status_code == 200
    with served(service(Gate(), Settings(explain_seconds=20))) as address:
        assert httpx.post(f"{address}/explain?method=lrp", content=PNG).status_code == 200


def test_no_more_passes_are_run_when_the_time_is_over():
    explaining = Explaining(torch_backend(pooled_model()), 20.0)
    sent = decoded(PNG, pooled_model().preprocess, 10_000)

    async def ask() -> None:
        await explaining.explain(sent.pixels, parse("rise(masks=1000000)", "explainers"), None)

    explaining.seconds = 0.5
    began = time.monotonic()
    with pytest.raises(Problem, match=r"took longer than 0\.5 seconds"):
        asyncio.run(ask())
    explaining.close()  # which waits for the thread
    assert time.monotonic() - began < 10


def test_more_requests_than_may_wait_are_told_to_come_again():
    with served(service(Gate(), Settings(waiting=1))) as address, stalled(address) as slow:
        busy = httpx.post(f"{address}/predict", content=PNG)
        assert busy.status_code == 503
        assert busy.headers["retry-after"] == "1"
        assert "worked on already" in busy.json()["error"]
        slow.sendall(b"]}")
        assert slow.recv(10000).startswith(b"HTTP/1.1 200 OK")
        assert httpx.post(f"{address}/predict", content=PNG).status_code == 200


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("read", [checked_size, lambda file, most: decoded(file, pooled_model().preprocess, most)])
def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(monkeypatch, form, read):
    loaded = []
    load = ImageFile.load
    monkeypatch.setattr(ImageFile, "load", lambda self: loaded.append(self) or load(self))
    with pytest.raises(Problem, match="40 x 30 pixels") as refused:
        read(as_file(picture(), form), 1000)
    assert refused.value.status == 413
    assert not loaded
