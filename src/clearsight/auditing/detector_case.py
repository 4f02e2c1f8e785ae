"""One detector and one set of pictures with the boxes of their objects, as the checks see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from clearsight.auditing.place_case import PlaceCase, class_numbers, name_order
from clearsight.core.progress import Progress
from clearsight.data.records import Picture, Pictures
from clearsight.data.truth_records import BoxTruth
from clearsight.data.truth_to_input import box_to_original, truth_to_input
from clearsight.errors import Refused
from clearsight.evaluation.records import BoxSet, PictureBoxes, box_set, picture_boxes
from clearsight.kinds.detections import Detections
from clearsight.kinds.detector import Detector


class DetectorCase(PlaceCase):
    """One detector and one set of pictures with boxes, as the checks see them.

    For checks of your own: model, data, seed, pictures, truths, found, boxes, sample, batches, pixels and detect stay
    as they are.

    Args:
        model: the detector.
        data: pictures with boxes, as `open_boxes` gives them.
        seed: start of all randomness.
        budget: time for the whole audit in seconds, above 0; None without a limit.
        progress: called with what is done, the number done and the total.
        model_words: options with which the command line loaded the model, for the commands that a report quotes.
        data_words: options with which the command line loaded the data, for the same commands.

    Refused: pictures without boxes, and classes that the detector does not know.
    """

    model: Detector

    def __init__(
        self,
        model: Detector,
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
        without = [p.name for p in data.pictures if p.boxes is None]
        if without:
            raise Refused(
                f"a detector is judged by boxes, and {self.counted(len(without), 'has', 'have')} none: {without[0]}",
                "open the pictures with open_boxes(FOLDER, ANNOTATIONS)",
            )
        self._numbers = torch.tensor(class_numbers(data, model.labels, model.index), dtype=torch.int64)

    def truth_of(self, picture: Picture) -> BoxTruth:
        """The objects of a picture, in its own pixels, with the model's class numbers."""
        truth = picture.boxes
        assert truth is not None
        return BoxTruth(
            truth.boxes, self._numbers[truth.labels], truth.crowd, truth.area, truth.difficult, truth.size, truth.names
        )

    def _judge(self, picture: Picture, outputs: Tensor) -> PictureBoxes:
        (found,) = self.model.detections(outputs)
        truth = self.truth_of(picture)
        boxes = box_to_original(found.boxes, truth.size, self.model.preprocess)
        return picture_boxes(
            boxes, found.scores, found.labels, truth.boxes, truth.labels, truth.crowd | truth.difficult, truth.area
        )

    @property
    def found(self) -> list[PictureBoxes]:
        """Detections and true boxes of each picture, in its own pixels.  Crowds and difficult ones are not judged."""
        return self.answers

    @cached_property
    def boxes(self) -> BoxSet:
        """The detections and true boxes of all pictures, with the detector's classes."""
        return box_set(self.found, range(len(self.model.labels)))

    @cached_property
    def annotated(self) -> list[int]:
        return [i for i, found in enumerate(self.found) if len(found.truth_labels)]

    def objects(self, row: int) -> BoxTruth:
        """The objects of a picture in the frame of the model's input, without crowds and difficult ones."""
        truth = truth_to_input(self.truth_of(self.pictures[row]), self.model.preprocess, least=0.5)
        return truth.keep(~(truth.crowd | truth.difficult))

    def all_objects(self, row: int) -> BoxTruth:
        """The same with crowds, difficult ones and those that are cut off."""
        return truth_to_input(self.truth_of(self.pictures[row]), self.model.preprocess)

    def detect(self, x: Tensor) -> Iterator[Detections]:
        """The boxes that the detector reports in each picture x (B, C, H, W), in pixels of its input."""
        yield from self.model.detections(self.outputs(x))

    def _truth_bytes(self, picture: Picture) -> bytes:
        truth = self.truth_of(picture)
        classes = name_order(self.model.labels)[truth.labels]
        parts = (truth.boxes, classes, truth.crowd | truth.difficult, truth.area)
        return b"".join(part.numpy().tobytes() for part in parts)
