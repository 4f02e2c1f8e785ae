"""How the segmenters are broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "segmenters/fcn.py": [
        ("nn.init.zeros_(p)", "nn.init.normal_(p)"),
        ("scores = crop(up(scores), own) + own", "scores = crop(up(scores), own)"),
        ("maps[1::-1]", "maps[:2]"),
        ("if stride <= s < 32", "if stride < s < 32"),
        ("crop(self.enlarge(logits), z)", "self.enlarge(logits)"),
    ],
    "segmenters/unet.py": [
        ("ceil_mode=True", "ceil_mode=False"),
        ("[own, crop(enlarge(z), own)]", "[crop(enlarge(z), own), own]"),
        ('nonlinearity="relu"', 'nonlinearity="linear"'),
        ("classes, shape, 2**depth", "classes, shape, 2"),
        ('bias=norm == "none"', "bias=True"),
    ],
    "segmenters/deeplabv3.py": [
        ('BeforeUpsampling(net, "out")', "net"),
        ('check_channels("deeplabv3", shape)', "pass"),
        ("num_classes=classes", "num_classes=21"),
    ],
    "segmenters/lraspp.py": [
        ("BeforeUpsampling(net, None)", "net"),
        ('check_channels("lraspp", shape)', "pass"),
    ],
    "segmenters/heatmaps.py": [
        ("if shape[1] % 32 or shape[2] % 32:", "if False:"),
        ("(maps, width, width), 1)", "(maps, width), 1)"),
        ('claims="landmarks"', 'claims=""'),
    ],
}

# (file, old text, new text, pytest's -k)
CORE = [
    ("segmenters/common/upsampling.py", "+ 0.5 - factor", "- factor", "begins_as_bilinear"),
    ("segmenters/common/upsampling.py", "own if mixed else 0", "0", "begins_as_bilinear"),
    ("segmenters/common/upsampling.py", "up.weight.zero_()", "pass", "begins_as_bilinear"),
    ("segmenters/common/upsampling.py", "or factor % 2", "", "bilinear_kernel"),
    ("backbones/features.py", "layer.ceil_mode = True", "pass", "backbones_have"),
    ("backbones/features.py", "7, padding=3", "7, padding=2", "backbones_have"),
    ("segmenters/common/from_torchvision.py", "n.startswith(prefix + AUXILIARY)", "False", "torchvision_s_outputs"),
    ("segmenters/common/from_torchvision.py", "n.startswith(prefix + AUXILIARY)", "True", "auxiliary_head"),
    ("segmenters/common/shapes.py", "if classes < 1:", "if False:", "test_contract_segmenters and refuses"),
    ("segmenters/common/shapes.py", "len(shape) != 3 or", "", "test_contract_segmenters and refuses"),
    ("segmenters/common/shapes.py", "min(shape[1:]) < least", "False", "test_contract_segmenters and refuses"),
    ("segmenters/common/losses.py", "truth[truth != NOT_JUDGED]", "truth", "cross_entropy_is_the_mean"),
    ("segmenters/common/losses.py", "if mass else logits.sum() * 0\n\n\ndef dice", "\n\n\ndef dice", "without_judged"),
    ("segmenters/common/losses.py", "float(weight[judged].sum())", "judged.numel()", "cross_entropy_is_the_mean"),
    ("segmenters/common/losses.py", ".movedim(1, -1)[judged]", ".movedim(1, -1)", "dice"),
    ("segmenters/common/losses.py", "(size > 0).to(p)", "torch.ones_like(size)", "dice_is_the_mean"),
    ("segmenters/common/losses.py", "2 * (p * t)", "(p * t)", "dice"),
    ("segmenters/common/losses.py", ".clamp(min=1e-30)", "", "that_are_there"),
    ("segmenters/common/losses.py", "(truth < 0) | ", "", "losses_refuse"),
    ("segmenters/common/landmarks.py", "/ stride - 0.5", "/ stride", "gaussians_are_one"),
    ("segmenters/common/landmarks.py", "(2 * sigma**2)", "(sigma**2)", "gaussians_are_one"),
    ("segmenters/common/landmarks.py", "(middle + 0.5 + shift)", "(middle + shift)", "found_back"),
    ("segmenters/common/landmarks.py", "0.25 * torch.sign", "0.5 * torch.sign", "found_back"),
    ("segmenters/common/landmarks.py", "torch.sign(after - before) * inside", "torch.sign(after - before)", "border"),
    (
        "segmenters/common/landmarks.py",
        "torch.minimum(best, length - 1 - best)",
        "torch.full_like(best, length)",
        "border",
    ),
    ("segmenters/common/landmarks.py", "heat.clamp(min=0)", "heat", "weighs_nothing"),
    ("segmenters/common/landmarks.py", "(heat[visible] - wanted", "(heat.flatten(0, 1) - wanted", "loss_of_heat"),
]
