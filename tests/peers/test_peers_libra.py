"""Agreement of Score-CAM and Ablation-CAM with grad-cam, where that is right and does the same."""

import pytest
import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.targets import ClassScore
from clearsight.perturbation.map_thresholds import stretched
from clearsight.runner.run import explain

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]  # it warns of much


@pytest.fixture
def model(small) -> Classifier:
    small.net.eval()
    return small


def theirs(name: str, model: Classifier, layer: int, x: Tensor, targets: list[object]) -> Tensor:
    """It multiplies what the network is given, so it is given normalised pictures, and the bare network."""
    library = pytest.importorskip("pytorch_grad_cam")
    maps = []
    for i, target in enumerate(targets):
        with getattr(library, name)(model=model.net, target_layers=[model.net[layer]]) as cam:
            maps.append(torch.from_numpy(cam(input_tensor=model.normalised(x[i : i + 1]), targets=[target])))
    return torch.cat(maps)


@pytest.mark.parametrize("layer", [2, 4, 5])
@pytest.mark.parametrize("scores", ["probability", "target"])
def test_score_cam_is_grad_cams(model, x, scores, layer):
    """It takes the softmax over the channels of whatever its target gives, and no baseline: our mode "paper"."""
    kinds = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    kind = kinds.ClassifierOutputSoftmaxTarget if scores == "probability" else kinds.ClassifierOutputTarget
    classes = [0, 3, 1, 4]
    ours = explain(model, x, f"score-cam(scores={scores}, layer={layer})", ClassScore(classes)).maps
    wanted = theirs("ScoreCAM", model, layer, x, [kind(k) for k in classes])
    assert (wanted.flatten(1).amax(1) > 0.5).any()
    torch.testing.assert_close(stretched(ours), stretched(wanted), rtol=0, atol=0.01)


@pytest.mark.parametrize("layer", [2, 5])
def test_ablation_cam_is_grad_cams(model, x, layer):
    """Behind a ReLU and for positive logits: elsewhere it ablates by other values, or turns the map upside down."""
    kinds = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    with model.undisturbed(), torch.no_grad():
        classes = model(x).argmax(1)
        assert (model(x).amax(1) > 0).all()
    ours = explain(model, x, f"ablation-cam(layer={layer})", ClassScore(classes)).maps
    wanted = theirs("AblationCAM", model, layer, x, [kinds.ClassifierOutputTarget(int(k)) for k in classes])
    torch.testing.assert_close(stretched(ours), stretched(wanted), rtol=0, atol=0.01)
