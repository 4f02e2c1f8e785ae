"""What the report of an attack says of a detector's objects, and of a segmenter's pixels."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from clearsight.attacking.scene_sweep import SceneOutcome
from clearsight.auditing.evidence import share
from clearsight.core.text import counted
from clearsight.drawing.box_picture import BLUE, ORANGE, BoxGroup, box_picture
from clearsight.drawing.heatmaps import overlay, photo, strip
from clearsight.kinds.box_goals import Objects
from clearsight.kinds.detector import Detector
from clearsight.kinds.region_goals import UNJUDGED
from clearsight.kinds.segmenter import Segmenter
from clearsight.reporting.findings import Cell

FEW = 0.5  # of the objects; where fewer are found in the clean pictures, the report says so


class BoxReport:
    """What the report says of a detector."""

    score, what = "AP50", "objects"

    def __init__(self, model: Detector | Segmenter, truth: Objects, clean: SceneOutcome, floor: float) -> None:
        self.model, self.truth, self.clean, self.floor = model, truth, clean, floor

    def fates(self, outcome: SceneOutcome, i: int) -> list[str]:
        """What became of each object of a picture; missed is one that has no box in the clean picture either."""
        assert self.clean.fates is not None
        assert outcome.fates is not None
        pairs = zip(self.clean.fates.of_objects[i], outcome.fates.of_objects[i], strict=True)
        return ["missed" if before == after == "vanished" else after for before, after in pairs]

    def row(self, outcome: SceneOutcome, rows: Sequence[int]) -> dict[str, Cell]:
        """The fates of the objects of some pictures, and the boxes of nothing."""
        assert outcome.fates is not None
        every = [fate for i in rows for fate in self.fates(outcome, i)]
        cells: dict[str, Cell] = {"objects": len(every)}
        cells |= {fate: every.count(fate) for fate in ("kept", "mislabelled", "displaced", "missed", "vanished")}
        return cells | {"fabricated": int(outcome.fates.fabricated[list(rows)].sum())}

    def harm(self, before: SceneOutcome, after: SceneOutcome, i: int) -> tuple[float, ...]:
        """What orders the pictures, the worst first: objects lost, then boxes that came up."""
        (kept, made), (still_kept, then_made) = self._kept_and_made(before, i), self._kept_and_made(after, i)
        return float(kept - still_kept), float(then_made - made)

    def _kept_and_made(self, outcome: SceneOutcome, i: int) -> tuple[int, int]:
        """How many objects of a picture are found, and how many boxes of nothing."""
        assert outcome.fates is not None
        return outcome.fates.of_objects[i].count("kept"), int(outcome.fates.fabricated[i])

    def sentence(self, after: SceneOutcome) -> str:
        cells = self.row(after, range(len(after.x)))
        fabricated = int(cells["fabricated"] or 0)
        made = f", and {counted(fabricated, 'box', 'boxes')} of nothing {'is' if fabricated == 1 else 'are'} found"
        kept = f"{cells['kept']} of {counted(int(cells['objects'] or 0), 'object')} stay found"
        return kept + (made if fabricated else "")

    def drawn(self, outcome: SceneOutcome, i: int) -> Image.Image:
        """The boxes that are found, and dashed the objects that are not."""
        name, found, boxes = self.model.name, outcome.found[i], self.truth.boxes[i][self.truth.present[i]]
        classes = self.truth.classes[i][self.truth.present[i]].tolist()
        fates = self.fates(outcome, i)
        lost = [k for k, fate in enumerate(fates) if fate != "kept"]
        scores = zip(found.labels.tolist(), found.scores.tolist(), strict=True)
        groups = [
            BoxGroup("found", found.boxes, BLUE, words=[f"{name(k)} {100 * p:.0f} %" for k, p in scores]),
            BoxGroup(
                "not found",
                boxes[lost],
                ORANGE,
                dashed=True,
                words=[f"{name(classes[k])} {fates[k]}" for k in lost],
            ),
        ]
        return box_picture(outcome.x[i], groups)

    def caption(self, outcome: SceneOutcome, i: int) -> str:
        return f"{counted(len(outcome.found[i]), 'box', 'boxes')} found"

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether there was little to attack, and what the words of the table mean."""
        return (
            *self._few(),
            "kept: a box of its class with an IoU of 0.5 or more; mislabelled: of another class; displaced: an IoU of "
            "0.1 to 0.5; missed: none of these, before the attack either; vanished: none of these any more; "
            "fabricated: boxes that overlap every object by less than 0.1.",
            "AP counts boxes of every score that the model reports, and so hardly falls where objects are found with "
            "lower scores or boxes of nothing with low ones; the fates count boxes with scores above "
            f"{self.floor:g}, which the attack is for.",
        )

    def _few(self) -> tuple[str, ...]:
        """That few objects are found in the clean pictures, and what to do."""
        cells = self.row(self.clean, range(len(self.clean.x)))
        kept, objects = int(cells["kept"] or 0), int(cells["objects"] or 0)
        if kept >= FEW * objects:
            return ()
        return (
            f"Only {kept} of {counted(objects, 'object')} {'is' if objects == 1 else 'are'} found in the clean "
            f"pictures, by boxes with scores above {self.floor:g}, so the attack has few to take away. A lower score "
            "floor (--score-floor) counts more boxes as found.",
        )


class PixelReport:
    """What the report says of a segmenter."""

    score, what = "mean IoU", "pixels"

    def __init__(self, model: Detector | Segmenter, truth: Tensor) -> None:
        self.model, self.truth = model, truth

    def row(self, outcome: SceneOutcome, rows: Sequence[int]) -> dict[str, Cell]:
        assert outcome.misread is not None
        return {"pixels misread": float(outcome.misread[list(rows)].mean())}

    def harm(self, before: SceneOutcome, after: SceneOutcome, i: int) -> tuple[float, ...]:
        assert before.misread is not None
        assert after.misread is not None
        return (float(after.misread[i] - before.misread[i]),)

    def sentence(self, after: SceneOutcome) -> str:
        misread = self.row(after, range(len(after.x)))["pixels misread"]
        return f"{share(float(misread or 0))} of the pixels of a picture are misread in the mean"

    def drawn(self, outcome: SceneOutcome, i: int) -> Image.Image:
        """The picture, and the pixels that are misread in ink over it."""
        assert outcome.predicted is not None
        wrong = (outcome.predicted[i] != self.truth[i]) & (self.truth[i] != UNJUDGED)
        return strip([photo(outcome.x[i]), overlay(outcome.x[i], wrong.float(), signed=False)])

    def caption(self, outcome: SceneOutcome, i: int) -> str:
        assert outcome.predicted is not None
        counts = outcome.predicted[i].flatten().bincount(minlength=len(self.model.labels))
        order = [k for k in counts.argsort(descending=True).tolist() if counts[k]][:3]
        return ", ".join(f"{self.model.name(k)} {share(float(counts[k] / counts.sum()))}" for k in order)

    notes: tuple[str, ...] = ("In ink: pixels that are misread.",)


KindReport = BoxReport | PixelReport
