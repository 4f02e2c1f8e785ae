"""Requests to a small shop, some of them attacks whose place is marked, and a model that is trained on them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import clearsight as cs

WORDS = ("home", "cart", "login", "search", "item", "help")


def lay_out_shop(folder: Path) -> Path:
    """Write requests.jsonl, of which those with a quote are attacks, and train the model m on them."""
    drawn, rows = random.Random(0), []
    for number in range(120):
        text = f"GET /{drawn.choice(WORDS)}?id={drawn.randint(10, 99)}&q="
        attack = number % 2 == 1
        value = "'" + drawn.choice((" OR 1", "--", ";x")) if attack else drawn.choice(WORDS)
        row: dict[str, object] = {"text": text + value, "label": "attack" if attack else "normal"}
        if attack:
            row["marks"] = [[len(text), len(text + value)]]
        rows.append(row)
    rows += [{"text": "é\tGET /home?id=10&q='--", "label": "attack"}, {"text": "", "label": "normal"}]
    rows += [{"text": "a" * 60, "label": "normal"}, rows[0]]
    (folder / "requests.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = cs.Recipe(size=48, epochs=8, batch=16, lr="0.01")
    for _ in cs.train(str(folder / "requests.jsonl"), recipe, folder / "m"):
        pass
    return folder
