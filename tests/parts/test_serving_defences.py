"""Every route that tells probabilities tells the defended ones, and what would undo a defence is not told."""

from __future__ import annotations

import base64

import httpx
import pytest
import torch

import clearsight as cs
from clearsight.core.answering import Account
from clearsight.data.images import of_bytes
from clearsight.errors import Refused
from clearsight.runner.answer import answer, answer_defences
from clearsight.serving.keys import new_key
from clearsight.serving.pictures import decoded
from clearsight.serving.serve import gate_of, reference_answers
from clearsight.serving.service import Service
from clearsight.serving.torch_backend import torch_backend
from servers import as_file, picture, pooled_model, served

PNG = as_file(picture())
TEXT = base64.b64encode(PNG).decode()
BACKEND = torch_backend(pooled_model())
FILE = {"name": "file", "shape": [1], "datatype": "BYTES", "data": [TEXT]}


def told(address: str) -> list[list[float]]:
    """The probabilities of one picture, class by class, by each route that tells them."""
    predict = httpx.post(f"{address}/predict", content=PNG).json()["answers"]
    (v1,) = httpx.post(f"{address}/v1/models/x:predict", json={"instances": [{"b64": TEXT}]}).json()["predictions"]
    v2 = httpx.post(f"{address}/v2/models/x/infer", json={"inputs": [FILE]}).json()["outputs"][0]["data"]
    by_class = [[a["probability"] for a in sorted(one, key=lambda a: a["class"])] for one in (predict, v1)]
    return [*by_class, v2]


def test_all_routes_round():
    with served(Service(BACKEND, "x")) as address:
        right = told(address)[0]
    with served(Service(BACKEND, "x", defences=["rounding(digits=1)"])) as address:
        for found in told(address):
            assert found == pytest.approx([round(p, 1) for p in right], abs=1e-7)
    assert any(abs(p - round(p, 1)) > 0.01 for p in right)


@pytest.mark.parametrize(
    "order", [["reverse-sigmoid", "rounding(digits=1)"], ["rounding(digits=1)", "reverse-sigmoid"]]
)
def test_defences_are_applied_in_their_order(order):
    sent = decoded(PNG, BACKEND.preprocess, 10_000)
    p = torch.from_numpy(BACKEND.run(sent.pixels[None]).values)
    right = answer(answer_defences(order), Account(), of_bytes(torch.from_numpy(sent.pixels))[None], p)[0]
    other = answer(answer_defences(order[::-1]), Account(), of_bytes(torch.from_numpy(sent.pixels))[None], p)[0]
    assert (right - other).abs().max() > 0.001
    with served(Service(BACKEND, "x", defences=order)) as address:
        for found in told(address):
            assert found == pytest.approx(right.tolist(), abs=1e-6)


def test_a_budget_is_of_each_key_and_counts_maps_too(tmp_path):
    file = tmp_path / "keys.json"
    keys = [new_key(file, name, []) for name in ("a", "b")]
    service = Service(BACKEND, "x", gate=gate_of(file), defences=["query-budget(queries=4)"])
    with served(service) as address:
        for key in keys:
            head = {"X-API-Key": key}
            statuses = [
                httpx.post(f"{address}/predict", content=PNG, headers=head).status_code,
                httpx.post(f"{address}/explain", content=PNG, headers=head).status_code,
                httpx.post(f"{address}/explain?method=saliency", content=PNG, headers=head).status_code,
                httpx.post(f"{address}/v2/models/x/infer", json={"inputs": [FILE]}, headers=head).status_code,
            ]
            assert statuses == [200] * 4
            for path in ("/predict", "/explain", "/explain?method=saliency"):
                refused = httpx.post(f"{address}{path}", content=PNG, headers=head)
                assert refused.status_code == 429
                assert "this account may ask about 4 pictures" in refused.json()["error"]


def test_features_and_scores_of_outliers_are_not_told_of_defended_answers():
    with served(Service(BACKEND, "x", defences=["rounding"])) as address:
        assert httpx.post(f"{address}/embed", content=PNG).status_code == 403
        assert "outlier" not in httpx.post(f"{address}/predict", content=PNG).json()
        asked = {"inputs": [FILE], "outputs": [{"name": "features"}]}
        assert httpx.post(f"{address}/v2/models/x/infer", json=asked).status_code == 400
        names = [o["name"] for o in httpx.get(f"{address}/v2/models/x").json()["outputs"]]
        assert names == ["probabilities", "label"]


LIAR = "prediction-poisoning(l1=2)"  # which may tell another top class than the model's


def test_maps_do_not_tell_the_class_that_a_defence_keeps_back():
    with served(Service(BACKEND, "x")) as address:
        own = httpx.post(f"{address}/predict?map=true", content=PNG).json()
    with served(Service(BACKEND, "x", defences=[LIAR])) as address:
        top = httpx.post(f"{address}/predict", content=PNG).json()["answers"][0]["class"]
        assert top != own["answers"][0]["class"] == own["map"]["class"]
        assert httpx.post(f"{address}/predict?map=true", content=PNG).status_code == 400
        for query in ("", "?method=saliency"):
            assert httpx.post(f"{address}/explain{query}", content=PNG).json()["class"] == top
        v1 = httpx.post(f"{address}/v1/models/x:explain", json={"instances": [{"b64": TEXT}]}).json()
        assert v1["explanations"][0]["class"] == top
        label = {"inputs": [FILE], "outputs": [{"name": "label"}]}
        (told_label,) = httpx.post(f"{address}/v2/models/x/infer", json=label).json()["outputs"][0]["data"]
        assert told_label == BACKEND.labels[top]
    with served(Service(BACKEND, "x", defences=["top-1"])) as address:
        assert httpx.post(f"{address}/predict?map=true", content=PNG).json()["map"] == own["map"]


def test_measures_tell_no_more_than_answers(tmp_path):
    for k in range(20):
        (tmp_path / f"{k}.png").write_bytes(as_file(picture(k)))
    reference = reference_answers(BACKEND, cs.folder(tmp_path))
    for kept_back in ({"defences": ["rounding"]}, {"hide": ["outlier"]}):
        with pytest.raises(Refused, match="leave out the reference"):
            Service(BACKEND, "x", reference=reference, **kept_back)
    with served(Service(BACKEND, "x", defences=["rounding(digits=1)"])) as address:
        answers = httpx.post(f"{address}/predict", content=PNG).json()["answers"]
        measures = httpx.get(f"{address}/metrics").text.splitlines()
    (line,) = [line for line in measures if line.startswith("clearsight_confidence_sum")]
    assert float(line.split()[1]) == answers[0]["probability"] == pytest.approx(round(answers[0]["probability"], 1))


def test_what_is_hidden_is_not_told():
    with served(Service(BACKEND, "x", hide=["map", "explain"])) as address:
        assert httpx.post(f"{address}/predict?map=true", content=PNG).status_code == 400
        assert httpx.post(f"{address}/explain", content=PNG).status_code == 403
        outputs = httpx.post(f"{address}/v2/models/x/infer", json={"inputs": [FILE]}).json()["outputs"]
        assert [o["name"] for o in outputs] == ["probabilities"]
        assert httpx.post(f"{address}/embed", content=PNG).status_code == 200


@pytest.mark.parametrize(
    ("defences", "hide", "words"),
    [
        (["roundin"], [], "did you mean rounding"),
        (["ensemble"], [], "needs other networks, and one is served"),
        ([], ["maps"], "did you mean map"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_served(defences, hide, words):
    with pytest.raises(Refused, match=words):
        Service(BACKEND, "x", defences=defences, hide=hide)


def test_values_have_no_defence():
    torch.manual_seed(0)
    with pytest.raises(Refused, match="gives values"):
        Service(torch_backend(pooled_model("values", 1)), "x", defences=["rounding"])


def test_names_of_classes_are_told_to_those_who_may_ask(tmp_path):
    file = tmp_path / "keys.json"
    key = new_key(file, "a", [])
    with served(Service(BACKEND, "x")) as address:
        assert httpx.get(f"{address}/v2/models/x").json()["parameters"] == {"labels": list(BACKEND.labels)}
    with served(Service(BACKEND, "x", gate=gate_of(file))) as address:
        for place in ("/v2/models/x", "/v2/models/x/versions/1"):
            assert "parameters" not in httpx.get(f"{address}{place}").json()
            told_names = httpx.get(f"{address}{place}", headers={"X-API-Key": key}).json()["parameters"]["labels"]
            assert told_names == list(BACKEND.labels)
