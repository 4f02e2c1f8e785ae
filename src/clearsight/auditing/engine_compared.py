"""A graph that was converted from an exported file is compared with the file's engine on the pictures themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import torch

from clearsight.core.model import Model
from clearsight.data.datasets import Pictures, pixels
from clearsight.engines.facts import facts_of
from clearsight.errors import Refused
from clearsight.models.exported import engine_beside

AnyModel = TypeVar("AnyModel", bound=Model)

_SEEN = 4  # pictures: each goes once through the graph and once through the engine


def compared_with_engine(model: AnyModel, pictures: Pictures) -> tuple[AnyModel, Pictures]:
    """The model and the pictures, with a note where a converted graph was compared on the first that can be read.

    The model is the engine's own where the graph gives other scores there.
    """
    facts = facts_of(model.net)
    if facts is None or not facts.converted or pictures.are_texts:
        return model, pictures
    found = []
    for picture in pictures.pictures[: 2 * _SEEN]:
        try:
            found.append(pixels(model, replace(pictures, pictures=(picture,))))
        except Refused:  # the audit names it
            continue
    if not found:
        return model, pictures
    model, sentence = engine_beside(model, torch.cat(found[:_SEEN]))
    return model, replace(pictures, notes=(*pictures.notes, f"The model: {sentence}.")) if sentence else pictures
