"""The numbers of the class-activation methods: closed forms, and slow replicas, one picture and one channel at a time.

The network's gradient differs from place to place, where the methods differ from each other.
"""

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.catalogue import catalogue, method, parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore, Margin
from clearsight.errors import Refused
from clearsight.explainers.eigen_cam import top_eigenvector
from clearsight.explaining.explain_pictures import file_names
from clearsight.internals.layers import enlarge
from clearsight.reporting.method_pages import pages
from clearsight.runner.run import explain
from clearsight.testing import pooled

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)
FAMILY = ["grad-cam++", "layer-cam", "xgrad-cam", "hires-cam", "eigen-cam"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def bent() -> Classifier:
    """A network of 8 × 12 pictures; its layer 2 gives (6, 4, 6) rectified maps, layer 3 (5, 4, 6) with negatives."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1),
            nn.SiLU(), nn.Flatten(), nn.Linear(5 * 4 * 6, 3),
        )  # fmt: skip
    for p in net[6].parameters():
        p.data *= 30  # so steep that what the peers add to their denominators does not show
    return Classifier(net.eval(), Preprocess((8, 12), MEAN, STD), tuple("abc"))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(5, 3, 8, 12, generator=seeded(1))


def inside(model: Classifier, x: Tensor, layer: int, k: int) -> tuple[Tensor, Tensor]:
    """Of one picture (3, H, W): what stands at the layer (K, h, w), and the gradient of logit k there."""
    z = (x[None] - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    a = model.net[: layer + 1](z).detach().requires_grad_()
    (g,) = torch.autograd.grad(model.net[layer + 1 :](a)[0, k], a)
    return a.detach()[0], g[0]


def large(low: Tensor) -> Tensor:
    return F.interpolate(low[None, None], (8, 12), mode="bilinear", align_corners=False)[0, 0]


def plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """Equation 19, one channel and one place at a time."""
    low = torch.zeros(a.shape[1:])
    for k in range(len(a)):
        weight, whole = 0.0, float(a[k].sum())
        for i in range(a.shape[1]):
            for j in range(a.shape[2]):
                slope = float(g[k, i, j])
                below = 2 * slope**2 + whole * slope**3
                weight += slope**2 / (below or 1.0) * max(slope, 0.0)
        low += weight * a[k]
    return low.clamp(min=0)


def xgrad(a: Tensor, g: Tensor) -> Tensor:
    low = torch.zeros(a.shape[1:])
    for k in range(len(a)):
        whole = float(a[k].sum())
        weight = sum(float(a[k, i, j]) / whole * float(g[k, i, j]) for i in range(4) for j in range(6)) if whole else 0
        low += weight * a[k]
    return low.clamp(min=0)


def eigen(a: Tensor, _g: Tensor) -> Tensor:
    """By NumPy's singular values; the sign by hand."""
    flat = a.flatten(1).T.double().numpy()  # places × channels
    flat = flat - flat.mean(0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    low = flat @ directions[0]
    low = low if (low * flat.sum(1)).sum() >= 0 else -low
    return torch.from_numpy(low).float().view(a.shape[1:]).clamp(min=0)


REPLICAS = {
    "grad-cam++": plus_plus,
    "layer-cam": lambda a, g: (g.clamp(min=0) * a).sum(0).clamp(min=0),
    "xgrad-cam": xgrad,
    "hires-cam": lambda a, g: (g * a).sum(0).clamp(min=0),
    "eigen-cam": eigen,
}


def file(name: str) -> str:
    """A test's name with that of the method's file, by which tests/mutate.py selects."""
    return name.replace("++", "-plus-plus")


@pytest.mark.parametrize("layer", [2, 3])
@pytest.mark.parametrize("name", FAMILY, ids=file)
def test_cam_family_replicas(bent, pictures, name, layer):
    found = explain(bent, pictures, f"{name}(layer={layer})", ClassScore([0, 1, 2, 0, 1])).maps
    assert (found.flatten(1).amax(1) > 0).all()
    for i, x in enumerate(pictures):
        a, g = inside(bent, x, layer, i % 3)
        wanted = large(REPLICAS[name](a, g))
        assert (g.std((1, 2)) > 0.1 * g.abs().mean()).all()  # another gradient at every place
        torch.testing.assert_close(found[i], wanted, rtol=1e-3, atol=1e-5 * float(wanted.max()))


def test_cam_family_members_differ_from_each_other(bent, pictures):
    maps = [explain(bent, pictures, f"{name}(layer=2)", ClassScore(0)).maps for name in ["grad-cam", *FAMILY]]
    for i, one in enumerate(maps):
        for other in maps[:i]:
            assert float(np.corrcoef(one.flatten(), other.flatten())[0, 1]) < 0.99


class Averaged(nn.Module):
    """Feature maps, their averages, one dense layer."""

    def __init__(self, *, bend: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
        self.dense = nn.Linear(7, 4, bias=bias)
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features(x).mean((2, 3))
        return self.dense(pooled.square() if self.bend else pooled)


def averaged(**options: bool) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Averaged(**options)
    return Classifier(net.eval(), Preprocess((8, 12), MEAN, STD), tuple("abcd"))


def features(model: Classifier, x: Tensor) -> Tensor:
    z = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return model.net.features(z).detach()


@pytest.mark.parametrize("layer", ["auto", "features.1", "features"])
def test_cam_is_the_dense_layers_weights_times_the_maps(pictures, layer):
    model = averaged()
    classes = [0, 3, 2, 1, 0]
    e = explain(model, pictures, f"cam(layer={layer})", ClassScore(classes))
    assert e.method == f"cam(layer={'features.1' if layer == 'auto' else layer})"
    z = (pictures - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    a = (model.net.features[:2] if e.method == "cam(layer=features.1)" else model.net.features)(z).detach()
    low = torch.einsum("bk,bkhw->bhw", model.net.dense.weight[classes], a).detach()
    wanted = F.interpolate(low[:, None], (8, 12), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(e.maps, wanted, rtol=1e-4, atol=1e-5)
    assert e.maps.min() < 0
    assert (e.forwards, e.backwards) == (3, 2)
    with torch.no_grad():
        logits = model(pictures)[torch.arange(5), classes]
    torch.testing.assert_close(low.mean((1, 2)) + model.net.dense.bias[classes].detach(), logits)


def test_cam_of_a_margin_is_the_difference_of_two(pictures):
    model = averaged()
    for margin, other in ((Margin(2, 1), torch.tensor([1] * 5)), (Margin(2), None)):
        with torch.no_grad():
            rest = model(pictures).index_fill(1, torch.tensor([2]), -torch.inf)
        other = rest.argmax(1) if other is None else other
        parts = [explain(model, pictures, "cam", ClassScore(k)).maps for k in (torch.tensor(2), other)]
        found = explain(model, pictures, "cam", margin).maps
        torch.testing.assert_close(found, parts[0] - parts[1], rtol=1e-4, atol=1e-5)


def test_cam_is_grad_cam_and_its_family_behind_average_pooling(pictures):
    """All but Grad-CAM++, which has another scale, and Eigen-CAM, which asks nothing; up to the ReLU and 1 / (h w)."""
    model = averaged()
    low = explain(model, pictures, "cam(layer=features)", ClassScore(1)).maps
    a = features(model, pictures)
    wanted = torch.einsum("k,bkhw->bhw", model.net.dense.weight[1], a).relu().detach() / (4 * 6)
    wanted = F.interpolate(wanted[:, None], (8, 12), mode="bilinear", align_corners=False)[:, 0]
    for name in ("grad-cam", "hires-cam", "xgrad-cam"):
        found = explain(model, pictures, f"{name}(layer=features)", ClassScore(1)).maps
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert low.min() < 0 <= wanted.min()


def test_cam_refuses_what_is_not_linear(pictures):
    with pytest.raises(Refused, match=r"cam: the scores are not linear.*layer features\.1.*use grad-cam"):
        explain(averaged(bend=True), pictures, "cam", ClassScore(0))
    model = averaged()
    with pytest.raises(Refused, match="not linear"):  # a ReLU follows
        explain(model, pictures, "cam(layer=features.0)", ClassScore(0))
    for bias in (True, False):
        with pytest.raises(Refused, match=r"cam: the target is not a weighted sum of scores: explain a class score"):
            explain(averaged(bias=bias), pictures, "cam", ClassScore(0, of="prob"))
    with pytest.raises(Refused, match="not feature maps"):
        explain(model, pictures, "cam(layer=dense)", ClassScore(0))


@pytest.mark.parametrize("name", ["cam", *FAMILY], ids=file)
def test_cam_family_refuses_layers_without_maps(bent, pictures, name):
    with pytest.raises(Refused, match="not feature maps"):
        explain(bent, pictures, f"{name}(layer=6)", ClassScore(0))
    with pytest.raises(Refused, match="did you mean"):
        explain(bent, pictures, f"{name}(layer=22)", ClassScore(0))


@pytest.mark.parametrize("name", ["cam", "eigen-cam"])
def test_cam_and_eigen_cam_refuse_a_layer_that_does_not_run(pictures, name):
    model = averaged()
    model.net.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(Refused, match="is not run"):
        explain(model, pictures, f"{name}(layer=spare)", ClassScore(0))


class Early(nn.Module):
    """A network with an early exit: white pictures never come to its second layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x).relu()
        return (maps if x.min() == 1 else self.second(maps)).mean((2, 3))


def test_a_layer_that_is_not_run_for_these_pictures_is_refused():
    model = Classifier(Early().eval(), Preprocess((8, 9), (0.0,) * 3, (1.0,) * 3), tuple("abcd"), "early")
    grey, white = torch.full((2, 3, 8, 9), 0.5), torch.ones(2, 3, 8, 9)
    assert explain(model, grey, "grad-cam(layer=second)", ClassScore(0)).maps.shape == (2, 8, 9)
    with pytest.raises(Refused, match="layer second is not run in a forward pass"):
        explain(model, white, "grad-cam(layer=second)", ClassScore(0))


def test_grad_cam_plus_plus_where_gradients_are_tiny(bent, pictures):
    """g^2 of 1e-46 is 0 in float32, but alpha is 1/2 then."""
    for p in bent.net[6].parameters():
        p.data *= 1e-24
    found = explain(bent, pictures, "grad-cam++(layer=2)", ClassScore(0)).maps
    for i, x in enumerate(pictures):
        a, g = inside(bent, x, 2, 0)
        wanted = large((g.clamp(min=0).sum((1, 2), keepdim=True) / 2 * a).sum(0).clamp(min=0))
        torch.testing.assert_close(found[i], wanted, rtol=1e-4, atol=0)
    assert found.max() > 0


def test_xgrad_cam_of_silent_channels():
    """A channel that sums to 0 has no weight, and does not make the map infinite."""
    x = torch.tensor([[[[0.0, 0.0]], [[0.2, 0.6]]]])
    found = explain(pooled([[4.0, 2.0], [0.0, 0.0]]), x, "xgrad-cam", ClassScore(0)).maps
    torch.testing.assert_close(found, torch.tensor([[[0.2, 0.6]]]))


@pytest.mark.parametrize(
    ("name", "weight", "pixels"), [("xgrad-cam", 1.0, (0.2, 0.8005)), ("grad-cam++", 8.0, (0.2, 0.2998))]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_divisors_that_cancel_are_refused_where_rounding_would_decide(name, weight, pixels, dtype):
    """xgrad-cam: -0.3 + 0.3005; grad-cam++: 2 + 4 * (-0.3 - 0.2002)."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    for p, value in zip(net.parameters(), (1.0, -0.5, [[weight], [0.0]], 0.0), strict=True):
        p.data.copy_(torch.tensor(value))
    model = Classifier(net.to(dtype), Preprocess((1, 2), (0.0,), (1.0,)), ("a", "b"))
    x = torch.tensor(pixels).view(1, 1, 1, 2)
    if dtype != torch.float32:
        with pytest.raises(
            Refused, match=f"{re.escape(name)} divides by .* parts cancel, and rounding in {dtype} decides"
        ):
            explain(model, x, f"{name}(layer=0)", ClassScore(0))
        return
    times = 1 / 2 if name == "xgrad-cam" else 2 * 4 / (2 + 4 * (x - 0.5).sum())
    low = (times * (x - 0.5)[0, 0]).relu()
    torch.testing.assert_close(explain(model, x, f"{name}(layer=0)", ClassScore(0)).maps[0], low, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(("channels", "size"), [(3, (4, 6)), (40, (4, 6)), (24, (4, 6)), (1, (4, 6)), (5, (1, 7))])
def test_eigen_cam_is_the_same_by_either_gram_matrix(channels, size):
    """More channels than places, fewer, as many: always what NumPy's singular values give, and no sign by chance."""
    net = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.Flatten(), nn.LazyLinear(2))
    net[0].weight.data = torch.eye(channels)[..., None, None]
    x = torch.rand(3, channels, *size, generator=seeded(4))
    with torch.no_grad():
        net(x)
    model = Classifier(net, Preprocess(size, (0.0,) * channels, (1.0,) * channels), ("a", "b"))
    found = explain(model, x, "eigen-cam(layer=0)", ClassScore(0))
    for picture, m in zip(x, found.maps, strict=True):
        torch.testing.assert_close(m, eigen(picture, picture), rtol=1e-4, atol=1e-5)
    assert (found.forwards, found.backwards) == (1, 0)
    brighter = x * torch.linspace(0.1, 1, size[1])  # the right side is the brighter
    maps = explain(model, brighter, "eigen-cam(layer=0)", ClassScore(0)).maps
    assert (maps[..., -2:].sum((1, 2)) > maps[..., :2].sum((1, 2))).all()


@pytest.mark.parametrize("channels", [4, 40])
def test_eigen_cam_has_no_sign_by_chance_where_the_channels_sum_is_flat(channels):
    """As behind a LayerNorm: rounding must not turn the map over; what stands out is above 0."""
    net = nn.Sequential(nn.Conv2d(1, channels, 1, bias=False), nn.Flatten(), nn.LazyLinear(2))
    half = torch.rand(channels // 2, generator=seeded(5)) + 0.1
    x = torch.full((1, 1, 4, 6), 0.2)
    x[..., 1, 2] = 0.9
    maps = []
    for noise in (1e-5, -1e-5):
        weight = torch.cat([half, -half])
        weight[0] += noise
        net[0].weight.data = weight.view(-1, 1, 1, 1)
        with torch.no_grad():
            net(x)
        model = Classifier(net, Preprocess((4, 6), (0.0,), (1.0,)), ("a", "b"))
        maps.append(explain(model, x, "eigen-cam(layer=0)", ClassScore(0)).maps)
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-3, atol=1e-5)
    assert maps[0].argmax() == 8
    assert (maps[0] > 1e-6).sum() == 1


@pytest.mark.parametrize("second", [0.5, 0.99, 0.9999, 1.0])
def test_the_top_eigenvector_of_eigen_cam_is_torchs(second):
    """Also where the second eigenvalue is nearly as large, of one of the matrices alone, and where all are 0."""
    g = seeded(6)
    axes = torch.linalg.qr(torch.randn(3, 12, 12, generator=g, dtype=torch.float64)).Q
    axes[2] = torch.eye(12)  # whose top eigenvector has one value that is not 0
    sizes = torch.rand(3, 12, generator=g, dtype=torch.float64) / 2
    sizes[:, 3], sizes[0, 5] = 1.0, second
    gram = 1e-7 * (axes * sizes[:, None]) @ axes.mT
    found, (values, vectors) = top_eigenvector(gram), torch.linalg.eigh(gram)
    torch.testing.assert_close((found[:, None] @ gram @ found[..., None])[:, 0, 0], values[:, -1], rtol=1e-9, atol=0)
    alone = slice(1 if second == 1 else 0, None)  # two eigenvalues that are equal have a plane
    cosine = (found * vectors[..., -1]).sum(1).abs()[alone]
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-10, atol=0)
    assert top_eigenvector(torch.zeros(2, 3, 3, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize(
    ("places", "dtype"), [((5, 7), torch.float32), ((3, 40), torch.float32), ((5, 7), torch.float64)]
)
def test_maps_are_enlarged_as_torch_interpolates_them(places, dtype):
    maps = torch.randn(3, *places, generator=seeded(7), dtype=dtype).requires_grad_()
    wanted = nn.functional.interpolate(maps[None], (24, 50), mode="bilinear", align_corners=False)[0]
    found = enlarge(maps, (24, 50))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    by = torch.randn(found.shape, generator=seeded(8), dtype=dtype)
    pairs = [torch.autograd.grad((out * by).sum(), maps)[0] for out in (found, wanted)]
    torch.testing.assert_close(*pairs, rtol=1e-5, atol=1e-5)


def test_eigen_cam_of_a_flat_picture_is_nothing(bent):
    model = averaged()
    model.net.features[0].padding = (0, 0)
    assert explain(model, torch.full((1, 3, 8, 12), 0.3), "eigen-cam", ClassScore(0)).maps.abs().max() < 1e-4


def test_grad_cam_plus_plus_is_spelled_with_its_signs():
    assert catalogue("explainers")["grad-cam++"].fn.__module__.endswith(".grad_cam_plus_plus")
    for spelling in ("grad-cam++", "GRAD_CAM++", "grad-cam++(layer=layer4.1)"):
        call = parse(spelling, "explainers")
        assert call.method.name == "grad-cam++"
        assert parse(str(call), "explainers") == call
    inside = parse("smooth-grad(inner=grad-cam++(layer=2), samples=2)", "explainers")
    assert str(inside) == "smooth-grad(inner=grad-cam++(layer=2), samples=2)"
    with pytest.raises(Refused, match=r"did you mean .*grad-cam\+\+"):
        parse("grad-cam-plus-plus", "explainers")
    assert list(file_names(["grad-cam", "grad-cam++(layer=a)", "grad-cam"])) == [
        "grad-cam",
        "grad-cam++",
        "grad-cam-2",
    ]


def test_grad_cam_plus_plus_has_a_place_of_its_own_in_the_docs():
    page = pages()["explainers.md"]
    assert "[`grad-cam++`](#grad-cam-plus-plus)" in page
    assert '<a id="grad-cam-plus-plus"></a>\n\n## grad-cam++\n' in page
    assert "[`grad-cam`](#grad-cam)" in page
    assert '<a id="grad-cam">' not in page


def test_a_method_may_state_its_name():
    def of_a_file() -> None: ...

    assert method(paper="control", name="a+b")(of_a_file).name == "a+b"
    assert method(paper="control")(of_a_file).name == "test-cam"


@pytest.mark.parametrize("name", ["grad-cam++", "layer-cam", "xgrad-cam", "hires-cam"], ids=file)
def test_passes_of_the_cam_family(bent, pictures, name):
    for batch in 16, 2:
        e = explain(bent, pictures, f"{name}(layer=2)", ClassScore(0), batch=batch)
        assert (e.forwards, e.backwards) == (1, 1)
