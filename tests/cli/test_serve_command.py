"""clearsight serve, as it is typed: a key, an address, an answer, and an end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import httpx
import pytest

from clearsight.serving.keys import read_keys
from servers import as_file, picture


def test_a_key_is_made_and_shown_once(run, tmp_path):
    file = tmp_path / "keys.json"
    made = run(
        "serve", "--keys", str(file), "--new-key", "lab", "--limit", "requests=5/day", "--limit", "seconds=9/hour"
    )
    assert made.status == 0
    (key,) = read_keys(file).values()
    assert [str(limit) for limit in key.limits] == ["5 requests per day", "9 seconds per hour"]
    assert made.out.startswith("cs_")
    assert made.out.strip() not in file.read_text()
    assert "shown once" in made.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--new-key", "lab"), "give --keys FILE"),
        (("--host", "0.0.0.0"), "give --keys FILE, or --open"),
        (("--keys", "nowhere.json"), "make one: clearsight serve --keys nowhere.json --new-key NAME"),
        (("--defend", "roundin"), "did you mean rounding"),
        (("--hide", "maps"), "did you mean map"),
        (("--limit", "requests=5/day"), "--limit is of a key that is made: give --keys FILE --new-key NAME"),
        (("--keys", "keys.json", "--new-key", "lab", "--limit", "requests=5"), "write one such as requests=1000/day"),
        (("--port", "99999"), "less than or equal to 65535"),
    ],
)
def test_what_is_wrong_is_refused(run, words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run("serve", "demo", *words)
    assert ran.status == 2
    assert told in ran.err
    assert len(ran.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_it_serves_and_ends(tmp_path):
    command = [sys.executable, "-m", "clearsight", "serve", "demo", "--port", "0", "--log", str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            assert address.startswith("http://127.0.0.1:")
            answers = httpx.post(f"{address}/predict?map=true", content=as_file(picture())).json()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert answers["model"] == "demo"
    assert answers["map"]["shape"] == [7, 7]
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["status"] == 200
