#!/usr/bin/env bash
# uvicorn 0.54.0 on asyncio: given a listening socket that was made as usual, socket(AF_INET, SOCK_STREAM), it answers a
# kept-alive connection after some 40 ms; given the same socket with the protocol named, IPPROTO_TCP, after one or two.
#
# Why it matters: `Server.run(sockets=[...])` is how a program serves on a port that it has taken itself.  asyncio sets
# TCP_NODELAY only where the socket's protocol is TCP by number; 0, the default, means TCP too, and is left out.  Headers
# and body leave in two writes, so Nagle's algorithm holds the body back until the client's delayed receipt.
# Expected: no difference.  With `uvicorn.run(host=..., port=...)` there is none.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "uvicorn==0.54.0" "httptools==0.8.0"
cat > "$d/try.py" <<'PY'
import http.client, socket, statistics, threading, time
import uvicorn

async def app(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

def median(protocol):
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    taken.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    client = http.client.HTTPConnection("127.0.0.1", taken.getsockname()[1])
    took = []
    for _ in range(40):
        began = time.perf_counter()
        client.request("GET", "/")
        client.getresponse().read()
        took.append(1000 * (time.perf_counter() - began))
    client.close()
    server.should_exit = True
    thread.join()
    return statistics.median(took)

usual, named = median(0), median(socket.IPPROTO_TCP)
print(f"protocol 0: {'tens of ms' if usual > 20 else 'fast'}; IPPROTO_TCP: {'fast' if named < 20 else 'tens of ms'}")
assert usual > 20 > named, (usual, named)
print("as found")
PY
"$d/venv/bin/python" "$d/try.py"
