"""How every explainer of the first step is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "explainers/grad_cam.py": [
        ("g.mean(places, keepdim=True) * a", "g * a"),
        ("g.mean(places, keepdim=True)", "g.sum(places, keepdim=True)"),
        ("g.mean(places, keepdim=True)", "g.abs().mean(places, keepdim=True)"),
        (".sum(1).relu()", ".sum(1)"),
    ],
    "explainers/occlusion.py": [
        ("return total / count", "return total"),
        ("whole[rows] - target[rows](covered", "target[rows](covered"),
        ("flat(model, x[:1], fill)", "flat(model, x[:1], fill or 0.0)"),
        ("min(i * stride, free)", "i * stride"),
        ("math.ceil(free / stride) + 1", "free // stride + 1"),
        ("or stride > window", ""),
    ],
    "explainers/random.py": [
        ("rng.uniform(x[:, 0])", "rng.normal(x[:, 0]).abs()"),
        ("rng.uniform(x[:, 0])", "rng.uniform(x[:, 0]) - 0.5"),
        ("rng.uniform(x[:, 0])", "x[:, 0]"),
    ],
}
