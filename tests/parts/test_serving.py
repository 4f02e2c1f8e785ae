"""Answers over HTTP are those of the model itself, by every way in; what is broken gets a sentence."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import clearsight as cs
from clearsight.core.classifier import Classifier
from clearsight.drawing.heatmaps import overlay
from clearsight.internals.capture import embedded
from clearsight.serving.serve import reference_answers
from clearsight.serving.service import Service
from clearsight.serving.settings import Settings
from clearsight.serving.tensors import LENGTH
from clearsight.serving.torch_backend import torch_backend
from servers import as_file, picture, pooled_model, served

MODEL = pooled_model()
PNG = as_file(picture())
TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES = {
    "png": PNG,
    "jpeg": as_file(picture(1), "JPEG", quality=90),
    "turned": as_file(picture(2), "JPEG", exif=TURNED),
    "cmyk": as_file(picture(3).convert("CMYK"), "JPEG"),
    "clear": as_file(picture(4).convert("RGBA"), "PNG"),
    "grey of 16 bits": as_file(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG"),
    "gif": as_file(picture(5), "GIF"),
    "tiff": as_file(picture(6), "TIFF"),
    "webp": as_file(picture(7), "WEBP", lossless=True),
    "large": as_file(picture(8, (700, 90)), "JPEG"),
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = Settings(most_bytes=300_000, most_pixels=1_000_000, most_rows=8, body_seconds=1.0)
    with served(Service(torch_backend(MODEL), "small", settings)) as address, httpx.Client(base_url=address) as c:
        yield c


def pixels_of(content: bytes, tmp_path) -> torch.Tensor:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    return cs.pixels(MODEL, path)


@pytest.mark.parametrize("name", FILES)
def test_a_file_gets_the_answer_that_the_model_gives_to_its_pixels(client, name, tmp_path):
    x = pixels_of(FILES[name], tmp_path)
    with torch.no_grad():
        right = MODEL.chances(MODEL(x))[0]
    response = client.post("/predict", params={"top": 5}, content=FILES[name])
    assert response.status_code == 200
    found = {a["class"]: a["probability"] for a in response.json()["answers"]}
    assert [found[k] for k in range(5)] == pytest.approx(right.tolist(), abs=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert right.max() > 0.25  # the answers differ


def test_every_way_in_gives_the_same(client):
    text = base64.b64encode(PNG).decode()
    pixels = np.asarray(picture())
    told = [
        client.post("/predict?top=2", content=PNG).json(),
        client.post("/predict?top=2", content=PNG, headers={"Content-Type": "image/png"}).json(),
        client.post("/predict?top=2", files={"picture": ("../../etc/passwd", PNG)}).json(),
        client.post("/predict?top=2", json={"picture": text}).json(),
        client.post("/predict?top=2", json={"picture": f"data:image/png;base64,{text}"}).json(),
        client.post("/predict?top=2", content=iter([PNG[:100], PNG[100:]])).json(),  # in pieces, without a length
    ]
    assert all(one == told[0] for one in told)
    assert told[0]["picture"] == {"width": 40, "height": 30, "notes": []}
    answers = told[0]["answers"]
    for instance in ({"b64": text}, {"image": {"b64": text}}, pixels.tolist()):
        by_v1 = client.post("/v1/models/small:predict?top=2", json={"instances": [instance, instance]}).json()
        assert len(by_v1["predictions"]) == 2
        for row in by_v1["predictions"]:
            assert [a["class"] for a in row] == [a["class"] for a in answers]
            chances = [a["probability"] for a in row]
            assert chances == pytest.approx([a["probability"] for a in answers], abs=1e-6)
    best = max(answers, key=lambda a: a["probability"])
    for tensor in (
        {"name": "file", "shape": [1], "datatype": "BYTES", "data": [text]},
        {"name": "picture", "shape": [1, 30, 40, 3], "datatype": "UINT8", "data": pixels.reshape(-1).tolist()},
        {"name": "picture", "shape": [1, 30, 40, 3], "datatype": "UINT8", "data": [pixels.tolist()]},
    ):
        got = client.post("/v2/models/small/infer", json={"inputs": [tensor], "id": "7"}).json()
        assert (got["model_name"], got["id"]) == ("small", "7")
        outputs = {o["name"]: o for o in got["outputs"]}
        assert outputs["probabilities"]["data"][best["class"]] == pytest.approx(best["probability"])
        assert outputs["map"]["shape"] == [1, 8, 12]


def test_the_map_of_the_answer_is_that_of_cam(client, tmp_path):
    x = pixels_of(PNG, tmp_path)
    right = cs.explain(MODEL, x, "cam").maps[0]
    heat = client.post("/predict?map=true", content=PNG).json()["map"]
    small = torch.tensor(heat["values"])
    enlarged = nn.functional.interpolate(small[None, None], (16, 24), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(enlarged, right, rtol=1e-4, atol=1e-5)
    told = client.post("/explain", content=PNG).json()
    torch.testing.assert_close(torch.tensor(told["map"]), right, rtol=1e-4, atol=1e-5)
    assert heat["class"] == told["class"] == int(MODEL(x).argmax())
    by_v1 = client.post("/v1/models/small:explain", json={"instances": [{"b64": base64.b64encode(PNG).decode()}]})
    assert by_v1.json()["explanations"][0]["map"] == told["map"]


@pytest.mark.parametrize("method", ["grad-cam", "gradient-x-input", "lrp"])
def test_an_explainer_gives_the_map_that_it_gives_in_python(client, method, tmp_path):
    x = pixels_of(FILES["jpeg"], tmp_path)
    right = cs.explain(MODEL, x, method, cs.ClassScore(3))
    told = client.post("/explain", params={"method": method, "target": "d"}, content=FILES["jpeg"]).json()
    assert "map" in told, told
    torch.testing.assert_close(torch.tensor(told["map"]), right.maps[0], rtol=1e-5, atol=1e-6)
    assert (told["class"], told["label"], told["method"]) == (3, "d", right.method)
    drawn = client.post("/explain", params={"method": method, "target": 3, "as": "overlay"}, content=FILES["jpeg"])
    assert drawn.headers["content-type"] == "image/png"
    expected = overlay(x[0], right.maps[0], signed=right.signed)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(drawn.content))), np.asarray(expected))


def test_features_are_what_enters_the_linear_layer(client, tmp_path):
    told = client.post("/embed", content=PNG).json()
    right = embedded(MODEL, pixels_of(PNG, tmp_path), "7")[0]
    torch.testing.assert_close(torch.tensor(told["features"]), right, rtol=1e-5, atol=1e-6)
    assert told["layer"] == "7"


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that states many pixels, and holds zeros for a part of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**7))) + chunk(b"IEND", b"")
    )


BROKEN = {
    "nothing": (b"", 400, "empty"),
    "a text": (b"hello", 400, "not a picture"),
    "a name": (b"/etc/passwd", 400, "not a picture"),
    "cut short": (PNG[:300], 400, "truncated"),
    "damaged": (FILES["jpeg"][:200] + bytes(100) + FILES["jpeg"][300:400], 400, "truncated"),
    "a bomb": (bomb(100_000, 100_000), 413, "million pixels"),
    "a smaller bomb": (bomb(2000, 2000), 413, "2000 x 2000"),
    "a large body": (bytes(300_001), 413, "300,001 bytes"),
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94", 400, "not a picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", 400, "not a picture"),
}


@pytest.mark.parametrize("path", ["/predict", "/explain", "/embed"])
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_gets_a_sentence(client, path, name):
    content, status, words = BROKEN[name]
    response = client.post(path, content=content)
    assert response.status_code == status
    error = response.json()["error"]
    assert any(word in error for word in words.split("|"))
    assert ": " in error  # what was wrong, and what to do


FORM, FORM_B = {"Content-Type": "multipart/form-data"}, {"Content-Type": "multipart/form-data; boundary=b"}
TENSOR = {"name": "picture", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [0] * 12}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "no inputs"),
        ([], "no inputs"),
        ({"inputs": []}, "no inputs"),
        ({"inputs": [5]}, "no name"),
        ({"inputs": [TENSOR, TENSOR]}, "two inputs"),
        ({"inputs": [TENSOR | {"name": "x"}]}, "the inputs are 'x'"),
        ({"inputs": [TENSOR | {"datatype": "FP32"}]}, "float32"),
        ({"inputs": [TENSOR | {"datatype": "FP31"}]}, "datatype 'FP31'"),
        ({"inputs": [TENSOR | {"data": [0] * 11}]}, "11 numbers"),
        ({"inputs": [TENSOR | {"data": [[0], [0, 1]]}]}, "no even list"),
        ({"inputs": [TENSOR | {"data": ["a"] * 12}]}, "no even list"),
        ({"inputs": [TENSOR | {"data": [256] * 12}]}, "cannot hold"),
        ({"inputs": [TENSOR | {"data": [0.5] * 12}]}, "cannot hold"),
        ({"inputs": [TENSOR | {"shape": [1, 2, 2]}]}, "12 numbers"),
        ({"inputs": [TENSOR | {"shape": [12]}]}, "1 axes"),
        ({"inputs": [TENSOR | {"shape": [1, 2, 2, -3]}]}, "shape"),
        ({"inputs": [TENSOR | {"shape": [10**9] * 8}]}, "12 numbers"),
        ({"inputs": [TENSOR | {"shape": [1, 1, 6, 2]}]}, "(1, 6, 2)"),
        ({"inputs": [TENSOR | {"shape": [12, 1, 1, 1]}]}, "12 pictures"),
        ({"inputs": [TENSOR | {"shape": [0, 2, 2, 3], "data": []}]}, "no picture"),
        ({"inputs": [TENSOR | {"parameters": {"binary_data_size": 10**9}}]}, "does not hold so much"),
        ({"inputs": [TENSOR | {"parameters": 5}]}, "no JSON object"),
        ({"inputs": [TENSOR], "outputs": [{"name": "logit"}]}, "no output 'logit'"),
        ({"inputs": [TENSOR], "outputs": 5}, "no list"),
        ({"inputs": [TENSOR], "parameters": {"binary_data_output": "yes"}}, "binary_data_output"),
        ({"inputs": [TENSOR], "id": 5}, "no string"),
        ({"inputs": [{"name": "file", "shape": [1], "datatype": "BYTES", "data": ["/etc/passwd"]}]}, "base64"),
        ({"inputs": [{"name": "file", "shape": [1], "datatype": "BYTES", "data": ["aGVsbG8="]}]}, "not a picture"),
        ({"inputs": [{"name": "file", "shape": [2], "datatype": "BYTES", "data": ["aGVsbG8="]}]}, "1 elements"),
    ],
)  # fmt: skip
def test_a_wrong_tensor_gets_a_sentence(client, request_, words):
    response = client.post("/v2/models/small/infer", json=request_)
    assert response.status_code in (400, 413)
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "options", "status", "words"),
    [
        ("/predict?top=0", {"content": PNG}, 422, "top"),
        ("/explain?mehtod=rise", {"content": PNG}, 400, "did you mean method"),
        ("/predict?top=1&top=2", {"content": PNG}, 400, "top is given twice"),
        ("/embed?top=1", {"content": PNG}, 400, "no parameter 'top' here: leave it out"),
        ("/v1/models/small:predict?map=true", {"json": {"instances": [{"b64": "aGk="}]}}, 400, "no parameter 'map'"),
        ("/predict", {"files": {"picture": PNG}, "data": {"top": "1"}}, 400, "holds 'top' beside the picture"),
        ("/predict", {"json": {"picture": "aGk=", "top": 1}}, 400, "holds 'top' beside the picture"),
        ("/v1/models/small:predict", {"json": {"instances": [{"b64": "", "picture": ""}]}}, 400, "holds no picture"),
        ("/explain?method=rise", {"content": PNG}, 400, "many passes"),
        ("/explain?method=grad-cm", {"content": PNG}, 400, "did you mean grad-cam"),
        ("/explain?method=grad-cam(layer=nowhere)", {"content": PNG}, 400, "no layer 'nowhere'"),
        ("/explain?method=./mine.py:f", {"content": PNG}, 400, "names a file"),
        ("/explain?method=../../x.py:f(k=1)", {"content": PNG}, 400, "names a file"),
        ("/explain?target=zebra", {"content": PNG}, 400, "no class 'zebra'"),
        ("/explain?as=html", {"content": PNG}, 422, "as"),
        ("/predict", {"json": {"picture": "../../etc/passwd"}}, 400, "base64"),
        ("/predict", {"json": {"picture": "http://example.org/x.png"}}, 400, "base64"),
        ("/predict", {"json": {"path": "x.png"}}, 400, "holds no picture"),
        ("/predict", {"json": {"picture": 5}}, 400, "base64"),
        ("/predict", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "no JSON"),
        ("/predict", {"content": b"[" * 9000, "headers": {"Content-Type": "application/json"}}, 400, "no JSON"),
        ("/predict", {"content": b"--b", "headers": FORM}, 400, "no boundary"),
        ("/predict", {"content": b"--b\r\n", "headers": FORM_B}, 400, "tru"),
        ("/predict", {"files": {"other": PNG}}, 400, "0 pictures"),
        ("/predict", {"files": [("picture", PNG), ("picture", PNG)]}, 400, "2 pictures"),
        ("/predict", {"content": PNG, "headers": {"Content-Encoding": "gzip"}}, 415, "compressed"),
        ("/v1/models/small:predict", {"json": {"instances": [{"b64": "aGk="}, {"b64": 5}]}}, 400, "base64"),
        ("/v1/models/small:predict", {"json": {"instances": [[[1, 2], [3]]]}}, 400, "no pixels"),
        ("/v1/models/small:predict", {"json": {"instances": [[[1.5]]]}}, 400, "no pixels"),
        ("/v1/models/small:predict", {"json": {"instances": "x"}}, 400, "no instances"),
        ("/v1/models/other:predict", {"json": {"instances": [1]}}, 404, "no model 'other'"),
        ("/v2/models/..%2f..%2fetc/infer", {"json": {"inputs": [TENSOR]}}, 404, ""),
        ("/v2/models/small/versions/2/infer", {"json": {"inputs": [TENSOR]}}, 404, "no version"),
        ("/v2/models/small/infer", {"content": b"{}", "headers": {LENGTH: "9"}}, 400, "state"),
        ("/nowhere", {}, 404, "nothing at this address"),
        ("/metrics", {}, 405, "not allowed"),
    ],
)  # fmt: skip
def test_a_wrong_request_gets_a_sentence(client, path, options, status, words):
    response = client.post(path, **options)
    assert response.status_code == status
    assert words in response.json()["error"]


def test_tritonclient_works_unchanged_in_both_modes(client, tmp_path):
    triton = pytest.importorskip("tritonclient.http", reason="the extra `test` brings tritonclient")
    with triton.InferenceServerClient(client.base_url.netloc.decode()) as asks:
        assert asks.is_server_live()
        assert asks.is_server_ready()
        assert asks.is_model_ready("small", "1")
        assert not asks.is_model_ready("other")
        assert "binary_tensor_data" in asks.get_server_metadata()["extensions"]
        metadata = asks.get_model_metadata("small")
        x = np.stack([np.asarray(picture(k)) for k in range(3)])
        right = torch.stack([cs.pixels(MODEL, _written(tmp_path, k))[0] for k in range(3)])
        right = MODEL.chances(MODEL(right)).detach().numpy()
        for binary_in in (True, False):
            tensor = triton.InferInput(metadata["inputs"][0]["name"], x.shape, "UINT8")
            tensor.set_data_from_numpy(x, binary_data=binary_in)
            everything = asks.infer("small", [tensor])
            np.testing.assert_allclose(everything.as_numpy("probabilities"), right, atol=1e-6)
            for binary_out in (True, False):
                wanted = [triton.InferRequestedOutput(o["name"], binary_data=binary_out) for o in metadata["outputs"]]
                answer = asks.infer("small", [tensor], outputs=wanted, request_id="7")
                np.testing.assert_allclose(answer.as_numpy("probabilities"), right, atol=1e-6)
                assert answer.as_numpy("map").shape == (3, 8, 12)
                assert answer.as_numpy("features").shape == (3, 7)
                labels = answer.as_numpy("label").astype(str).tolist()
                assert labels == [MODEL.labels[k] for k in right.argmax(1)]
        files = np.array([as_file(picture(k)) for k in range(3)], object)
        for binary_in in (True, False):
            tensor = triton.InferInput("file", [3], "BYTES")
            sent = files if binary_in else np.array([base64.b64encode(f) for f in files], object)
            tensor.set_data_from_numpy(sent, binary_data=binary_in)
            np.testing.assert_allclose(asks.infer("small", [tensor]).as_numpy("probabilities"), right, atol=1e-6)


def _written(tmp_path, k):
    path = tmp_path / f"{k}.png"
    path.write_bytes(as_file(picture(k)))
    return path


@pytest.mark.parametrize(
    ("scores", "classes", "word"),
    [("multi-label", 5, "probability"), ("values", 1, "value"), ("probabilities", 5, "probability")],
)
def test_other_outputs_are_told_as_what_they_are(scores, classes, word, tmp_path):
    model = pooled_model(scores, classes)
    if scores == "probabilities":
        model = Classifier(nn.Sequential(*model.net, nn.Softmax(1)), model.preprocess, model.labels, scores=scores)
    with served(Service(torch_backend(model), "small")) as address:
        answers = httpx.post(f"{address}/predict", content=PNG).json()["answers"]
    x = pixels_of(PNG, tmp_path)
    right = model.chances(model(x))[0].tolist()
    assert {a["class"]: a[word] for a in answers} == pytest.approx(dict(enumerate(right)), abs=1e-5)


def test_a_network_without_such_a_head_says_so_and_is_explained_by_gradients(new_small, tmp_path):
    model = new_small()
    backend = torch_backend(model)
    assert (backend.map_shape, backend.features) == (None, 32)
    assert model.net.training  # the user's model is as it was
    with served(Service(backend)) as address:
        refused = httpx.post(f"{address}/predict?map=true", content=PNG)
        told = httpx.post(f"{address}/explain", content=PNG).json()
    assert refused.status_code == 400
    assert "gives no map" in refused.json()["error"]
    path = tmp_path / "x.png"
    path.write_bytes(PNG)
    right = cs.explain(model, cs.pixels(model, path), "grad-cam").maps[0]
    torch.testing.assert_close(torch.tensor(told["map"]), right, rtol=1e-4, atol=1e-6)


def test_pictures_are_compared_with_a_reference(tmp_path):
    for k in range(24):
        (tmp_path / f"{k}.png").write_bytes(as_file(picture(k)))
    (tmp_path / "broken.png").write_bytes(PNG[:200])
    backend = torch_backend(MODEL)
    reference = reference_answers(backend, cs.folder(tmp_path))
    assert len(reference.scores) == 24
    with served(Service(backend, "small", reference=reference)) as address:
        known = httpx.post(f"{address}/predict", content=PNG).json()["outlier"]
        flat = httpx.post(f"{address}/predict", content=as_file(Image.new("RGB", (40, 30), "white"))).json()["outlier"]
        for k in range(10):
            httpx.post(f"{address}/predict", content=as_file(picture(k)))
        measures = httpx.get(f"{address}/metrics").text
    assert known["method"] == flat["method"] == "knn"
    assert known["share"] < 1 == flat["share"]
    value = {line.split()[0]: float(line.split()[1]) for line in measures.splitlines() if line[0] != "#"}
    assert value['clearsight_requests_total{route="/predict",status="200"}'] == 12
    assert value["clearsight_confidence_count"] == value["clearsight_outlier_share_count"] == 12
    assert value["clearsight_batch_pictures_sum"] == 12
    assert value['clearsight_request_seconds_count{route="/predict"}'] == 12
    for name in ("psi", "ks"):
        assert value[f'clearsight_drift_{name}{{of="outlier"}}'] >= 0
        assert value[f'clearsight_drift_{name}{{of="confidence"}}'] >= 0


def test_the_log_is_a_line_for_each_request_and_holds_no_picture(tmp_path):
    log: list[str] = []
    with served(Service(torch_backend(MODEL), "small"), log=log) as address:
        sent = [httpx.post(f"{address}/predict", content=content) for content in (PNG, b"secret")]
        httpx.get(f"{address}/<script>")
    lines = [json.loads(line) for line in log]
    assert [(line["route"], line["status"]) for line in lines] == [("/predict", 200), ("/predict", 400), ("other", 404)]
    assert [line["request"] for line in lines[:2]] == [r.headers["x-request-id"] for r in sent]
    assert lines[0] | {"bytes": len(PNG), "pixels": 1200, "pictures": 1, "method": "POST"} == lines[0]
    assert not any(word in "".join(log) for word in ("secret", "script", "espresso"))


def test_stray_bytes_behind_the_tensors_are_refused(client):
    head = json.dumps({"inputs": [TENSOR]}).encode()
    length = {LENGTH: str(len(head))}
    assert client.post("/v2/models/small/infer", content=head, headers=length).status_code == 200
    refused = client.post("/v2/models/small/infer", content=head + b"xx", headers=length)
    assert refused.status_code == 400
    assert "2 bytes of the body" in refused.json()["error"]


def test_json_is_read_whatever_type_is_stated(client):
    """As curl -d states none of its own, and as KServe's first protocol may name the picture like /predict."""
    body = {"picture": base64.b64encode(PNG).decode()}
    right = client.post("/predict", content=PNG).json()["answers"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/predict", content=json.dumps(body).encode(), headers=form).json()["answers"] == right
    assert client.post("/v1/models/small:predict", json={"instances": [body]}).json()["predictions"] == [right]


def test_a_network_whose_hook_computes_a_weight_is_served_and_shares_its_parameters() -> None:
    net = nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(nn.Linear(48, 3)))
    model = Classifier(net.eval(), cs.Preprocess((4, 4), (0.0,) * 3, (1.0,) * 3), ("a", "b", "c"))
    net(torch.ones(1, 3, 4, 4))  # the hook leaves a weight with a history, which PyTorch does not copy
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), np.uint8)
    backend = torch_backend(model)
    before = backend.run(pixels).values
    torch.testing.assert_close(torch.from_numpy(before), model(torch.from_numpy(pixels) / 255).softmax(1).detach())
    with torch.no_grad():
        net[1].bias[0] += 5
    assert (backend.run(pixels).values[:, 0] > before[:, 0]).all()
