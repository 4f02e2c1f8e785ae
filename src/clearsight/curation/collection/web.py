"""Fetch from unknown servers: public addresses only, one request at a time, never faster than a host allows.

A name is looked up once, every address in the answer must be public, and the connection goes to the address that was
checked, so the name cannot be resolved to another one in between.  The certificate is checked against the name.  Each
redirect is checked like a first address.  No proxy is used, since it would look names up by itself.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from clearsight.errors import Refused

TRIES = 3  # how often one thing is asked for where the host says "later"
PATIENCE = 120.0  # seconds: who asks for a longer wait is not asked again in this run
_BACK_OFF = 5.0  # seconds, doubled each time, where the host does not say how long
_REDIRECTS = 5
_ANSWER = 10_000_000  # bytes of JSON
_LATER = frozenset({429, 500, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})
_SAFE = "/%:@!$&'()*+,;=~?"  # what stands in an address as it is
_NAT64 = ip_network("64:ff9b::/96")
_TUNNELS = [ip_network(n) for n in ("::ffff:0:0/96", "2001::/32", "2002::/16", "64:ff9b:1::/48")]


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True)
class Web:
    """The settings of requests, and what is remembered of hosts.

    agent: the User-Agent header.  trusted: "address:port" of servers that may be asked over http although they are not
    public.  timeout: seconds of silence; whole: seconds of one request.  last_answer: host -> when it last answered.
    shut: host -> why it is not asked again.
    """

    agent: str
    trusted: frozenset[str] = frozenset()
    timeout: float = 20.0
    whole: float = 120.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = _silent
    last_answer: dict[str, float] = field(default_factory=dict)
    shut: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """The status of an answer, its host, its body (only for status 200) and the seconds it asks to wait."""

    status: int
    host: str
    body: bytes = b""
    moved: str = ""
    wait: float | None = None


@dataclass(frozen=True)
class Answer:
    """A JSON value, and the seconds that the host asks to wait."""

    value: Any
    wait: float | None = None


def read_json(web: Web, url: str, pause: float) -> Answer:
    """Fetch JSON.  Refused as in `fetch`, and an answer that is not JSON."""
    reply = fetch(web, url, most=_ANSWER, pause=pause, accept="application/json")
    try:
        return Answer(json.loads(reply.body), reply.wait)
    except (ValueError, RecursionError):
        raise Refused(f"{reply.host} answers with something that is not JSON") from None


def fetch(web: Web, url: str, *, most: int, pause: float, accept: str) -> Reply:
    """The whole answer of status 200, at most `most` bytes; `pause` seconds lie between two requests to a host.

    Where a host says that it has too much to do, it is asked again after the time that it names.  Raises Refused with
    the reason alone: not public, not found, moved in circles, too large, truncated, too slow, 403, ...
    """
    for turn in range(TRIES):
        reply = _follow_redirects(web, url, most, pause, accept)
        if reply.status == 200:
            return reply
        word = http.client.responses.get(reply.status, "")
        reason = f"{reply.host} answers {reply.status} {word}".strip()
        if reply.status not in _LATER:
            raise Refused(reason)
        wait = _BACK_OFF * 2**turn if reply.wait is None else reply.wait
        if turn == TRIES - 1 or wait > PATIENCE:
            break
        wait_for(web, url, wait, f"answers {reply.status}")
    if reply.wait is not None:
        reason += f" and asks to wait {reply.wait:.0f} s"
    if reply.status == 429 or wait > PATIENCE:
        web.shut[reply.host] = reason
    raise Refused(reason)


def wait_for(web: Web, url: str, seconds: float, why: str) -> None:
    """Wait because a host asks for it, and report the wait."""
    web.say(f"{urlsplit(url).netloc} {why}: waiting {seconds:.0f} s")
    web.sleep(seconds)


def public(address: str) -> bool:
    """Whether an IP address is one of the public Internet's: not of this machine, its network, or a way into them.

    >>> [public(a) for a in ("8.8.8.8", "127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:8.8.8.8")]
    [True, False, False, False, False, False]
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip in _NAT64:  # the way to IPv4 where a network has only IPv6
            return public(str(IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.scope_id or ip.is_site_local or any(ip in network for network in _TUNNELS):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def retry_after(text: str | None, now: datetime) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or as a date; None where it says nothing readable.

    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> retry_after("7", now), retry_after("Thu, 01 Jan 2026 00:01:00 GMT", now), retry_after("soon", now)
    (7.0, 60.0, None)
    """
    text = (text or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def _follow_redirects(web: Web, url: str, most: int, pause: float, accept: str) -> Reply:
    for _ in range(_REDIRECTS + 1):
        reply = _request(web, url, most, pause, accept)
        if not reply.moved:
            return reply
        url = _join_url(url, reply.moved)
    raise Refused(f"{reply.host} redirects more than {_REDIRECTS} times")


def _join_url(url: str, moved: str) -> str:
    try:
        return urljoin(url, moved)
    except ValueError:
        raise Refused("a redirect to something that is not an address") from None


def _request(web: Web, url: str, most: int, pause: float, accept: str) -> Reply:
    """Send one request to one host, after the pause between requests."""
    parts, host, port = _check_address(web, url)
    name = host if port == 443 else f"{host}:{port}"
    if name in web.shut:
        raise Refused(web.shut[name])
    if name in web.last_answer and (wait := web.last_answer[name] + pause - web.clock()) > 0:
        web.sleep(wait)
    target = quote(parts.path or "/", safe=_SAFE) + f"?{quote(parts.query, safe=_SAFE)}" * bool(parts.query)
    bracketed = f"[{host}]" if ":" in host else host
    headers = {
        "Host": bracketed if port == 443 else f"{bracketed}:{port}",
        "User-Agent": web.agent,
        "Accept": accept,
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    try:
        with _connect(web, host, port) as sock, _limit_time(web, host, sock) as sockets:
            if parts.scheme != "https":
                return _exchange(sock, host, port, name, target, headers, most)
            with _wrap_tls(sock, host) as sockets[0]:
                sockets[0].do_handshake()
                return _exchange(sockets[0], host, port, name, target, headers, most)
    except Refused:
        raise
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise Refused(_describe_failure(name, e, web)) from None
    finally:
        web.last_answer[name] = web.clock()


def _exchange(
    sock: socket.socket, host: str, port: int, name: str, target: str, headers: dict[str, str], most: int
) -> Reply:
    connection = http.client.HTTPConnection(host, port)
    connection.auto_open = 0  # never a connection of its own making
    connection.sock = sock
    try:
        connection.request("GET", target, headers=headers)
        with connection.getresponse() as response:
            wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC))
            moved = response.headers.get("Location") or ""
            if response.status in _MOVED and moved:
                return Reply(response.status, name, moved=moved)
            body = _body(response, most) if response.status == 200 else b""
            return Reply(response.status, name, body, wait=wait)
    finally:
        connection.close()


def _body(response: http.client.HTTPResponse, most: int) -> bytes:
    length = response.length
    parts, size = [], 0
    while length is None or length <= most:
        part = response.read1(1 << 16)
        size += len(part)
        if not part or size > most:
            break
        parts.append(part)
    if size > most or (length is not None and length > most):
        raise Refused(f"larger than {most / 1e6:g} MB")
    if length is not None and size < length:
        raise Refused("truncated on the way")
    return b"".join(parts)


def _check_address(web: Web, url: str) -> tuple[SplitResult, str, int]:
    """The parts, host and port of an address.  Refused: what is not an address, and all but https."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna" if not (parts.hostname or "").isascii() else "ascii").decode()
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise Refused("not a valid address") from None
    if not re.fullmatch(r"[a-z0-9_.:-]{1,253}", host) or parts.username is not None:
        raise Refused("an address with an invalid host" if host else "not a valid address")
    if parts.scheme != "https" and not (parts.scheme == "http" and f"{host}:{port}" in web.trusted):
        raise Refused(f"an address with {_scheme(parts.scheme)}: only https is fetched")
    return parts, host, port


def _scheme(word: str) -> str:
    return f"{word}:" if re.fullmatch(r"[a-z0-9+.-]{1,20}", word) else "no scheme"


@contextmanager
def _connect(web: Web, host: str, port: int) -> Iterator[socket.socket]:
    """Connect to a checked address of the host, without a second look-up."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Refused(f"{host} is not found: check its name and the network") from None
    for *_, place in addresses:
        if not public(str(place[0])) and f"{place[0]}:{port}" not in web.trusted:
            raise Refused(f"{host} is at {place[0]}, which is not a public address")
    failure: OSError | None = None
    for family, kind, protocol, _, place in addresses:
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(web.timeout)
            try:
                sock.connect(place)
            except OSError as e:
                failure = e
                continue
            yield sock
            return
    raise failure or Refused(f"{host} is not found: it has no address")


def _wrap_tls(sock: socket.socket, host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    return context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


@contextmanager
def _limit_time(web: Web, host: str, sock: socket.socket) -> Iterator[list[Any]]:
    """End a request that takes longer than web.whole: the socket in the list is shut down."""
    sockets, expired = [sock], threading.Event()

    def end() -> None:
        expired.set()
        with suppress(OSError):
            socket.socket.shutdown(sockets[0], socket.SHUT_RDWR)

    timer = threading.Timer(web.whole, end)
    timer.daemon = True
    timer.start()
    too_slow = Refused(f"{host} took longer than {web.whole:g} s")
    try:
        yield sockets
    except Exception:
        if expired.is_set():
            raise too_slow from None
        raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise too_slow


def _describe_failure(host: str, e: Exception, web: Web) -> str:
    if isinstance(e, ssl.SSLCertVerificationError):
        return f"the certificate of {host} is not valid for it"
    if isinstance(e, TimeoutError):
        return f"{host} sent nothing for {web.timeout:g} s"
    if isinstance(e, http.client.IncompleteRead):
        return "truncated on the way"
    return f"cannot reach {host}: {getattr(e, 'strerror', None) or type(e).__name__}"
