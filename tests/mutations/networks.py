"""How the networks are broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "networks/perceptron.py": [
        ("nn.Linear(math.prod(shape), classes)", "nn.Linear(math.prod(shape), classes, bias=False)")
    ],
    "networks/mlp.py": [
        ("nn.LeakyReLU(0.1)", "nn.LeakyReLU()"),
        ("nn.MaxPool1d(2)", "nn.AvgPool1d(2)"),
        ('layers[activation.replace("-", "_") + str(i)] = _activation(activation)', "pass"),
    ],
    "networks/lenet5.py": [
        ("1.7159 * torch.tanh(a * (2 / 3))", "torch.tanh(a)"),
        ("(0, 1, 3, 4), (1, 2, 4, 5)", "(0, 1, 2, 4), (1, 2, 4, 5)"),
        ("divisor_override=1", "divisor_override=4"),
        ("return -(x[:, None]", "return (x[:, None]"),
        (".square().sum(2)", ".abs().sum(2)"),
        ("nn.Linear(120 * h * w, 84)", "nn.Linear(120 * h * w, 84, bias=False)"),
        ("random.Random(0)", "random.Random()"),
        ("m(x[:, list(row)])", "m(x[:, : len(row)])"),
    ],
    "networks/alexnet.py": [
        ("alpha=5e-4", "alpha=1e-4"),
        ("conv4=nn.Conv2d(384, 384, 3, padding=1, groups=groups)", "conv4=nn.Conv2d(384, 384, 3, padding=1)"),
        ("96, 11, stride=4)", "96, 11, stride=4, padding=2)"),
    ],
    "networks/zfnet.py": [
        ("stride=2, padding=1), relu1", "stride=2, padding=3), relu1"),
        ("(512, 1024, 512)", "(512, 512, 512)"),
    ],
    "networks/vgg.py": [
        ("(3, 3, 1), (3, 3, 1), (3, 3, 1)", "(3, 3, 1), (3, 3, 1), (3, 3, 3)"),
        ("return he(", "return ("),
        ("padding=kernel // 2", "padding=0"),
    ],
    "networks/googlenet.py": [
        ('"4c": (128, 128, 256, 24, 64, 64)', '"4c": (128, 128, 256, 24, 64, 72)'),
        ("torch.cat([self.one(x), self.three(x), self.five(x)", "torch.cat([self.one(x), self.five(x), self.three(x)"),
        ("return scores, self.aux1(a), self.aux2(d)", "return scores, self.aux2(d), self.aux1(a)"),
        ("if self.training and", "if"),
        ("nn.MaxPool2d(3, 1, padding=1)", "nn.AvgPool2d(3, 1, padding=1)"),
    ],
    "networks/resnet.py": [("version, None)", "version, 16)")],
    "networks/se_resnet.py": [("version, ratio)", "version, None)")],
    "networks/densenet.py": [
        ("torch.cat([x, self.branch(x)], 1)", "torch.cat([self.branch(x), x], 1)"),
        ("nn.AvgPool2d(2)", "nn.MaxPool2d(2)"),
        ("maps = 2 * growth", "maps = 64"),
    ],
    "networks/pilotnet.py": [("conv3=conv(36, 48, 5, 2)", "conv3=conv(36, 48, 5, 1)")],
    "networks/character_cnn.py": [
        ("i in pooled", "i < depth"),
        ("7 if i <= 2 else 3", "7 if i <= 1 else 3"),
        ("padding=kernel // 2", "padding=0"),
        ("embedding, 1, bias=False)", "embedding, 1)"),
        ("nn.AdaptiveMaxPool1d(1) if", "nn.AdaptiveAvgPool1d(1) if"),
        ('if norm == "batch":', 'if norm == "batch" and i > 1:'),
    ],
    "networks/plain_cnn.py": [
        ('_each("padding", padding, len(maps), 0)', '_each("padding", "1", len(maps), 0)'),
        ("nn.MaxPool2d(pool)", "nn.MaxPool2d(pool, ceil_mode=True)"),
        ("kernel, stride, rim, norm)", "kernel, stride, rim)"),
        ("nn.Dropout(dropout)", "nn.Dropout(0.1)"),
    ],
}

# what they stand on: (file, old text, new text, pytest's -k)
CORE = [
    (
        "networks/common/blocks.py",
        "- kernel + 2 * padding) // stride + 1",
        "- kernel + padding) // stride + 1",
        "lectures",
    ),
    ("networks/common/blocks.py", "min(stride, 2))", "1)", "lectures"),
    ("networks/common/blocks.py", "nn.GroupNorm(1, maps)", "nn.GroupNorm(maps, maps)", "plain_cnn"),
    ("networks/common/blocks.py", 'nonlinearity="relu"', 'nonlinearity="linear"', "begin_as_he"),
    ("networks/common/blocks.py", "if classes < 1:", "if False:", "refuses_what_it_cannot_be"),
    ("networks/common/residual.py", 'if version == "1" else', 'if version != "1" else', "resnet"),
    (
        "networks/common/residual.py",
        "self.relu(self.branch(x) + self.shortcut(x))",
        "self.branch(x) + self.shortcut(x)",
        "resnet",
    ),
    ("networks/common/residual.py", "nn.AvgPool2d(1, stride)", "nn.AvgPool2d(stride, stride)", "resnet"),
    ("networks/common/residual.py", "sigmoid=nn.Sigmoid()", "sigmoid=nn.Hardsigmoid()", "se_resnet"),
    ("models/architectures.py", "with_options(**options)", "with_options()", "options_beside_the_spelling"),
    (
        "models/architectures.py",
        "in catalogue(folder):\n            return folder",
        'in catalogue(folder) or ".py" in name:\n            return folder',
        "other_names_are_refused",
    ),
    ("models/architectures.py", "    if fetch is not None:\n", "    if False:\n", "no_pretrained_weights"),
    (
        "models/model_words.py",
        '("timm:", "torchvision:", "clearsight:")',
        '("timm:", "torchvision:")',
        "loaded_by_name",
    ),
    (
        "models/architectures.py",
        "(0.5,) * channels, (0.5,) * channels)",
        "(0.0,) * channels, (0.5,) * channels)",
        "paper_s_input",
    ),
    ("models/architectures.py", "imagenet() if classes == 1000 else", "imagenet() if False else", "paper_s_input"),
]
