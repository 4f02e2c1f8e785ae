"""What the answers of a server go through before they are told, against theft of the model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from clearsight.core.answering import Account, Withheld
from clearsight.data.images import of_bytes
from clearsight.errors import Refused
from clearsight.runner.answer import answer, answer_defences
from clearsight.serving.backend import Answers, Backend
from clearsight.serving.keys import Key
from clearsight.serving.pictures import Sent
from clearsight.serving.problems import Problem


class Defence:
    """Applies defences of the catalogue (kind "answer_defences"), with an account for each key.

    What they remember of an account ends with the server; a budget that must outlive it is a limit of the key.

    `keeps_top`: whether the top class that is told is the model's own, whatever the picture.

    Args:
        backend: the model.
        spellings: the defences, in their order; none lets every answer through.

    Refused: unknown defences and options, a model that gives values, and a defence that cannot be applied to it.
    """

    def __init__(self, backend: Backend, spellings: Sequence[str]) -> None:
        self.calls = answer_defences(spellings)
        self.keeps_top = all("keeps-top" in call.method.claims for call in self.calls)
        self._accounts: dict[str, Account] = {}
        self._lock = threading.Lock()
        if not self.calls:
            return
        if backend.scores == "values":
            raise Refused("the model gives values, and defences are of probabilities", "leave out the defences")
        if lonely := [str(call) for call in self.calls if "needs-others" in call.method.claims]:
            raise Refused(f"{lonely[0]} needs other networks, and one is served", "leave it out")
        blank = torch.zeros(1, backend.preprocess.channels, *backend.preprocess.size)
        answer(self.calls, Account(), blank, torch.full((1, len(backend.labels)), 1 / len(backend.labels)))

    def told(self, key: Key | None, sent: Sequence[Sent], answers: Answers) -> Answers:
        """The answers as they may be told.  Refused: where a defence gives this account none."""
        name = "" if key is None else key.name
        with self._lock:
            account = self._accounts.setdefault(name, Account())
        x = of_bytes(torch.from_numpy(np.stack([s.pixels for s in sent])))
        try:
            values = answer(self.calls, account, x, torch.from_numpy(answers.values.copy()))
        except Withheld as e:
            raise Problem(429, e.what, e.fix) from e
        return replace(answers, values=values.numpy())
