"""What reviews by fresh eyes once found wrong, each kept from coming back."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing.case import Case
from clearsight.checks.calibration import allowed_ece, ece, ece_interval, verdict_of
from clearsight.core.diagnostics import SHARE
from clearsight.data.annotations import Region
from clearsight.data.datasets import folder
from clearsight.explaining.explain_pictures import FAR, far_from_complete
from workshop import ColourNet, factory


class Louder(nn.Module):
    """The same answers, so loud that every probability rounds to 0 or 1."""

    def __init__(self, net: nn.Module, times: float) -> None:
        super().__init__()
        self.net, self.times = net, times

    def forward(self, x: Tensor) -> Tensor:
        return self.times * self.net(x)


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_a_loud_model_is_attacked_as_its_quiet_twin(attack, small, x):
    loud = cs.wrap(Louder(small.net, 1e6), small.preprocess, small.labels)
    with small.undisturbed(), torch.no_grad():
        y = small(x).argmax(1)
    assert (loud.net.eval()((x - 0.5) / 0.25).softmax(1).amax(1) == 1).all()
    quiet, same = (cs.attack(m, x, y, attack, eps=0.1) for m in (small, loud))
    assert quiet.fooled.any()
    assert torch.equal(quiet.fooled, same.fooled)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_any_precision_are_explained(dtype, workshop):
    model = factory()
    x = cs.pixels(model, "photos/red/red1.png")
    plain = cs.explain(model, x, "grad-cam").maps
    found = cs.explain(cs.wrap(ColourNet().to(dtype), model.preprocess, model.labels), x, "grad-cam").maps
    torch.testing.assert_close(found, plain, rtol=0.05, atol=0.05)


def test_a_target_for_another_number_of_pictures_is_refused(small, x):
    for question in (cs.ClassScore([0] * 9), cs.Margin([0] * 4, [1] * 5)):
        with pytest.raises(cs.Refused, match="pictures, but there are 4"):
            cs.explain(small, x, "saliency", question)
    with pytest.raises(cs.Refused, match="for 6 pictures"):
        cs.attack(small, x, torch.zeros(6, dtype=torch.long), "fgsm")


class Counting(nn.Module):
    """Puts another tensor in the place of its buffer each time it runs, as many homemade networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return self.layer(x.flatten(1))


def test_replaced_buffers_and_parameters_are_put_back():
    model = cs.wrap(Counting(), cs.Preprocess(2, (0.5,) * 3, (0.5,) * 3), list("abc"))
    calls, weight = model.net.calls, model.net.layer.weight
    cs.explain(model, torch.rand(2, 3, 2, 2), "saliency")
    assert model.net.calls is calls
    assert float(calls) == 0
    with model.undisturbed():
        model.net.layer.weight = nn.Parameter(torch.zeros(3, 12))
    assert model.net.layer.weight is weight
    with pytest.raises(RuntimeError, match=r"layer\.weight"), model.undisturbed():
        weight.data = weight.data * 2


def test_threads_take_turns_on_a_network(small, x):
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(4):
                cs.explain(small, x[:1], "grad-cam")
        except BaseException as e:
            wrong.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert all(p.requires_grad for p in small.net.parameters())
    assert all(m.training for m in small.net.modules())


def test_networks_made_in_inference_mode_are_refused_by_name():
    with torch.inference_mode():
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    model = cs.wrap(net, cs.Preprocess(2, (0.5,) * 3, (0.5,) * 3), list("abc"))
    with pytest.raises(cs.Refused, match="inference"):
        cs.explain(model, torch.rand(1, 3, 2, 2), "saliency")


def test_randomising_is_not_going_back_to_the_first_weights(workshop):
    """A network that was never trained, made from the audit's own seed: its maps must change all the same."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    model = cs.wrap(net, cs.Preprocess(16, (0.5,) * 3, (0.5,) * 3), ["red", "green", "blue"])
    report = cs.audit(model, "photos", only="sanity", method="saliency")
    assert report.findings[0].value < 0.3


def test_where_boxes_have_names_only_those_of_the_class_count(workshop):
    data = folder("photos", boxes="boxes.json")
    case = Case(factory(), data)
    row = next(i for i, p in enumerate(case.pictures) if p.name == "red/red1.png")
    own = case.pictures[row].regions
    other = Region(((0.0, 0.0, 48.0, 48.0),), label="watermark")
    object.__setattr__(case.pictures[row], "regions", (*own, other))
    assert case.objects(row) == (own, True)
    assert float(case.regions([row]).float().mean()) == pytest.approx(0.25, abs=0.05)
    object.__setattr__(case.pictures[row], "regions", (other,))
    assert case.objects(row) == ((other,), False)


def test_quoted_commands_keep_options_and_spaces(workshop, run):
    (workshop / "photos").rename(workshop / "my photos")
    words = ("audit", "net.py:factory", "my photos", "--boxes", "boxes.json", "-m", "saliency", "--seed", "4", "--json")
    report = json.loads(run(*words, "--only", "localisation").out)
    (finding,) = report["findings"]
    program, *again = shlex.split(finding["command"])
    assert program == "clearsight"
    (same,) = json.loads(run(*again, "--json").out)["findings"]
    assert (same["value"], same["n"]) == (finding["value"], finding["n"])
    shown = run(*shlex.split(finding["evidence"][0]["command"])[1:])
    assert shown.status == 0, shown.err


def write(path: Path, body: str) -> str:
    path.write_text(
        f"import torch, clearsight as cs\nfrom torch import nn\nfrom workshop import ColourNet, factory\n{body}"
    )
    return f"{path.name}:make"


def test_probabilities_are_not_taken_for_logits(workshop, run):
    soft = write(
        workshop / "soft.py",
        "def make():\n"
        "    m = factory()\n"
        "    return cs.wrap(nn.Sequential(ColourNet(), nn.Softmax(1)), m.preprocess, m.labels)\n",
    )
    refused = run("audit", soft, "photos", "--only", "calibration")
    assert refused.status == 2
    assert "--scores probabilities" in refused.err
    right, plain = (
        json.loads(run("audit", *words, "--only", "calibration", "--json").out)["findings"][0]
        for words in ((soft, "photos", "--scores", "probabilities"), ("net.py:factory", "photos"))
    )
    assert right["value"] == pytest.approx(plain["value"], abs=1e-4)


def test_a_fault_of_the_network_is_not_called_ours(workshop, run):
    crash = write(
        workshop / "crash.py",
        "class Crash(ColourNet):\n"
        "    def forward(self, x):\n"
        "        raise ValueError('boom')\n"
        "def make():\n"
        "    m = factory()\n"
        "    return cs.wrap(Crash(), m.preprocess, m.labels)\n",
    )
    ran = run("audit", crash, "photos")
    assert ran.status == 2
    assert "the network failed" in ran.err
    assert "boom" in ran.err
    assert "defect" not in ran.err


def test_a_fault_of_a_method_of_the_users_is_not_called_ours(workshop, run):
    (workshop / "mine.py").write_text("def boom(model, x, target):\n    known = {}\n    return known['oops']\n")
    ran = run("explain", "net.py:factory", "photos/red/red1.png", "-m", "./mine.py:boom")
    assert ran.status == 2
    assert "./mine.py:boom failed: KeyError: 'oops' (mine.py, line 3)" in ran.err
    assert "defect" not in ran.err


class Overwrites(nn.Module):
    """Writes over what its own way back needs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.silu(torch.relu_(self.conv(x)), inplace=True)
        return self.dense(h.mean((2, 3)))


@pytest.mark.parametrize("method", ["saliency", "grad-cam", "integrated-gradients(steps=3)"])
def test_a_network_whose_own_way_back_fails_is_named(method, small, x):
    model = cs.wrap(Overwrites(), small.preprocess, small.labels)
    with pytest.raises(cs.Refused, match=r"backward pass of the network fails: RuntimeError.*inplace.*occlusion"):
        cs.explain(model, x, method)
    assert cs.explain(model, x, "occlusion(window=8, stride=8)").maps.any()


def test_a_defect_of_ours_is_not_called_theirs(small, x, monkeypatch):
    def broken(*_: object, **__: object) -> Tensor:
        raise IndexError("ours")

    monkeypatch.setattr("clearsight.explainers.saliency.pixel_gradients", broken)
    with pytest.raises(IndexError, match="ours"):
        cs.explain(small, x, "saliency")


def test_one_refused_method_does_not_lose_the_others(workshop, run):
    (workshop / "bent.py").write_text(
        "from torch import nn\nimport clearsight as cs\nfrom workshop import factory\n"
        "def make():\n"
        "    m = factory()\n"
        "    m.net.features[1] = nn.SiLU()\n"
        "    return m\n"
    )
    ran = run("explain", "bent.py:make", "photos/red/red1.png", "-m", "deconvnet", "-m", "saliency")
    assert ran.status == 0
    assert "left out: deconvnet: deconvnet is defined for ReLU" in ran.out
    alone = run("explain", "bent.py:make", "photos/red/red1.png", "-m", "deconvnet")
    assert alone.status == 2
    assert "\nclearsight: deconvnet is defined for ReLU" in alone.err
    inside = run("features", "net.py:factory", "photos/red/red1.png", "-m", "embedding", "-m", "activations")
    assert inside.status == 0, inside.err
    assert "left out embedding" in inside.out + inside.err


@pytest.mark.parametrize("target", ["cat", 1])
def test_what_is_no_target_is_refused(target, small, x):
    with pytest.raises(cs.Refused, match=r"target .* give cs.ClassScore\(model.index"):
        cs.explain(small, x, "saliency", target)


def test_why_rather_than_itself_is_no_question(small, x):
    with pytest.raises(cs.Refused, match=r"but both are class 2: give another"):
        cs.Margin(2, 2)
    for pair in (([0, 1, 2, 3], [1, 1, 1, 1]), (1, [0, 1, 2, 3]), ([0, 1, 2, 3], 1)):  # of one picture its map is 0
        one, all_ = (cs.explain(small, x, "saliency", cs.Margin(*pair), batch=b).maps for b in (1, 4))
        torch.testing.assert_close(one, all_)
        assert not one[1].any()
        assert one[0].any()


def test_names_are_no_classes_by_themselves():
    with pytest.raises(cs.Refused, match=r"not 'cat': model.index"):
        cs.Margin("cat", "dog")


def test_features_of_pixels_are_refused(small, x):
    with pytest.raises(cs.Refused, match="pictures in files, not a Tensor"):
        cs.features(small, x)


def test_a_map_far_from_complete_is_called_so(workshop, run, small, x):
    e = cs.explain(small, x, "integrated-gradients(steps=2)", cs.ClassScore(0))
    with torch.no_grad():
        small.net.eval()
        gap = (small(x) - small(torch.zeros_like(x)))[:, 0].abs()
    share = e.diagnostics[SHARE]
    torch.testing.assert_close(share * gap, e.diagnostics["completeness residual"])
    words = ("explain", "net.py:factory", "photos/red/red1.png", "-m", "integrated-gradients(steps=1)")
    (told,) = json.loads(run(*words, "--json").out)["pictures"][0]["maps"]
    assert abs(told["diagnostics"][SHARE][0]) > FAR
    assert "(far from complete)" in run(*words).out
    assert far_from_complete(SHARE, torch.tensor([0.05, -0.09])) == ""
    assert far_from_complete(SHARE, torch.tensor([0.05, -0.11])) == " (far from complete)"
    assert far_from_complete("area", torch.tensor([0.5])) == ""


def test_what_a_network_prints_is_no_part_of_the_result(workshop, run):
    noisy = write(
        workshop / "noisy.py",
        "class Noisy(ColourNet):\n"
        "    def forward(self, x):\n"
        "        print('forward!')\n"
        "        return super().forward(x)\n"
        "def make():\n"
        "    print('made!')\n"
        "    m = factory()\n"
        "    return cs.wrap(Noisy(), m.preprocess, m.labels)\n",
    )
    ran = run("audit", noisy, "photos", "--only", "accuracy", "--json")
    assert json.loads(ran.out)["findings"]
    assert "forward!" in ran.err


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux alone")
@pytest.mark.slow
def test_file_names_that_are_no_text_are_told(workshop, run):
    name = os.fsencode(workshop / "photos" / "red") + b"/b\xff.png"
    os.rename(workshop / "photos" / "red" / "red1.png", name)
    report = json.loads(run("audit", "net.py:factory", "photos", "--only", "accuracy, faithfulness", "--json").out)
    assert report["status"] == 0
    assert run("explain", "net.py:factory", "photos").status == 0


def test_a_finished_audit_is_not_written_over(workshop, run):
    audit = ("audit", "net.py:factory", "photos", "--only", "accuracy", "-o", "done")
    assert run(*audit).status == 0
    again = run(*audit)
    assert again.status == 2
    assert "finished" in again.err


def test_a_refused_audit_leaves_no_folder(workshop, run):
    for wrong in (("-m", "gradcam"), ("--seed", "-1"), ("--only", "acuracy")):
        ran = run("audit", "net.py:factory", "photos", *wrong)
        assert ran.status == 2
        assert "Traceback" not in ran.err
    assert not (workshop / "clearsight-runs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("explain", "net.py:factory", "photos/red/red1.png", "-m", "integrated-gradients(steps=-3)"), "steps"),
        (("attack", "net.py:factory", "photos", "-a", "pgd(restarts=0)"), "restarts"),
        (("attack", "net.py:factory", "photos", "--eps", "5"), "eps 5"),
    ],
)
def test_nonsense_options_are_refused(words, told, workshop, run):
    ran = run(*words)
    assert ran.status == 2
    assert told in ran.err


@pytest.mark.slow
def test_a_model_that_is_off_by_what_is_allowed_rarely_fails_calibration():
    """The bar is 0.1, and so is the true gap: calling that a failure must be rare, and holding it must be rarer."""
    rng, verdicts = np.random.default_rng(0), []
    for k in range(60):
        sure = rng.uniform(0.6, 0.95, 100)
        right = (rng.random(100) < sure - 0.1).astype(np.float64)
        value = ece(sure, right, 15)
        interval = ece_interval(sure, right, 15, value, k)
        verdicts.append(verdict_of(value, interval, allowed_ece(sure, right, 15, 0.1, k), 0.1))
    assert verdicts.count("fail") <= 5
    assert verdicts.count("pass") <= 5
    far = (rng.random(400) < 0.3).astype(np.float64)
    sure = np.full(400, 0.9)
    value = ece(sure, far, 15)
    assert verdict_of(value, ece_interval(sure, far, 15, value, 0), allowed_ece(sure, far, 15, 0.1, 0), 0.1) == "fail"
