"""A theft from the pool to the report, the checks that steal and that infer members, and a model served on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from checkmanners import check_manners
from clearsight.auditing.audit import audit, parse_checks
from clearsight.core.answering import Withheld
from clearsight.errors import Refused
from clearsight.stealing.clone import Lesson, new_clone, train_clone
from clearsight.stealing.findings import frontier_finding
from clearsight.stealing.frontier import Defended
from clearsight.stealing.honest import HonestCost
from clearsight.stealing.oracle import Oracle
from clearsight.stealing.report import StealReport, steal_pictures, steal_request
from clearsight.stealing.served import check_address, of_address
from clearsight.stealing.theft import Point, Stolen
from clearsight.stealing.victim import of_classifier

LINEAR = "clearsight:perceptron"
ARCH = "clearsight:mlp(hidden=256, activation=relu)"
LABELS = ("dark", "light")
PRE = cs.Preprocess(8, (0.5,), (0.5,))


def net() -> cs.Classifier:
    """Says how light a picture is in its left half."""
    layer = torch.nn.Linear(64, 2)
    weight = torch.zeros(8, 8)
    weight[:, :4] = 0.5
    layer.weight.data = torch.stack([-weight.flatten(), weight.flatten()])
    layer.bias.data.zero_()
    return cs.wrap(torch.nn.Sequential(torch.nn.Flatten(), layer), PRE, list(LABELS), source="net.py:net")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k, label in enumerate(LABELS):
        (folder / label).mkdir()
        for i in range(30):
            pixels = rng.integers(0, 256, (8, 8)) // 2 + 128 * k
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / label / f"{i}.png")
    (folder / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    return folder


@pytest.fixture(scope="module")
def report(photos: Path) -> StealReport:
    request = steal_request(
        budget=32, rounds=3, arch=LINEAR, steps=20, defences=["rounding(digits=1)", "top-1, query-budget(queries=8)"],
        maps="saliency(absolute=false)", map_cells=2, map_levels=2, attack="fgsm", eps=0.6,
    )  # fmt: skip
    return steal_pictures(of_classifier(net()), cs.folder(photos), None, request, command="clearsight steal X")


def test_a_report_has_the_curve_the_frontier_the_maps_and_the_transfer(report: StealReport, tmp_path: Path) -> None:
    theft, defences, maps, transfer = report.findings
    assert [f.check for f in report.findings] == ["theft", "defences", "maps", "transfer"]
    assert [row["answers"] for row in theft.tables[0].rows] == [8, 16, 32]
    assert theft.value == theft.tables[0].rows[-1]["share"]
    assert any("12 pictures of the pool were kept" in note for note in theft.notes), "a fifth"
    assert theft.n == 11, "one of them is broken"
    assert [b.file for b in report.facts.data.broken] == ["dark/broken.png"]
    costs = defences.tables[0].rows
    assert [row["defence"] for row in costs] == ["none", "rounding(digits=1)", "top-1, query-budget(queries=8)"]
    assert [row["withheld"] for row in costs] == [0, 0, 3]
    thieves = defences.tables[1].rows
    budgeted = [row["answers"] for row in thieves if "query-budget" in str(row["defence"])]
    assert budgeted == [8, 8, 8, 32], "as four accounts the thief gets four times as many"
    assert len(maps.tables[0].rows) == 4
    assert transfer.n
    assert 0 < transfer.value <= 1
    assert report.opening == (theft.headline, defences.headline)
    report.save(tmp_path / "out")
    again = cs.Report.read(tmp_path / "out")
    assert json.loads(again.json())["findings"] == json.loads(report.json())["findings"]
    assert b"<svg" in (tmp_path / "out" / "figures" / "frontier.svg").read_bytes()


def test_where_the_time_is_used_up_no_further_defence_is_judged(photos: Path) -> None:
    request = steal_request(budget=8, rounds=1, arch=LINEAR, steps=20, attack="fgsm", defences=["rounding"])
    report = steal_pictures(of_classifier(net()), cs.folder(photos), None, request, seconds=0.0)
    assert [f.check for f in report.findings] == ["theft", "defences", "transfer"]
    assert (report.findings[1].verdict, report.findings[1].n) == ("note", 0)
    assert "the time was used up" in report.findings[1].headline


MINE = """
def first(theft, n, *, skip: int = 0):
    import torch
    return theft.take(torch.arange(skip, skip + n))
"""


def test_a_thief_of_ones_own(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    request = steal_request("./mine.py:first(skip=2)", budget=8, rounds=1, arch=LINEAR, steps=20, attack="fgsm")
    report = steal_pictures(of_classifier(net()), cs.folder(photos), None, request)
    assert "a ./mine.py:first thief" in report.findings[0].headline


def test_the_same_seed_gives_the_same_theft(photos: Path) -> None:
    request = steal_request(budget=16, rounds=2, arch=LINEAR, steps=20, attack="fgsm")
    one, other = (steal_pictures(of_classifier(net()), cs.folder(photos), None, request, seed=3) for _ in range(2))
    assert [f.tables for f in one.findings] == [f.tables for f in other.findings]


def test_pictures_that_judge_are_not_asked_about(photos: Path) -> None:
    request = steal_request(budget=16, rounds=2, arch=LINEAR, steps=20, attack="fgsm")
    report = steal_pictures(of_classifier(net()), cs.folder(photos), cs.folder(photos / "dark"), request)
    assert any("31 pictures of the pool judge clones" in note for note in report.findings[0].notes)
    with pytest.raises(Refused, match=r"no picture of .* is left"):
        steal_pictures(of_classifier(net()), cs.folder(photos), cs.folder(photos), request)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"thief": "knockof"}, "did you mean knockoff"),
        ({"thief": "jbda(step=2)"}, "jbda"),
        ({"defences": ["roundin"]}, "did you mean rounding"),
        ({"access": "logit"}, "probs"),
        ({"budget": 3, "rounds": 4}, "--budget"),
        ({"maps": "rise"}, "no gradient"),
        ({"arch": "lenet"}, "clearsight:plain-cnn"),
    ],
)
def test_requests_that_cannot_be_are_refused(words: dict[str, Any], told: str) -> None:
    with pytest.raises(Refused, match=told):
        steal_request(**words)


def test_models_that_cannot_be_cloned_are_refused() -> None:
    values = cs.wrap(net().net, PRE, list(LABELS), scores="values")
    with pytest.raises(Refused, match="outputs are values"):
        of_classifier(values)
    other = cs.wrap(net().net, PRE, ["a", "b"])
    with pytest.raises(Refused, match="other classes"):
        of_classifier(net(), [other])


def test_the_frontier_says_which_thief_is_best_and_whether_a_defence_helps_at_all() -> None:
    cost = HonestCost(10, 0, 0, 0, None, 0.25, (0.2, 0.3), 0)

    def defended(name: str, *agree: int) -> Defended:
        kinds = ("plain", "argmax")
        thefts = [Stolen((Point(5, a, 10, 0, 0),), net(), k, (), 0, 1) for a, k in zip(agree, kinds, strict=True)]
        return Defended(name, cost, tuple(thefts))

    free = defended("none", 8, 7)
    helps = frontier_finding([free, defended("rounding", 2, 7), defended("top-1", 9, 9)], ceiling=0.8, planned=2)
    assert helps.value == 0.7
    assert helps.headline.startswith("Of 2 defences, rounding leaves a thief least: the best one (learns from the top")
    assert "50.0 points more than one who does not adapt" in helps.headline
    none = frontier_finding([free, defended("rounding", 2, 8)], ceiling=0.8, planned=3)
    assert none.headline.startswith("A thief gets no less behind rounding: the best one")
    assert "The time was used up after 1 of 3 defences." in none.notes
    assert frontier_finding([free], ceiling=0.8, planned=1).verdict == "note"


# Checks ---------------------------------------------------------------------------------------------------------------


def test_model_stealing_is_a_check_that_runs_by_name(photos: Path) -> None:
    words = f'model-stealing(queries=16, defences="top-1, query-budget(queries=4)", arch={LINEAR}, steps=20)'
    assert not {"model-stealing", "membership-inference"} & {call.method.name for call in parse_checks(None)}
    (finding,) = audit(net(), cs.folder(photos), only=words).findings
    check_manners(finding, 30)
    assert [row["defence"] for row in finding.tables[0].rows] == ["none", "top-1", "query-budget(queries=4)"]
    assert finding.figures[0].name == "frontier.svg"
    few = audit(net(), cs.folder(photos), only="model-stealing(pictures=10)").findings[0]
    assert few.verdict == "note"
    for bad in ('model-stealing(defences="ensemble")', "model-stealing(queries=0)", 'model-stealing(defences="")'):
        with pytest.raises(Refused):
            audit(net(), cs.folder(photos), only=bad)


@pytest.fixture(scope="module")
def memorised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose network learned labels of noise by heart: nothing but membership says what it answers."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    lines, pixels, classes = ["file,label,split"], [], []
    for i in range(240):
        picture = rng.integers(0, 256, (8, 8)).astype(np.uint8)
        k, part = int(rng.integers(2)), "train" if i < 120 else "test"
        Image.fromarray(picture).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{LABELS[k]},{part}")
        pixels.append(torch.from_numpy(picture.copy()).float()[None] / 255)
        classes.append(k)
    (folder / "split.csv").write_text("\n".join(lines) + "\n")
    lesson = Lesson(arch=ARCH, epochs=100)
    model = new_clone(lesson, PRE, LABELS, 0)
    train_clone(model, torch.stack(pixels[:120]), torch.eye(2)[classes[:120]], lesson)
    cs.save(model, folder, architecture=ARCH)
    return folder


def test_membership_inference_finds_what_was_learned_by_heart(memorised: Path, photos: Path) -> None:
    model = cs.load(str(memorised))
    (finding,) = audit(model, cs.folder(photos), only="membership-inference(shadows=4, epochs=100)").findings
    check_manners(finding, 120)
    assert (finding.verdict, finding.chance) == ("fail", 0.01)
    rows = finding.tables[0].rows
    assert finding.value == pytest.approx(float(str(rows[2]["found at 1.0 %"]).split()[0]) / 120), "of LiRA, online"
    assert finding.value > 0.2
    assert str(rows[0]["found at 1.0 %"]).startswith("1 of 120"), "the loss attack finds none, for all its area"
    assert [row["attack"] for row in rows] == ["loss (Yeom et al.)", "LiRA, offline", "LiRA, online"]
    assert all(float(str(row["area under ROC"])) > 0.8 for row in rows)
    assert any("120 others cannot resolve a false positive rate of 0.1 %" in note for note in finding.notes)
    assert any(ARCH in note for note in finding.notes), "shadows are built as the model is"
    assert finding.figures[0].name == "membership-roc.svg"


def test_membership_inference_needs_a_split(photos: Path) -> None:
    (finding,) = audit(net(), cs.folder(photos), only="membership-inference").findings
    assert finding.verdict == "note"
    assert "split.csv" in finding.headline
    with pytest.raises(Refused, match="even number"):
        audit(net(), cs.folder(photos), only="membership-inference(shadows=3)")


# A served model -------------------------------------------------------------------------------------------------------


@dataclass
class Served:
    """A server of the Open Inference Protocol with one model, which answers each key so many pictures."""

    place: str = ""
    seen: list[tuple[str, list[int]]] = field(default_factory=list)
    limit: int = 10**9
    models: list[str] = field(default_factory=lambda: ["net"])
    labels: list[str] | None = None

    def answer(self, path: str, key: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        if path == "/v1/models" and self.models:
            return 200, {"models": self.models}
        if not path.startswith("/v2/models/net"):
            return 404, {"error": "no such model"}
        if body is None:
            picture = {"name": "picture", "datatype": "UINT8", "shape": [-1, -1, -1, 1]}
            chances = {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}
            outputs = [{"name": "map", "shape": [-1, 2, 2]}, chances]
            return 200, {
                "name": "net", "inputs": [picture], "outputs": outputs, "parameters": {"labels": self.labels}
            }  # fmt: skip
        (tensor,) = body["inputs"]
        n = tensor["shape"][0]
        if sum(shape[0] for name, shape in self.seen if name == key) + n > self.limit:
            return 429, {"error": "the key may use no more"}
        self.seen.append((key, tensor["shape"]))
        x = torch.tensor(tensor["data"]).reshape(tensor["shape"]).permute(0, 3, 1, 2).float() / 255
        p = net()(x).softmax(1)
        data = {"name": "probabilities", "shape": [n, 2], "datatype": "FP32", "data": p.flatten().tolist()}
        return 200, {"outputs": [data]}


@pytest.fixture
def served() -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def reply(self, body: dict[str, Any] | None) -> None:
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, told = state.answer(self.path, key, body)
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.place = f"http://127.0.0.1:{server.server_port}/v2/models/net"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_served_model_answers_as_it_does_here(served: Served) -> None:
    victim = of_address(f"{served.place}/infer", 8, LABELS)
    x = (torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    torch.testing.assert_close(victim.probabilities(x, 0), net()(x).detach().softmax(1), rtol=0, atol=1e-6)
    assert [shape for _, shape in served.seen] == [[32, 8, 8, 1], [32, 8, 8, 1], [6, 8, 8, 1]]
    assert victim.labels == LABELS


def test_a_served_model_is_stolen_by_accounts_with_limits(served: Served, photos: Path) -> None:
    served.limit = 40
    victim = of_address(served.place, 8, LABELS, keys=["a", "b"])
    oracle = Oracle(victim, 100, accounts=victim.keys)
    x, _ = oracle.ask(torch.rand(100, 1, 8, 8))
    assert len(x) == oracle.used == 80
    assert [key for key, _ in served.seen[:6]] == ["a", "b", "a", "b", "a", "b"], "the accounts take turns"
    assert oracle.is_closed
    assert "429" in oracle.refused[0]
    served.limit, served.seen = 10**9, []
    request = steal_request(budget=16, rounds=2, arch=LINEAR, steps=20, attack="fgsm")
    report = steal_pictures(victim, cs.folder(photos), None, request)
    assert report.facts.model.source == served.place
    assert report.facts.model.parameters == 0
    assert report.findings[0].n == 11
    assert report.findings[0].command == f"clearsight steal {served.place} --pool {photos}"


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (["cat", "dog"], ("cat", "dog")),
        (["cat"], ("0", "1")),
        (["cat", "cat"], ("0", "1")),
        (["a", "b", "a"], ("0", "1")),
        (None, ("0", "1")),
    ],
)
def test_a_server_may_tell_its_classes(served: Served, told: list[str] | None, known: tuple[str, ...]) -> None:
    served.labels = told
    assert of_address(served.place, 8).labels == known
    assert of_address(served.place, 8, LABELS).labels == LABELS


@pytest.mark.parametrize("path", ["", "/", "/v2", "/v2/models/"])
def test_a_server_is_asked_for_its_one_model(served: Served, path: str) -> None:
    server = served.place.removesuffix("/v2/models/net")
    assert of_address(server + path, 8, LABELS).source == served.place
    served.models = ["net", "other"]
    with pytest.raises(Refused, match=f"has 2 models: net, other: give {server}/v2/models/NAME"):
        of_address(server + path, 8, LABELS)
    served.models = []
    with pytest.raises(Refused, match=r"does not tell those it has .*no such model"):
        of_address(server + path, 8, LABELS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("http://example.com/v2/models/net", "example.com is not this machine"),
        ("http://127.0.0.1.example.com/v2/models/net", "is not this machine"),
        ("http://10.0.0.1:8000/v2/models/net", "is not this machine"),
        ("http://127.0.0.1:8000/predict", "does not name a model"),
        ("http://localhost:8000/v2/repository", "does not name a model"),
        ("http://10.0.0.1:8000", "is not this machine"),
        ("http:///v2/models/net", "is not this machine"),
    ],
)
def test_other_machines_are_refused(words: str, told: str) -> None:
    with pytest.raises(Refused, match=told):
        check_address(words)


def test_what_a_server_says_is_passed_on(served: Served) -> None:
    with pytest.raises(Refused, match="answered 404: no such model"):
        of_address(served.place.replace("/net", "/other"), 8)
    with pytest.raises(Refused, match="3 labels for a model of 2"):
        of_address(served.place, 8, ["a", "b", "c"])
    with pytest.raises(Refused, match="does not answer"):
        of_address("http://127.0.0.1:9/v2/models/net", 8)
    served.limit = 0
    victim = of_address(served.place, 8)
    with pytest.raises(Withheld, match="may use no more"):
        victim.probabilities(torch.zeros(1, 1, 8, 8), 0)
    assert victim.labels == ("0", "1")
