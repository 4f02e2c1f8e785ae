"""How much memory is left."""

from __future__ import annotations

from pathlib import Path

import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, or for this process on a processor; None where the system does not say it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = [available(Path("/proc/meminfo")), left_in_group(Path("/sys/fs/cgroup"))]
    return min((n for n in found if n is not None), default=None)


def available(table: Path) -> int | None:
    """Bytes that Linux can give without swapping: MemAvailable of proc(5)."""
    try:
        line = next(row for row in table.read_text().splitlines() if row.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def left_in_group(group: Path) -> int | None:
    """Bytes that a container may still take: the limit of its control group, less what cannot be given back."""
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        rows = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(rows.get("inactive_file", 0)))
    except (OSError, ValueError):  # no limit, which is written "max", or another kind of group
        return None
