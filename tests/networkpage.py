"""The page docs/method-by-network.md, whose two tables are written by two tests: which method runs where, and what was
checked of each network.  Each test writes its own table and leaves the other as it is."""

from __future__ import annotations

import re
from pathlib import Path

import networks

PAGE = Path(__file__).parent.parent / "docs" / "method-by-network.md"
HEAD = """# Which method runs on which network

Every explainer on networks of torchvision with random weights and five classes, with default options but few steps.
**✓** a map; a number: refused, for the reason below. Written by a test that runs all of it:
`pytest -m slow tests/contract/test_networks.py -n 0`.
"""
CHECKED = "## What was checked of each network\n"
ABOUT = """
The same networks at three sizes of picture (height × width), and at the first of them in half precision. Written by a
test that runs all of it: `pytest -m slow tests/values/test_sweep.py -n 0`.

- **probe**: what `clearsight inspect` says of the network: whether a picture always gets the same scores, and whether
  its gradient is that of the scores.
- **at the pixels**: the largest difference between the maps of `saliency(absolute=false)` and `gradient-x-input`, and
  central finite differences in double precision, as a share of them; along random directions and along the gradient's
  own. At the first size also that of the gradient which methods of dozens of passes take, with BatchNorm folded.
- **residual**: how far what `integrated-gradients` says that its map misses is from what it misses, as a share of the
  largest score.
- **at layers**: the largest difference between the gradient, on which `grad-cam` and its kin rest, and finite
  differences, at the layer that is read by default and at one in the middle of the network. A little noise lies on
  the layer: where values are equal, as a ReLU's zeros are to the max-pool behind it, there is no gradient. Single
  precision turns a few ReLUs on that double precision turns off: where it is off by more than 0.1 %, the same gradients
  in double precision were seen to be within 0.01 %.
- **places**: what a small spot says that is moved over the picture. **right**: runs of modules whose maps, as they are
  read, change where the spot is. **cannot be told**: their maps are read, but in none of their readings does the change
  follow the spot, as where every place sees the whole picture; these are not checked. **wrong**: in another reading the
  change follows it, and with other random weights too. **not read**: the layer is refused by name, and in some reading
  the change follows the spot.
- **float16**, **bfloat16**: how far the scores are off from those of single precision with the same weights, and how
  far the maps of `grad-cam`, `grad-cam++`, `hires-cam`, `layer-cam` and `xgrad-cam` are, as shares of the largest score
  and of what a map adds up. `saliency` and `gradient-x-input` are seen to be refused there, and `occlusion` to be off
  by no more than the scores are.
"""
COLUMNS = (
    "network", "size", "probe", "at the pixels", "residual", "at layers", "read by default", "right", "cannot be told",
    "wrong", "not read", "float16: scores", "maps", "bfloat16: scores", "maps",
)  # fmt: skip

Rows = dict[tuple[str, str], tuple[str, ...]]  # (network, size) -> the cells after them


def cells() -> dict[tuple[str, str], str]:
    """What the committed page says: (method, network) -> its reason, or "works"."""
    text = _parts()[0]
    reasons = dict(re.findall(r"(?m)^(\d+)\. (.*)$", text))
    head, *rows = _table(text)
    found = {}
    for row in rows:
        for group, cell in zip(head[1:], row[1:], strict=True):
            for name in group.split("<br>"):
                found[row[0], name] = "works" if cell == "✓" else reasons[cell]
    return found


def write_methods(outcomes: dict[tuple[str, str], str]) -> None:
    """The first table, in which networks that take the same methods share a column."""
    methods = networks.EXPLAINERS
    columns: dict[tuple[str, ...], list[str]] = {}
    for n in networks.NAMES:
        columns.setdefault(tuple(outcomes[m, n] for m in methods), []).append(n)
    reasons = list(dict.fromkeys(o for column in columns for o in column if o != "works"))
    cell = {"works": "✓"} | {r: str(i + 1) for i, r in enumerate(reasons)}
    lines = ["| method | " + " | ".join("<br>".join(names) for names in columns.values()) + " |"]
    lines += ["|---" * (len(columns) + 1) + "|"]
    lines += [f"| {m} | " + " | ".join(cell[c[i]] for c in columns) + " |" for i, m in enumerate(methods)]
    lines += ["", "## Refused, because", "", *(f"{cell[r]}. {r}" for r in reasons), ""]
    PAGE.write_text("\n".join([HEAD, *lines]) + _parts()[1])


def checked() -> Rows:
    """What the committed page says was checked."""
    return {(row[0], row[1]): tuple(row[2:]) for row in _table(_parts()[1])[1:]}


def write_checked(rows: Rows) -> None:
    """The second table; rows of networks and sizes that are not given stay as they are."""
    known = checked() | rows
    asked = [(n, size_words(s)) for n in networks.NAMES for s in networks.sizes(n)]
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join((*key, *known[key]))} |" for key in asked if key in known]
    PAGE.write_text("\n".join([_parts()[0], CHECKED + ABOUT, *lines, ""]))


def size_words(size: tuple[int, int]) -> str:
    """64 × 64"""
    return f"{size[0]} × {size[1]}"


def share(value: float) -> str:
    """A share in per cent, with two digits."""
    return "< 0.001 %" if value < 1e-5 else f"{100 * value:.2g} %"


def _parts() -> tuple[str, str]:
    """The page with the first table, and what comes after it."""
    text = PAGE.read_text() if PAGE.exists() else ""
    first, mark, rest = text.partition(f"\n{CHECKED}")
    return first, mark + rest


def _table(text: str) -> list[list[str]]:
    """The head and the rows of the table in a text."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return lines[:1] + lines[2:]
