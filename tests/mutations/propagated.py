"""How the methods that change the way back through single operations are broken on purpose."""

METHODS = {
    "explainers/guided_backprop.py": [
        ("g.clamp(min=0).mul_(is_open)", "g * is_open"),
        ("g.clamp(min=0).mul_(is_open)", "g.clamp(min=0)"),
        ("g.clamp(min=0).mul_(is_open)", "g.abs() * is_open"),
    ],
    "explainers/deconvnet.py": [
        ("lambda g, _is_open: g.clamp(min=0)", "lambda g, _is_open: g"),
        ("lambda g, _is_open: g.clamp(min=0)", "lambda g, _is_open: g.clamp(min=0) * _is_open"),
    ],
    "explainers/guided_grad_cam.py": [
        ("* grad_cam(model", "+ grad_cam(model"),
        ("guided_backprop(model, x, target)", "guided_backprop(model, x, target).abs()"),
    ],
    "explainers/deep_lift.py": [
        ("(x - baseline)).sum(1)", "x).sum(1)"),
        ("torch.full_like(x, baseline)", "torch.zeros_like(x)"),
        ("gap.abs() <= LOST", "gap <= torch.inf + LOST"),
        ("slope(target, here, there)", "slope(target, here, here)"),
    ],
}

CORE = [
    ("explainers/_rectified.py", "(x > low) & (x < high)", "(x > low)", "by_hand and backprop"),
    ("explainers/_rectified.py", "if others or not relus:", "if not relus:", "other_activations"),
    ("explainers/_rectified.py", "if others or not relus:", "if others:", "needs_convolutions"),
    ("explainers/_rescaled.py", "torch.where(still, own, rise)", "own", "deep_lift"),
    ("explainers/_rescaled.py", "fn(a, (b + was_b).detach() / 2)", "fn(a, b.detach())", "deep_lift"),
    ("explainers/_rescaled.py", "(new - top, at_old)", "(new - top, at_new)", "deep_lift"),
    ("explainers/_rescaled.py", "at = (there + (k + 0.5) / STEPS", "at = (there + (k + 1) / STEPS", "deep_lift"),
    ("explainers/_rescaled.py", '"_safe_softmax": softmax,', "", "deep_lift"),
    ("explainers/_rescaled.py", '"native_layer_norm": layer_norm,', "", "deep_lift"),
    ("explainers/_rescaled.py", '"native_group_norm": group_norm,', "", "deep_lift"),
    ("explainers/_rescaled.py", '"div": quotient,', "", "deep_lift"),
]
