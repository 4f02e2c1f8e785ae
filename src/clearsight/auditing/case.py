"""One model and one set of pictures, as the checks see them; what they share is computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clearsight._version import __version__
from clearsight.auditing.clock import Clock
from clearsight.auditing.commands import Commands
from clearsight.auditing.reading import read_and_score
from clearsight.core import rng
from clearsight.core.batching import SIZE
from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier, classifier_of
from clearsight.core.places import occupied
from clearsight.core.progress import Progress
from clearsight.core.targets import ClassScore
from clearsight.core.text import counted
from clearsight.data.annotations import Region, of_label, region_mask
from clearsight.data.class_words import understood
from clearsight.data.datasets import Picture, Pictures
from clearsight.data.images import of_bytes, open_picture
from clearsight.data.text_encoding import UNKNOWN, marked, unknown_note
from clearsight.data.text_inputs import content, input_bytes, refuse_other_kind, train_texts
from clearsight.errors import Refused
from clearsight.internals.probe import Unprobed, probed
from clearsight.internals.target_layer import target_layer
from clearsight.models.model_folder import SPLIT, trained_on
from clearsight.runner.run import explain, resolve
from clearsight.runner.sharded import TOGETHER
from clearsight.sharding.shards import hired


def is_black_box(model: Classifier, x: Tensor) -> bool:
    """Whether a model gives scores alone: no gradient at the pixels x (1, C, *S), and no layer of feature maps."""
    x = x.to(model.device)
    with model.undisturbed():
        try:
            if probed(model, x).slopes.flows != "none":
                return False
            target_layer(model, x)
        except Unprobed:
            return False
        except Refused:
            return True
    return False


class Case:
    """One model and one set of pictures, as the checks see them.

    The rows of a case count only the pictures that could be read.  A check only reads its case: what its finding says
    of explainers, the loop over checks hands on to the checks after it.  ``clock`` says how much time is left, and
    ``commands`` writes the commands that a report quotes.

    For checks of your own: model, data, seed, pictures, logits, truth, labelled, predicted, right, sample, batches,
    pixels, maps, regions and objects stay as they are.

    Args:
        model: the classifier.
        data: the pictures.
        seed: start of all randomness.
        budget: time for the whole audit in seconds, above 0; None without a limit.
        method: name of the explainer that the checks use; "auto" for grad-cam if the network has feature maps for it,
            else integrated-gradients, or occlusion where no gradient comes back to the pixels.
        progress: called with what is done, the number done and the total.
        model_words: options with which the command line loaded the model, for the commands that a report quotes.
        data_words: options with which the command line loaded the data, for the same commands.

    Refused: data without a picture that can be read, a budget of 0 or less, unknown explainers, and classes of the data
    that the model does not know.
    """

    def __init__(
        self,
        model: Classifier,
        data: Pictures,
        *,
        seed: int = 0,
        budget: float | None = None,
        method: str = "auto",
        progress: Progress | None = None,
        model_words: Sequence[str] = (),
        data_words: Sequence[str] = (),
    ) -> None:
        model = classifier_of(model, "an audit")
        if not data.pictures and data.broken:
            name, reason = data.broken[0]
            raise Refused(f"none of the pictures can be read ({name}: {reason})")
        if not data.pictures:
            raise Refused(f"no pictures in {data.root}: an audit needs at least one")
        refuse_other_kind(data, model.preprocess)
        if budget is not None and budget <= 0:
            raise Refused(f"a budget of {budget:g} s: give more than nothing, such as 60s")
        self.model, self.data, self.seed, self.budget = model, data, seed, budget
        self.method_words = method
        self.progress: Progress = progress or (lambda what, done, total: None)
        parse("grad-cam" if method == "auto" else method, "explainers")  # refused at once, not check by check
        with rng.seeded(seed, torch.zeros(1, 1)):
            pass
        self.commands = Commands(model.source, str(data.root), seed, tuple(model_words), tuple(data_words))
        self._truth, self._class_notes = understood(data, model)  # an unknown class is refused at once
        self.chosen_explainer = ""  # by a check, if none was asked for
        self.maps_unreliable_by = ""  # the check that found that no explainer can be believed
        self.maps_used = False  # whether maps were asked for since the loop over checks last set it back
        self.doing = "reading"
        self.clock = Clock(budget)
        self._cache: dict[int, Tensor] = {}
        self._repairs: dict[str, list[str]] = {}
        self._maps: dict[tuple[str, int], Tensor] = {}

    # What was read ------------------------------------------------------------------------------------------------

    @cached_property
    def _read(self) -> tuple[list[Picture], Tensor, list[tuple[str, str]], int]:
        """Read every picture once: those that can be read, their logits (N, K), the broken ones, how many were tried.

        Under a budget the order is a seeded draw, so that what was read in time stands for the rest.
        """
        order = self._seeded_order(len(self.data.pictures)) if self.budget else list(range(len(self.data.pictures)))
        readable: dict[int, Tensor | None] = {}  # as bytes, as far as they are kept
        broken: list[tuple[str, str]] = []
        logits: list[Tensor] = []
        tried, empty, started = 0, len(self.data.broken), self.clock.now()
        with closing(read_and_score(self.model, [self.data.pictures[i] for i in order])) as batches:
            for opened, of_batch in batches:
                for i, found in zip(order[tried : tried + len(opened)], opened, strict=True):
                    name = self.data.pictures[i].name
                    if isinstance(found, Refused):
                        broken.append((name, str(found)))
                        continue
                    readable[i] = found[0] if len(readable) < self._most_kept else None
                    for repair in found[1]:
                        self._repairs.setdefault(repair, []).append(name)
                tried += len(opened)
                if of_batch is not None:
                    logits.append(of_batch)
                self.progress("reading", empty + tried, empty + len(order))
                now = self.clock.now()
                if self.clock.is_late(now - started):
                    break
                started = now
        if not readable:
            first = f" ({broken[0][0]}: {broken[0][1]})" if broken else ""
            raise Refused(f"none of the {self.counted(tried)} in {self.data.root} can be read{first}")
        rows = sorted(readable)
        self._cache = {row: kept for row, i in enumerate(rows) if (kept := readable[i]) is not None}
        place = {i: n for n, i in enumerate(readable)}
        return [self.data.pictures[i] for i in rows], torch.cat(logits)[[place[i] for i in rows]], broken, tried

    @property
    def _most_kept(self) -> int:
        """How many pictures are kept as bytes: 150 MB of them."""
        return int(1.5e8 / (int(np.prod(self.model.preprocess.size)) * self.model.preprocess.channels))

    @property
    def pictures(self) -> list[Picture]:
        return self._read[0]

    @property
    def logits(self) -> Tensor:
        """(N, K), float32, on the CPU."""
        return self._read[1]

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what was chosen and skipped in the data, and on pictures that had to be converted."""
        repairs = [
            f"{repair}: {len(names)} ({', '.join(names[:5])})" for repair, names in sorted(self._repairs.items())
        ]
        alphabet = self.model.preprocess.alphabet
        unknown = unknown_note([p.text or "" for p in self.pictures], alphabet) if alphabet else []
        return (*self.data.notes, *self._class_notes, *repairs, *unknown, *self.learned)

    @cached_property
    def learned(self) -> tuple[str, ...]:
        """A sentence where the model's own folder says that it was trained on some of these pictures."""
        try:
            if self.data.are_texts:
                known = train_texts(self.model.source)
                count = sum(p.text in known for p in self.pictures)
            else:
                count = len(trained_on(self.model.source, [p.path for p in self.pictures]))
        except Refused as e:
            return (f"Whether the model was trained on some of these {self.thing}s is not known: {e}.",)
        if not count:
            return ()
        return (
            f"The model was trained on {count} of these {self.counted(len(self.pictures))}, so these numbers are "
            f"optimistic: those that it has not seen are {Path(self.model.source) / SPLIT} with --split test.",
        )

    @property
    def thing(self) -> str:
        """What the data are, in a word: "picture" or "text"."""
        return self.data.thing

    @property
    def parts(self) -> str:
        """What is taken from them, in a word: "pixels" or "characters"."""
        return "characters" if self.data.are_texts else "pixels"

    @property
    def the_object(self) -> str:
        """What should decide, in words: the annotated object of a picture, the marked characters of a text."""
        return "the marked characters" if self.data.are_texts else "the object"

    @property
    def the_area(self) -> str:
        """What the object is a part of, in words."""
        return "all characters" if self.data.are_texts else "the area"

    @property
    def its_share(self) -> str:
        """What chance gives to the object, in words."""
        return f"{'their' if self.data.are_texts else 'its'} share of {self.the_area}"

    def counted(self, n: int, verb: str = "", verbs: str = "") -> str:
        """A number of them with the noun, and a verb behind it: "1 picture", "3 texts are"."""
        return counted(n, f"{self.thing} {verb}".strip(), f"{self.thing}s {verbs}".strip())

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of every file that had to be left out."""
        return (*self.data.broken, *self._read[2])

    @cached_property
    def key(self) -> str:
        """16 hex digits of a hash over all that findings depend on but the checks' own options and the budget."""
        m = self.model
        identity = (__version__, m.fingerprint(), m.labels, m.preprocess, m.output, m.scores, self.digest, self.seed)
        h = hashlib.sha256(repr((identity, self.requested_method)).encode())
        h.update(self.truth.numpy().tobytes())
        return h.hexdigest()[:16]

    @property
    def tried(self) -> int:
        return self._read[3]

    @cached_property
    def digest(self) -> str:
        """16 hex digits of a hash over the pictures that were read: names, labels, annotations and the files' bytes."""
        h = hashlib.sha256()
        for p in self.pictures:
            facts = (p.name, p.labels, p.regions, sorted(p.columns.items()))
            h.update(repr(facts if p.marks is None else (*facts, p.marks)).encode())
            h.update(hashlib.sha256(content(p)).digest())
        return h.hexdigest()[:16]

    @cached_property
    def truth(self) -> Tensor:
        """(N, K) bool: the acceptable classes; a row without any has no label."""
        rows = {p.name: i for i, p in enumerate(self.data.pictures)}
        return self._truth[[rows[p.name] for p in self.pictures]]

    @cached_property
    def labelled(self) -> list[int]:
        """The rows that have a label."""
        return [int(i) for i in self.truth.any(1).nonzero()[:, 0]]

    @cached_property
    def predicted(self) -> Tensor:
        """(N,) the top class."""
        return self.logits.argmax(1)

    @cached_property
    def right(self) -> Tensor:
        """(N,) bool: the top class is acceptable; False where there is no label."""
        return self.truth.gather(1, self.predicted[:, None])[:, 0]

    def label(self, row: int) -> str:
        """The top class of a picture, in a word."""
        return self.model.name(int(self.predicted[row]))

    def wanted(self, row: int) -> str:
        """Its acceptable classes, in words."""
        return " or ".join(self.model.name(int(k)) for k in self.truth[row].nonzero()[:, 0])

    # What the checks work on --------------------------------------------------------------------------------------

    def sample(self, rows: Sequence[int], most: int) -> list[int]:
        """A seeded draw of at most ``most`` of the rows; the same draw for every check."""
        if most < 1:
            raise Refused(f"pictures={most}: at least one {self.thing}")
        keep = set(rows)
        return [i for i in self._seeded_order(len(self.pictures)) if i in keep][:most]

    def batches(self, rows: Sequence[int], size: int | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """(rows, pixels (B, C, *S)) a few at a time, until the check's share of the budget is used up.

        At least one batch always comes.  A check counts what it got: that is its n.
        """
        first = later = size or _usual_size()
        if self.budget:  # which may allow no more than one
            first, later = 1, min(later, _usual_size() // 4)
        start = 0
        while start < len(rows):
            started = self.clock.now()
            rows_of_batch = list(rows[start : start + (later if start else first)])
            yield rows_of_batch, self.pixels(rows_of_batch)
            start += len(rows_of_batch)
            self.progress(self.doing, start, len(rows))
            if self.clock.is_late((self.clock.now() - started) / len(rows_of_batch) * later):
                return

    def lots(self, rows: Sequence[int], size: int | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """Like batches, but always all of the rows, however late it is: for results that need every row."""
        size = size or _usual_size()
        for start in range(0, len(rows), size):
            rows_of_batch = list(rows[start : start + size])
            yield rows_of_batch, self.pixels(rows_of_batch)

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """(B, C, *S) in [0, 1].  150 MB of them are kept, as bytes, which is what files hold."""
        images = []
        for i in rows:
            if i not in self._cache:
                if len(self._cache) > self._most_kept:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[i] = input_bytes(self.pictures[i], self.model.preprocess)[0]
            images.append(self._cache[i])
        return of_bytes(torch.stack(images))

    @cached_property
    def texts(self) -> dict[str, str]:
        """Each text as it can be told from what the model reads, by `decode`, and as it is."""
        known = set(self.model.preprocess.alphabet)
        whole = [p.text for p in self.pictures if p.text is not None]
        return {"".join(c if c in known else UNKNOWN for c in text): text for text in whole}

    @cached_property
    def method(self) -> Call:
        """The explainer that the checks use, with its layer named."""
        x = self.pixels([0]).to(self.model.device)
        usual = "integrated-gradients" if self.data.are_texts else "grad-cam"  # each character, not a stretch of them
        words = usual if self.method_words == "auto" else self.method_words
        try:
            return resolve(self.model, x, parse(words, "explainers"))
        except Refused:
            if self.method_words != "auto":
                raise
            return parse("occlusion" if self.is_black_box else "integrated-gradients", "explainers")

    @cached_property
    def is_black_box(self) -> bool:
        """Whether the model gives scores alone: no gradient at the pixels, and no layer that holds feature maps."""
        return is_black_box(self.model, self.pixels([0]))

    @property
    def has_weights(self) -> bool:
        """Whether the network's weights can be read and changed, which those inside an exported file cannot."""
        return any(True for _ in self.model.net.parameters())

    @property
    def requested_method(self) -> str:
        """The explainer that was requested, with its layer named; "auto" where the audit chooses it."""
        return "auto" if self.method_words == "auto" else str(self.method)

    def use(self, call: Call) -> None:
        """From here on the checks use this explainer."""
        self.method, self.chosen_explainer = call, str(call)

    def maps(self, rows: Sequence[int], x: Tensor) -> Tensor:
        """Maps (B, *S) of the case's explainer for the logit of the top class; each is computed once."""
        self.maps_used = True
        missing = [j for j, i in enumerate(rows) if (str(self.method), i) not in self._maps]
        if missing:
            target = ClassScore(self.predicted[[rows[j] for j in missing]])
            maps = explain(self.model, x[missing], self.method, target, seed=self.seed).maps
            self._maps |= {(str(self.method), rows[j]): m for j, m in zip(missing, maps, strict=True)}
        return torch.stack([self._maps[str(self.method), i] for i in rows])

    @property
    def signed(self) -> bool:
        """Whether the maps have a meaningful sign: the method claims so, or one of those made so far is negative."""
        return "signed" in self.method.method.claims or any(bool((m < 0).any()) for m in self._maps.values())

    @cached_property
    def annotated(self) -> list[int]:
        """The rows with boxes, masks or marked characters."""
        return [i for i, p in enumerate(self.pictures) if p.regions or p.marks]

    def objects(self, row: int) -> tuple[tuple[Region, ...], bool]:
        """The regions of a picture that are its object, and whether they are so by name.

        Where regions say what they are and some are of an acceptable class, these; else all of them.
        """
        p = self.pictures[row]
        words = {w for label in p.labels for w in (label, *self.data.classes.get(label, ()))}
        words |= {self.model.labels[int(k)] for k in self.truth[row].nonzero()[:, 0]}
        of_class = of_label(p.regions or (), words)
        return (of_class, True) if of_class else (p.regions or (), False)

    def regions(self, rows: Sequence[int]) -> Tensor:
        """(B, *S) bool: where the picture's object is, in the model's input."""
        return torch.stack([self._region(i) for i in rows])

    def _region(self, row: int) -> Tensor:
        """(*S) bool: where the object is; of a text its marked characters."""
        p, size = self.pictures[row], self.model.preprocess
        if p.text is not None:
            return marked(p.marks or (), size.size[0])
        return region_mask(self.objects(row)[0], open_picture(p.path).size, size)

    def in_view(self, rows: Sequence[int]) -> tuple[list[int], list[Tensor], list[tuple[str, str]]]:
        """The rows whose object covers part of the model's view; regions (*S); (name, reason) of the others."""
        in_view: list[int] = []
        regions: list[Tensor] = []
        left_out: list[tuple[str, str]] = []
        for i in rows:
            try:
                region = self.regions([i])[0]
            except Refused as e:
                left_out.append((self.pictures[i].name, str(e)))
                continue
            held = occupied(self.model, self.pixels([i]))
            beside = ~region if held is None else held[0] & ~region
            if region.any() and beside.any():
                in_view.append(i)
                regions.append(region)
            else:
                fault = "fills all" if region.any() else "lies outside"
                what = "are marked: all of its characters" if self.data.are_texts else ""
                left_out.append((self.pictures[i].name, what or f"its object {fault} of what the model sees"))
        return in_view, regions, left_out

    def _seeded_order(self, n: int) -> list[int]:
        return [int(i) for i in torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))]


def _usual_size() -> int:
    """How many pictures a check gets at a time: more where workers share them."""
    return TOGETHER if hired() else SIZE
