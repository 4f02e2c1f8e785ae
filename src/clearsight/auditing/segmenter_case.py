"""One segmenter and one set of pictures with the class of each pixel, as the checks see them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clearsight.auditing.place_case import PlaceCase, class_numbers, name_order
from clearsight.core.progress import Progress
from clearsight.data.records import Picture, Pictures
from clearsight.data.truth_records import NOT_JUDGED
from clearsight.data.truth_to_input import map_to_input
from clearsight.errors import Refused
from clearsight.evaluation.boundaries import BoundaryCounts
from clearsight.evaluation.pixels import PixelCounts
from clearsight.kinds.segmenter import Segmenter


@dataclass(frozen=True)
class PixelAnswers:
    """What is kept of a picture: a few numbers for each class.

    pixels: (3, K) pixels in both, the truth, the prediction.  boundaries: (2, K) pixels shared by both boundaries and
    in either.  digest: of the truth.
    """

    pixels: NDArray[np.int64]
    boundaries: NDArray[np.int64]
    digest: bytes


class SegmenterCase(PlaceCase):
    """One segmenter and one set of pictures with class maps, as the checks see them.

    Everything is judged in the frame of the model's input, to which the truth is brought by the class under each
    pixel's centre.

    For checks of your own: model, data, seed, pictures, answers, counts, boundaries, sample, batches, pixels, segment
    and truth_of stay as they are.

    Args:
        model: the segmenter.
        data: pictures with class maps, as `open_masks` gives them.
        seed: start of all randomness.
        budget: time for the whole audit in seconds, above 0; None without a limit.
        progress: called with what is done, the number done and the total.
        model_words: options with which the command line loaded the model, for the commands that a report quotes.
        data_words: options with which the command line loaded the data, for the same commands.

    Refused: pictures without class maps, and classes that the segmenter does not know.
    """

    model: Segmenter

    def __init__(
        self,
        model: Segmenter,
        data: Pictures,
        *,
        seed: int = 0,
        budget: float | None = None,
        progress: Progress | None = None,
        model_words: Sequence[str] = (),
        data_words: Sequence[str] = (),
    ) -> None:
        super().__init__(
            model, data, seed=seed, budget=budget, progress=progress, model_words=model_words, data_words=data_words
        )
        without = [p.name for p in data.pictures if p.pixels is None]
        if without:
            raise Refused(
                f"a segmenter is judged by class maps, and {self.counted(len(without), 'has', 'have')} none: "
                f"{without[0]}",
                "open the pictures with open_masks(FOLDER, MASKS)",
            )
        self._matrix = torch.zeros(len(model.labels), len(model.labels), dtype=torch.int64)  # of all pictures so far
        self._by_name = torch.arange(NOT_JUDGED + 1)
        self._by_name[: len(model.labels)] = name_order(model.labels)
        self._numbers = torch.full((NOT_JUDGED + 1,), NOT_JUDGED)
        numbers = class_numbers(data, model.labels, model.index)
        self._numbers[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)

    def truth_of(self, picture: Picture) -> Tensor:
        """The model's class of each pixel of its input, int64 (H, W); 255 where a pixel is not judged."""
        assert picture.pixels is not None
        return map_to_input(self._numbers[picture.pixels()], self.model.preprocess)

    def _judge(self, picture: Picture, outputs: Tensor) -> PixelAnswers:
        truth, predicted = self.truth_of(picture), outputs[0].argmax(0)
        pixels, boundaries = PixelCounts(len(self.model.labels)), BoundaryCounts(len(self.model.labels))
        pixels.add(predicted, truth)
        boundaries.add(predicted, truth)
        digest = hashlib.sha256(self._by_name[truth].to(torch.uint8).numpy().tobytes()).digest()
        self._matrix += pixels.matrix
        return PixelAnswers(pixels.per_picture[0], boundaries.per_picture[0], digest)

    @cached_property
    def counts(self) -> PixelCounts:
        """The counts of all pictures."""
        counts = PixelCounts(len(self.model.labels))
        counts.per_picture.extend(answer.pixels for answer in self.answers)
        counts.matrix += self._matrix
        return counts

    @cached_property
    def boundaries(self) -> BoundaryCounts:
        """The counts of the boundaries of all pictures."""
        counts = BoundaryCounts(len(self.model.labels))
        counts.per_picture.extend(answer.boundaries for answer in self.answers)
        return counts

    @cached_property
    def annotated(self) -> list[int]:
        """The rows of pictures of which some pixels are judged."""
        return [i for i, answer in enumerate(self.answers) if answer.pixels[1].any()]

    def segment(self, x: Tensor) -> Tensor:
        """The class of every pixel, int64 (B, H, W), of pictures x (B, C, H, W) in [0, 1]."""
        return self.outputs(x).argmax(1)

    def _truth_bytes(self, picture: Picture) -> bytes:
        return self._digests[picture.name]

    @cached_property
    def _digests(self) -> dict[str, bytes]:
        return {p.name: answer.digest for p, answer in zip(self.pictures, self.answers, strict=True)}
