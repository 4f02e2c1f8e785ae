"""How the explanation of boxes and regions is broken on purpose."""

# what they stand on: (file, old text, new text, pytest's -k)
CORE = [
    ("explainers/common/rescale.py", "[k], SPREAD)[0]", "[0], SPREAD)[0]", "box_maps"),
    (
        "explainers/common/lrp_rules.py",
        "begin.abs().flatten(1).sum(1).clamp_min(1e-12)",
        "begin.abs().sum(1).clamp_min(1e-12)",
        "kinds_explainers or box_maps",
    ),
    ("explainers/common/lrp_rules.py", "if bool(share.any()):", "if True:", "box_maps"),
    ("internals/patch_plan.py", "[*read, graph.end] if graph.end in before else read", "read", "box_maps"),
    ("explainers/deep_lift.py", "_INSTEAD.get(model.kind, ", "(", "box_maps"),
]
