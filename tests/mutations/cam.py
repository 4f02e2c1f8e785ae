"""How the class-activation methods are broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "explainers/cam.py": [
        ("(weight * a).sum(1) * a[0, 0].numel()", "(weight * a).sum(1)"),
        ("(weight * a).sum(1) * a[0, 0].numel()", "(weight * a).sum(1).relu() * a[0, 0].numel()"),
        ("if bool((apart > _CLOSE * size).any()):", "if False:"),
        ("_weights(model, 1 - x, mix, layer)", "_weights(model, x, mix, layer)"),
        ("(model(x) * mix).sum(1)", "model(x).sum(1)"),
        ("> _CLOSE * parts.abs().sum(1) + 1e-6", "> torch.inf"),
    ],
    "explainers/grad_cam_plus_plus.py": [
        ("2 + g * a.sum(places", "2 + a.sum(places"),
        ("2 + g * a.sum(places", "2 + g * a.mean(places"),
        ("below = 2 + g", "below = 1 + g"),
        ("(alpha * g.relu())", "(alpha * g)"),
        ("(alpha * g.relu()).sum", "(alpha * g.relu()).mean"),
        (".sum(1).relu()", ".sum(1)"),
        (
            "    below = 2 + g * a.sum(places, keepdim=True)",
            "    below = (2 * g**2 + g**3 * a.sum(places, keepdim=True)) / g**2",
        ),
        (', name="grad-cam++")', ")"),
    ],
    "explainers/hires_cam.py": [
        ("(g * a).sum(1)", "(g.mean((2, 3), keepdim=True) * a).sum(1)"),
        ("(g * a).sum(1)", "(g.relu() * a).sum(1)"),
        (".sum(1).relu()", ".sum(1)"),
    ],
    "explainers/layer_cam.py": [
        ("(g.relu() * a)", "(g * a)"),
        ("(g.relu() * a)", "(g.abs() * a)"),
        (".sum(1).relu()", ".sum(1)"),
    ],
    "explainers/xgrad_cam.py": [
        ("must_not_cancel(model, active", "(model, active"),
        ("(g * a).sum(places, keepdim=True)", "g.sum(places, keepdim=True)"),
        ("active = a.sum(places", "active = a.abs().sum(places"),
        ("active.where(active != 0, torch.inf)", "active"),
        (".sum(1).relu()", ".sum(1)"),
    ],
    "explainers/eigen_cam.py": [
        ("a = a - a.mean(2, keepdim=True)", "a = a + 0"),
        ("vectors[..., -1]", "vectors[..., 0]"),
        ("shares.amin()", "shares.amax()"),
        ("float(shares.amin()) > 1 - REST", "float(shares.amin()) > 0.5"),
        ("diagonal(dim1=1, dim2=2).argmax(1)", "diagonal(dim1=1, dim2=2).argmin(1)"),
        (".clamp(min=0).sqrt())[..., 0]", ".clamp(min=0))[..., 0]"),
        ("torch.where(sign < 0, -component, component)", "component"),
        ("torch.where(sign < 0, -component, component)", "torch.where(sign < 0, component, -component)"),
        ("*a.shape[2:]).relu()", "*a.shape[2:])"),
        ("sign.abs() <= FLAT * size", "sign.abs() < 0"),
        ("component.pow(3)", "-component.pow(3)"),
    ],
}

# what they stand on: (file, old text, new text, pytest's -k)
CORE = [
    ("explaining/explain_pictures.py", r'r"[^\w+-]+"', r'r"[^\w-]+"', "grad_cam_plus_plus"),
    ("reporting/method_pages.py", "](#{_anchor(m)})", "](#{n})", "grad_cam_plus_plus"),
    ("reporting/method_pages.py", "if n != _anchor(m):", "if False:", "grad_cam_plus_plus"),
]
