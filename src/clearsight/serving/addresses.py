"""Who can reach a host's address, and whether that is meant."""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from clearsight.errors import Refused


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def check_open(host: str, *, keys: bool, open_to_all: bool) -> None:
    """Refuse an address that other machines reach where neither keys are asked for nor everybody is to be answered."""
    if not is_loopback(host) and not keys and not open_to_all:
        raise Refused(
            f"host {host} is open to other machines, and no keys are asked for",
            "give --keys FILE, or --open to answer everybody",
        )
