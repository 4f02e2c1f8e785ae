"""How the lesson of detection is broken: (file, old text, new text, pytest's -k)."""

S, W = "demos/selective_search.py", "demos/region_detectors.py"
CORE = [
    (S, "(-_likeness(regions, a, b, pixels), a, b)", "(_likeness(regions, a, b, pixels), a, b)", "detection_demo"),
    (
        S,
        "np.maximum.at(boxes[:, 2 + column], of, value + 1)",
        "np.maximum.at(boxes[:, 2 + column], of, value)",
        "detection_demo",
    ),
    (W, "cost.passes += len(args[0])", "cost.passes += 1", "detection_demo"),
    (
        W,
        "bins, 1 / stride, sampling_ratio=2, aligned=True",
        "bins, 1 / stride, sampling_ratio=2, aligned=False",
        "detection_demo",
    ),
    (W, "height - side + 1, apart", "height - side, apart", "detection_demo"),
]
