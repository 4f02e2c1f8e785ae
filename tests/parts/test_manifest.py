"""The manifest of an exported file: it comes back as it was, and a wrong one is refused by its field."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from clearsight import Preprocess, Refused
from clearsight.core.score_kinds import Scores
from clearsight.engines.manifest import Heatmap, Manifest, from_json

PRE = Preprocess(32, (0.5, 0.25, 0.125), (0.5,) * 3, "bicubic", 40)


def manifest(**changed):
    heatmap = Heatmap("cam", "layer4")
    fields = {"labels": ("cat", "Öl"), "preprocess": PRE.as_dict(), "scores": "logits", "source": "timm:resnet18"}
    return Manifest(**{**fields, "fingerprint": "0123456789abcdef", "heatmap": heatmap, "precision": "int8", **changed})


def test_it_comes_back_as_it_was():
    for scores in get_args(Scores):
        before = manifest(scores=scores)
        assert from_json(before.to_json(), "m.onnx") == before
    after = from_json(manifest(heatmap=None).to_json().encode(), "m.onnx")
    assert after.heatmap is None
    assert Preprocess(**after.preprocess) == PRE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": []}, "labels is not valid"),
        ({"labels": "cat"}, "labels is not valid"),
        ({"scores": "odds"}, "scores is not valid"),
        ({"scores": []}, "scores is not valid"),
        ({"precision": "bf16"}, "precision is not valid"),
        ({"fingerprint": "0123"}, "fingerprint is not valid"),
        ({"fingerprint": "0123456789ABCDEF"}, "fingerprint is not valid"),
        ({"heatmap": "cam"}, "heatmap is not an object"),
        ({"heatmap": {"method": "cam"}}, "does not say heatmap.layer"),
        ({"heatmap": {"method": "cam", "layer": 4}}, "heatmap is not valid"),
        ({"preprocess": []}, "preprocess is not an object"),
        ({"preprocess": {**PRE.as_dict(), "mean": [float("nan")] * 3}}, "preprocess.mean is not valid"),
        ({"preprocess": {**PRE.as_dict(), "size": [2.5, 2]}}, "preprocess.size is not valid"),
        ({"secret": 1}, "unknown field secret"),
    ],
)
def test_a_wrong_one_is_refused_by_its_field(change, told):
    text = json.dumps({**manifest().as_dict(), **change})
    with pytest.raises(Refused, match=rf"^m\.onnx: its manifest.*{told}"):
        from_json(text, "m.onnx")


@pytest.mark.parametrize("field", manifest().as_dict())
def test_each_field_is_asked_for(field):
    record = manifest().as_dict()
    del record[field]
    with pytest.raises(Refused, match=f"does not say {field}: add"):
        from_json(json.dumps(record), "m.onnx")


@pytest.mark.parametrize("text", ["", "{", "[1]", "nul", '"\\ud800"', b"\xff\xfe\x00", "[" * 100_000, "1" * 5000])
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(Refused, match=r"^m\.onnx: its manifest"):
        from_json(text, "m.onnx")
