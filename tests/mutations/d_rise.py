"""How D-RISE is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "explainers/d_rise.py": [
        ("(found / keep)", "found"),
        (
            "found, error = sums.estimate(centred=centre)\n            maps",
            "found, error = sums.estimate(centred=not centre)\n            maps",
        ),
        ("control=control and keep < 1", "control=False"),
        (
            "target[rows], sureness",
            "target[rows].__class__(target.boxes[:1].expand(len(rows), 4), target.classes[rows]), sureness",
        ),
        ("rows.setdefault(hashlib", "rows.setdefault(bytes(str(i), 'ascii') + hashlib"),
        ("mask[:, None] * (picture - cover)", "mask[:, None] * picture"),
        (
            "(chances.argmax(1) == classes)[:, None], chances, alone",
            "(chances.argmax(1) == classes)[:, None], chances, chances",
        ),
        ("nn.functional.normalize(chances, dim=2)", "chances"),
        ("sure = sure * chances.amax(2)", "pass"),
        ("sure[..., None]).amax(1)", "sure[..., None]).sum(1)"),
        ("<= stop).all()", "> stop).all()"),
        ("or stop < 0", ""),
        ("fused_forward(model, x[:1], masks * len(together))", "fused_forward(model, x[:1], 0)"),
        ("scores-only shares-passes", "scores-only"),
        ("torch.split(torch.tensor(them), most)", "torch.split(torch.tensor(them), len(x))"),
    ],
}

# what they stand on: (file, old text, new text, pytest's -k)
CORE = [
    ("explainers/common/grid_masks.py", "(n + 1) * c", "n * c + 1", "rise"),
    ("explainers/common/grid_masks.py", "< self.keep).view", "> self.keep).view", "rise"),
    (
        "explainers/common/grid_masks.py",
        "chance[:, -len(grid) :] * like.new_tensor(self._cell)",
        "chance[:, -len(grid) :] * 0",
        "rise",
    ),
    ("explainers/common/mask_sums.py", "if centred:\n            total", "if not centred:\n            total", "rise"),
    ("explainers/common/mask_sums.py", "4 * a * b * sm", "2 * a * b * sm", "rise"),
    ("explainers/common/mask_sums.py", "/ max(n - 1, 1)", "", "rise"),
    ("explainers/common/mask_sums.py", "(mask, mask.square())", "(mask, mask)", "rise"),
    (
        "explainers/common/mask_sums.py",
        "        self._add_held()\n        n = self.masks",
        "        n = self.masks",
        "rise",
    ),
    ("explainers/common/mask_sums.py", "self._held.clear()", "pass", "rise"),
    ("explainers/common/linear_control.py", " / (1 - ((z @ inverse) * z).sum(1))[:, None]", "", "rise"),
    ("explainers/common/linear_control.py", "slopes - inverse @ (z.mT @ rest) / len(z)", "slopes", "rise"),
    ("explainers/common/linear_control.py", "penalty = gram.trace() / len(z)", "penalty = gram.trace()", "rise"),
    ("explainers/common/linear_control.py", "rest + middle", "rest", "rise"),
    (
        "explainers/common/linear_control.py",
        "found + self.grid.mean_product(",
        "found - self.grid.mean_product(",
        "rise",
    ),
    ("explainers/common/linear_control.py", "self._slopes + len(kept) * slopes", "len(kept) * slopes", "rise"),
    ("explainers/common/linear_control.py", "            self._held.clear()\n", "", "rise"),
    ("explainers/common/linear_control.py", "math.ceil(masks / math.ceil(masks / MOST))", "MOST", "rise"),
    ("explainers/common/grid_masks.py", "self.keep * (1 - self.keep) * product", "self.keep * product", "rise"),
    ("explainers/common/grid_masks.py", "[:, :cell]  # (cells, shifts", "[:, :1]  # (cells, shifts", "rise"),
    ("explainers/common/grid_masks.py", "return means - self.keep", "return means", "rise"),
    ("runner/sharded.py", "while share and", "while False and", "rise"),
    ("internals/fused_forward.py", "usual and pictures >= PAYS", "pictures >= PAYS", "fused_forward"),
    ("internals/fused_forward.py", "except Refused:", "except ZeroDivisionError:", "fused_forward"),
    (
        "internals/fused_forward.py",
        " if outputs.dim() == 3 else outputs.abs().max()",
        " if False else outputs.abs().max()",
        "fused_forward",
    ),
]
