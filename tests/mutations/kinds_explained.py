"""How the explanation of boxes and regions is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "explainers/box_gaussian.py": [
        ("(boxes[:, :2] + boxes[:, 2:]) / 2", "boxes[:, :2]"),
        ("across[:, None] + down[:, :, None]", "across[:, None]"),
        (".square()\n    down", ".abs()\n    down"),
        ("if not sigma > 0:", "if False:"),
    ],
}

# what they stand on: (file, old text, new text, pytest's -k)
CORE = [
    ("explainers/common/rescale.py", "[k], SPREAD)[0]", "[0], SPREAD)[0]", "box_maps"),
    (
        "explainers/common/lrp_walk.py",
        "begin.abs().flatten(1).sum(1).clamp_min(1e-12)",
        "begin.abs().sum(1).clamp_min(1e-12)",
        "kinds_explainers or box_maps",
    ),
    ("explainers/common/lrp_walk.py", "if bool(share.any()):", "if True:", "box_maps"),
    ("internals/patch_plan.py", "[*read, graph.end] if graph.end in before else read", "read", "box_maps"),
    ("explainers/deep_lift.py", "_INSTEAD.get(model.kind, ", "(", "box_maps"),
    ("internals/target_layer.py", "if len(used) == 1 and -1 not in used else", "if -1 not in used else", "box_maps"),
    ("internals/target_layer.py", "for s in reversed(self.runs):", "for s in self.runs:", "box_maps"),
    ("runner/run.py", "values if len(calls) == 1 else values[", "values if calls else values[", "box_maps"),
    ("kinds/box_targets.py", "own, -torch.inf).amax(2)", "own, -torch.inf).amin(2)", "box_maps"),
    ("kinds/box_targets.py", "self.against.to(rows.device)]", "self.classes.to(rows.device)]", "box_maps"),
    ("kinds/box_targets.py", "if bool((against == classes).any()):", "if False:", "box_maps"),
    (
        "kinds/region_targets.py",
        'outputs.softmax(1) if self.of == "prob"',
        'outputs.sigmoid() if self.of == "prob"',
        "box_maps",
    ),
    (
        "kinds/questions.py",
        '_surest_box(outputs, "score", "matched") if chance',
        '_surest_box(outputs, "class", "raw") if chance',
        "kinds_metrics",
    ),
    ("kinds/questions.py", '"prob" if chance else "logit"', '"logit"', "kinds_metrics"),
    ("internals/randomisation.py", "a, b = a.flatten(1), b.flatten(1)", "pass", "kinds_metrics"),
    ("explaining/ask_kinds.py", "found[found.labels == asked.of]", "found", "explaining_kinds"),
    ("explaining/ask_kinds.py", "region.view(-1)[nearest] = True", "region[:] = True", "explaining_kinds"),
    ("explaining/ask_kinds.py", "found.boxes[sure]", "found.boxes", "explaining_kinds"),
    ("explaining/ask_kinds.py", "(seen or order)[:most]", "order[:most]", "explaining_kinds"),
    (
        "explaining/ask_kinds.py",
        "across[:, None] & down[:, :, None]",
        "across[:, None] | down[:, :, None]",
        "explaining_kinds",
    ),
    ("drawing/heatmaps.py", "[image.width / width, image.height / height] * 2", "[1.0] * 4", "explaining_kinds"),
    ("auditing/map_tests.py", 'replace(target, of="score", match="matched")', "target", "explaining_kinds"),
]
