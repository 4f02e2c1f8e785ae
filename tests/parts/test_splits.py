"""Splits and folds: shares kept, groups whole, every class learned, order of no account; over random label sets."""

from collections import Counter

import numpy as np
import pytest

from clearsight.data.splits import PARTS, folds, split, split_notes
from clearsight.errors import Refused

SHARES = ((0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.2, 0.0), (0.6, 0.0, 0.4), (0.1, 0.1, 0.8), (1.0, 0.0, 0.0))


def drawn(seed: int, mixed: bool = False) -> tuple[list[str], list[int]]:
    """A random set: some classes, groups of one to six pictures, each of one class or, mixed, of any."""
    rng = np.random.default_rng(seed)
    labels: list[str] = []
    groups: list[int] = []
    for k in range(rng.integers(1, 8)):
        for _ in range(rng.integers(1, 40) if rng.random() < 0.7 else rng.integers(1, 4)):
            size = int(rng.choice([1, 1, 1, 1, 2, 3, 6]))
            number = len(set(groups)) * 3 + 1
            labels += [f"c{rng.integers(0, 8)}" if mixed else f"c{k}" for _ in range(size)]
            groups += [number] * size
    order = rng.permutation(len(labels))
    return [labels[i] for i in order], [groups[i] for i in order]


def sizes(labels: list[str], groups: list[int]) -> dict[str, Counter[int]]:
    return {c: Counter(g for label, g in zip(labels, groups, strict=True) if label == c) for c in set(labels)}


@pytest.mark.parametrize("mixed", [False, True])
def test_groups_stay_whole_and_every_class_is_learned(mixed: bool) -> None:
    for seed in range(50):
        labels, groups = drawn(seed, mixed)
        for shares in SHARES:
            parts = split(labels, groups, shares, seed=seed)
            assert len(set(zip(groups, parts, strict=True))) == len(set(groups))
            assert {c for c, p in zip(labels, parts, strict=True) if p == "train"} == set(labels)
            assert {PARTS.index(p) for p in parts} <= {i for i, share in enumerate(shares) if share}


def test_shares_are_kept_to_within_a_group() -> None:
    near = far = 0
    for seed in range(70):
        labels, groups = drawn(seed)
        for shares in SHARES:
            found = Counter(zip(labels, split(labels, groups, shares, seed=seed), strict=True))
            for c, own in sizes(labels, groups).items():
                largest, n = max(own.values()), own.total()
                off = [abs(found[c, p] - share * n) for p, share in zip(PARTS, shares, strict=True)]
                if all(share * n >= largest for share in shares if share):
                    assert max(off) <= largest
                    near += 1
                else:
                    assert max(off) <= 2 * largest
                    far += 1
    assert min(near, far) > 200


def test_three_groups_stand_in_all_parts_and_fewer_where_they_are_needed() -> None:
    for seed in range(70):
        labels, groups = drawn(seed)
        parts = split(labels, groups, seed=seed)
        for c, own in sizes(labels, groups).items():
            there = {p for label, p in zip(labels, parts, strict=True) if label == c}
            assert there == {1: {"train"}, 2: {"train", "test"}}.get(len(own), set(PARTS))
    assert sorted(split(["a", "a"], [0, 1], (0.8, 0.2, 0), seed=1)) == ["train", "val"]


def test_one_by_hand() -> None:
    """Six single pictures at one half and two quarters: 3, 1.5 and 1.5 are asked; a group of four goes to train."""
    assert Counter(split(["a"] * 6, range(6), (0.5, 0.25, 0.25), seed=3)) in (
        {"train": 3, "val": 2, "test": 1},
        {"train": 3, "val": 1, "test": 2},
    )
    assert split(["a"] * 6, [7, 7, 7, 7, 8, 9], (0.5, 0.25, 0.25), seed=3)[:4] == ("train",) * 4


def test_the_order_is_of_no_account_and_the_seed_is() -> None:
    labels, groups = drawn(11)
    order = np.random.default_rng(0).permutation(len(labels))
    turned = [labels[i] for i in order], [groups[i] for i in order]
    parts, fold = split(labels, groups, seed=5), folds(labels, groups, 2, seed=5)
    assert split(*turned, seed=5) == tuple(parts[i] for i in order)
    assert folds(*turned, 2, seed=5) == tuple(fold[i] for i in order)
    assert split(labels, groups, seed=5) == parts != split(labels, groups, seed=6)
    assert folds(labels, groups, 2, seed=6) != fold


def test_every_picture_gets_its_turn() -> None:
    """Over 2000 seeds each of ten pictures is tested about as often as asked: 2 of 10 times."""
    often = Counter(i for s in range(2000) for i, p in enumerate(split(["a"] * 10, range(10), (0.6, 0.2, 0.2), seed=s))
                    if p == "test")  # fmt: skip
    assert all(abs(often[i] / 2000 - 0.2) < 0.045 for i in range(10))  # five standard errors


def test_folds_are_even_and_whole() -> None:
    for seed in range(60):
        labels, groups = drawn(seed)
        own = sizes(labels, groups)
        k = min(len(s) for s in own.values())
        if k < 2:
            continue
        k = min(k, 5)
        fold = folds(labels, groups, k, seed=seed)
        assert len(set(zip(groups, fold, strict=True))) == len(set(groups))
        found = Counter(zip(labels, fold, strict=True))
        for c, s in own.items():
            counts = [found[c, f] for f in range(k)]
            assert min(counts) > 0
            assert max(counts) - min(counts) <= max(s.values())


def test_single_pictures_left_over_spread_over_the_folds() -> None:
    """Five classes of four pictures in three folds: each leaves one over, and 20 pictures are 7, 7 and 6."""
    labels = [f"c{i // 4}" for i in range(20)]
    assert sorted(Counter(folds(labels, range(20), 3, seed=0)).values()) == [6, 7, 7]


def test_as_even_as_scikit_learn() -> None:
    """StratifiedGroupKFold keeps groups whole too, but not the counts of each class to within a group."""
    model_selection = pytest.importorskip("sklearn.model_selection")
    ours = theirs = 0.0
    for seed in range(25):
        labels, groups = drawn(seed)
        k = min(5, min(len(s) for s in sizes(labels, groups).values()))
        if k < 2:
            continue
        cut = model_selection.StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(labels, labels, groups)
        other = np.empty(len(labels), int)
        for f, (_, held) in enumerate(cut):
            other[held] = f
        for name in set(labels):
            mask = np.array(labels) == name
            a = np.bincount(np.array(folds(labels, groups, k, seed=seed))[mask], minlength=k)
            b = np.bincount(other[mask], minlength=k)
            ours, theirs = ours + np.ptp(a), theirs + np.ptp(b)
    assert 0 < ours <= theirs


def test_notes_name_the_classes_and_what_to_do() -> None:
    labels = ["few", "pair", "pair", *["many"] * 6, "x", "y"]
    groups = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    notes = split_notes(labels, groups, split(labels, groups, seed=0))
    assert notes[0].startswith("3 classes stand in train alone (few, x, y): the test has no number for them; add ")
    assert notes[1].startswith("1 class stands in train and test alone (pair): none of them is in val; add pictures")
    assert notes[2].startswith("1 group of duplicates with several labels, each kept whole in one part")
    assert len(notes) == 3
    many = split_notes([f"c{i}" for i in range(9)] + ["z"], range(10), ["train"] * 9 + ["test"])
    assert "c0, c1, c2, c3, c4 and 4 more" in many[0] + many[1]
    even = ["a"] * 3 + ["b"] * 3
    assert split_notes(even, range(6), split(even, range(6), seed=0)) == ()


def test_refused() -> None:
    three = ["a", "a", "a"], [0, 1, 2]
    for shares, why in (
        ((0.5, 0.2, 0.2), r"sum to 0\.9: give three that sum to 1"),
        ((1.2, -0.1, -0.1), "at least 0, for train"),
        ((float("nan"), 0.5, 0.5), "at least 0"),
        ((0.0, 0.5, 0.5), "leave nothing to train on"),
        ((0.5, 0.5), "three numbers"),
    ):
        with pytest.raises(Refused, match=why):
            split(*three, shares, seed=0)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="3 labels and 2 groups"):
        split(three[0], [0, 1], seed=0)
    with pytest.raises(Refused, match="no pictures to split"):
        split([], [], seed=0)
    with pytest.raises(Refused, match="seed -1"):
        split(*three, seed=-1)
    with pytest.raises(Refused, match="k=1: give at least 2 folds"):
        folds(*three, 1, seed=0)
    with pytest.raises(Refused, match=r"k=3: class 'b' has 2 pictures that are not duplicates of each other"):
        folds(["a"] * 4 + ["b"] * 4, [0, 1, 2, 3, 4, 4, 5, 5], 3, seed=0)
