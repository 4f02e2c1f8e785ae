"""How D-RISE is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "explainers/d_rise.py": [
        ("(sums.map(centred=centre) / keep)", "sums.map(centred=centre)"),
        ("(sums.map(centred=centre)", "(sums.map(centred=not centre)"),
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
    ("explainers/common/grid_masks.py", "< self.keep).to", "> self.keep).to", "rise"),
    (
        "explainers/common/grid_masks.py",
        "chance[:, -len(grid) :] * like.new_tensor(cell)",
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
    ("runner/sharded.py", "while share and", "while False and", "rise"),
    ("internals/fused_forward.py", "pictures >= PAYS or", "True or", "fused_forward"),
    ("internals/fused_forward.py", "except Refused:", "except ZeroDivisionError:", "fused_forward"),
    (
        "internals/fused_forward.py",
        " if outputs.dim() == 3 else outputs.abs().max()",
        " if False else outputs.abs().max()",
        "fused_forward",
    ),
]
