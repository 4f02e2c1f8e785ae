"""What users wait for, beside an earlier build and beside other libraries: one command writes all of speed.md anew.

    python benchmarks/speed.py --before 9717f8b --mnist FOLDER --write

Each section stands in `speed.md` between two marks, with the build, the day and the machine beneath it; the prose
outside stays.  Sections, in this order:

    commands    this build and that of the commit --before by turns, each a process of its own; a clock's seconds
    threads     calls with threads that spin or sleep while they wait, idle and with two busy neighbours
    photos      accuracy and calibration of 5,000 photos beside a plain loop (`large.py read`)
    faults      page faults of calls on a small network, beside the build before they were looked at
    attacks     beside three other libraries by turns in one process; processor time of one thread
    explainers  beside six other libraries, into `explainer_peers.md` (`explainer_peers.py`)

A ratio is the median of those of the turns, with the lowest and the highest; below 1 this build is the faster one.  MB:
the peak of a process.  MNIST: a folder with the four idx files.  What the sections import beyond the package: the extra
`bench`, and ``pip install adv-lib shap lime xplique tensorflow-cpu``.

``--only SECTION`` measures one.  To try: ``--rows WORD`` takes the rows that hold the word, ``--turns N`` as many
turns of each, ``--photos N`` and ``--pictures N`` so many, ``--without NAME,NAME`` leaves these libraries out,
``--keep-memory`` lets freed memory stay with the process that attacks.

Unset OMP_NUM_THREADS, and let nothing else run: on two cores all of it takes about an hour.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import libraries
import sections

SECTIONS = ("commands", "threads", "photos", "faults", "attacks", "explainers")
PHOTOS, PICTURES = 5000, 200


def main() -> None:
    """Measure each section in a process of its own, so that none begins with the memory of the one before."""
    words = parsed()
    if words.only:
        section(words.only, words)
        return
    failed = []
    for name in SECTIONS:
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", name], check=False)
        failed += [name] if done.returncode else []
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}; the others are done")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="a commit, whose build stands beside this one")
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--write", type=Path, nargs="?", const=Path(__file__).parent, help="the folder of the pages")
    parser.add_argument("--only", choices=SECTIONS)
    parser.add_argument("--rows", default="")
    parser.add_argument("--turns", type=int)
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--without", default="")
    parser.add_argument("--keep-memory", action="store_true")
    words = parser.parse_args()
    left = words.without.split(",")
    if words.only in (None, "attacks"):
        libraries.all_there(libraries.ATTACKS, left)
    if words.only in (None, "explainers"):
        libraries.all_there(libraries.EXPLAINERS, left)
    return words


def section(name: str, words: argparse.Namespace) -> None:
    began = sections.start()
    if name == "explainers":
        command = [sys.executable, str(Path(__file__).with_name("explainer_peers.py")), "--only", words.rows]
        command += ["--write", str(words.write)] if words.write else []
        subprocess.run([*command, "--without", words.without], check=True)
        return
    used = libraries.ATTACKS if name == "attacks" else ()
    text = f"{body(name, words)}\n\n{made(name, words)}\n{sections.state(began, *used)}"
    print(text)
    if words.write:
        sections.write(words.write / "speed.md", name, text)


def body(name: str, words: argparse.Namespace) -> str:
    if name == "commands":
        import speed_commands

        return speed_commands.measured(words.before, words.rows, words.turns)
    if name == "threads":
        import speed_threads

        return speed_threads.measured(words.turns)
    if name == "photos":
        import large

        with tempfile.TemporaryDirectory() as folder:
            large.photos(Path(folder) / "photos", words.photos)
            return large.reading(Path(folder), words.photos, words.turns or 2)
    if name == "faults":
        import speed_faults

        return speed_faults.measured(words.mnist, words.rows, words.turns)
    import speed_attacks

    left = words.without.split(",")
    return speed_attacks.measured(words.mnist, words.rows, words.pictures, words.turns, words.keep_memory, left)


def made(name: str, words: argparse.Namespace) -> str:
    """The command that makes the section again."""
    given = ["--before", words.before, "--mnist", "FOLDER", "--only", name]
    for option in ("rows", "turns", "without"):
        given += [f"--{option}", f"{getattr(words, option)}"] if getattr(words, option) else []
    given += ["--photos", str(words.photos)] if name == "photos" and words.photos != PHOTOS else []
    given += ["--pictures", str(words.pictures)] if name == "attacks" and words.pictures != PICTURES else []
    given += ["--keep-memory"] if words.keep_memory else []
    return f"Made by `python benchmarks/speed.py {shlex.join(given)} --write`."


if __name__ == "__main__":
    main()
