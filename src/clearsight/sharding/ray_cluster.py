"""Ray, silent: the caller's where it runs, a cluster at an address, or one that only this machine reaches."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clearsight.core.processors import processors
from clearsight.errors import Refused

STORE = 2**28  # bytes of memory in which Ray of this machine hands things to its workers
LOCAL = "local"  # in place of an address
LOCALHOST = "127.0.0.1"
PATIENCE = 5.0  # seconds in which a machine takes a connection
_LOOPBACK = ("localhost", "::1", "127.")  # how the hosts begin that are this machine
_QUICK = {  # of Ray, which else tries 20 times, up to 40 seconds each
    "RAY_NUM_REDIS_GET_RETRIES": "2",
    "RAY_py_gcs_connect_timeout_s": "5",
}
_TOKEN = "where the cluster asks for a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to that token"
_GIVE = "give the HOST:PORT that 'ray start --head' printed there, or local for a cluster of this machine"


def require_ray(who: str, address: str | None = None) -> None:
    """Refuse if Ray is missing.  Its environment variables are set first, because Ray reads them on import.

    who: what needs it, as the message names it.  address: as for `ray_cluster`.
    """
    keep_ray_quiet(address)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray_module("ray")
            ray_module("ray.tune")
    except ImportError:
        raise Refused(f"{who} needs Ray, which is not installed: pip install 'clearsight[ray]'") from None


def keep_ray_quiet(address: str | None = None) -> None:
    """Let Ray, before it is imported, tell nobody that it is used, and listen on this machine alone.

    address: as for `ray_cluster`; a cluster elsewhere is not reached from 127.0.0.1, and one there from nowhere else.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    joined = _elsewhere(address)
    if joined:
        for name, value in _QUICK.items():
            os.environ.setdefault(name, value)
    if not joined or joined.lstrip("[").startswith(_LOOPBACK):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # what makes Ray keep to 127.0.0.1, on Linux too


def _elsewhere(address: str | None) -> str | None:
    """The address of the cluster to join; None for one of this machine."""
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address == LOCAL else address


def ray_module(name: str) -> Any:
    """A module of Ray, which need not be installed for the rest of the package, nor for the checking of its types."""
    return importlib.import_module(name)


@contextlib.contextmanager
def ray_cluster(at_once: int, address: str | None = None) -> Iterator[Any]:
    """Ray, silent: the caller's where it runs, the cluster at the address, or one that begins and ends with this.

    at_once: how many processes that of this machine has at least.  address: "local" is this machine; None takes
    RAY_ADDRESS, and this machine where that is not set.

    Refused: a cluster that cannot be reached or begun.
    """
    ray = ray_module("ray")
    quiet = {
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table at any verbosity
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl+C is for whoever called
    }
    address = _elsewhere(address)
    started = not ray.is_initialized()
    if started and not address:  # this process's own, which Ray reads once, rather than one that it leaves in the home
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    before = {name: os.environ.get(name) for name in quiet}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    level = logging.getLogger("ray").level
    place = Path(
        tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
    )  # sockets need short paths
    os.environ.update(quiet)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray\.")
            warnings.filterwarnings("ignore", message=r".*[Rr]ay", category=FutureWarning)
            if started:
                _start_ray(ray, address, place, at_once)
            logging.getLogger("ray").setLevel(logging.CRITICAL)
            yield ray
    finally:
        if started:
            ray.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        logging.getLogger("ray").setLevel(level)
        if main:
            signal.signal(signal.SIGTERM, handler)
        shutil.rmtree(place, ignore_errors=True)


def require_answer(address: str) -> None:
    """Refuse an address where nothing listens, for which Ray would wait minutes.

    "auto" and addresses of another protocol, such as ray://, are left to Ray.
    """
    if address == "auto" or "://" in address:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise Refused(f"{address!r} is no address of a Ray cluster", _GIVE)
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as e:
        raise Refused(f"no Ray cluster answers at {address} ({e.strerror or e})", _GIVE) from e


def _start_ray(ray: Any, address: str | None, place: Path, at_once: int) -> None:
    """Connect to the cluster, or start Ray on this machine, where nobody else can reach it."""
    silent: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        if address:
            require_answer(address)
            ray.init(address=address, **silent)
            return
        local = {"include_dashboard": False, "object_store_memory": STORE, "_temp_dir": str(place)}
        cpus = max(at_once, processors())
        ray.init(address="local", num_cpus=cpus, _node_ip_address=LOCALHOST, **local, **silent)
    except (ConnectionError, RuntimeError, ValueError, OSError) as e:
        where = f"the cluster {address}" if address else "this machine"
        what = f"Ray does not start on {where}: {str(e).strip().splitlines()[0]}"
        raise Refused(what, _TOKEN if address else "") from e
    if (address_of_node := ray.nodes()[0]["NodeManagerAddress"]) != LOCALHOST:
        ray.shutdown()
        raise Refused(
            f"Ray was loaded before and would listen on {address_of_node}: set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"
        )
