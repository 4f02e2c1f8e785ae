"""How every feature, and what they stand on, is broken on purpose."""

METHODS = {
    "visualisations/activations.py": [
        ("caught.preactivation.flatten(2).amax(2)", "caught.preactivation.flatten(2).mean(2)"),
        ("argsort(descending=True, stable=True)[:channels]", "argsort(stable=True)[:channels]"),
        ("a = caught.out[i, u]", "a = caught.out[0, u]"),
    ],
    "visualisations/patches.py": [
        ("> overlap for", "> 2 for"),
        ("flat.flatten().argsort(descending=True", "flat.flatten().argsort(descending=False"),
        ("fields.append(field)", "fields.append((0, 0, *reversed(inside.model.preprocess.size)))"),
        ("return max(wide, 0) * max(high, 0) / smaller", "return wide * high / smaller"),
    ],
    "visualisations/visualise.py": [
        ("waves.grad = -g", "waves.grad = g"),
        ("inside: Tensor = x.sigmoid()", "inside: Tensor = x"),
        ('f"visualise {what}"):', "str(torch.rand(1))):"),
        ("(0.01, 0.1, 1.0, 10.0)", "(0.01,)"),
        (' norm="ortho")', ' norm="backward")'),
        ("inside.model(x)[:, k]", "inside.model(x)[:, 0]"),
        ("response(noise).max()", "response(x).max()"),
        ("inside.model.chances(inside.model(", "torch.sigmoid(inside.model("),
        ("_WORDS.get(inside.model.scores, _CLASS)", "_CLASS"),
    ],
    "visualisations/neighbours.py": [
        ("argsort(descending=True, stable=True)", "argsort(stable=True)"),
        ("likeness[i] = -torch.inf", "pass"),
        ("label[closest(part, i, 1)[0][0]] == label[i]", "True"),
    ],
    "visualisations/embedding.py": [
        ("return [rank[c] for c in labels]", "return [i % k for i in range(len(labels))]"),
        ("layout - low) / np.maximum(high - low, 1e-12)", "layout)"),
        (
            "agreeing, labelled = agreeing + count, labelled + sum(label_counts.values())",
            "agreeing, labelled = agreeing + 1, labelled + 1",
        ),
        ("push = over[axis] / 2", "push = 0 * over[axis]"),
    ],
    "visualisations/factors.py": [
        ("        1 - unexplained,", "        unexplained,"),
        ("mass = w.sum(0) * h.sum(1)", "mass = w.sum(0)"),
        ("np.argsort(-mass", "np.argsort(mass"),
        ("values.to(model.device).contiguous()", "values.to(model.device).flip(1).contiguous()"),
        ("if not everything_passes(model, x, layer):", "if False:"),
        ("count = int((sizes > 1e-6 * sizes[0]).sum())", "count = len(sizes)"),
    ],
    "visualisations/dissection.py": [
        ("(self.high + self.concept[c] - self.both[c])", "(self.high + self.concept[c])"),
        ("large >= level", "large > level"),
        ("round(quantile * places * len(used))", "round(0.5 * quantile * places * len(used))"),
        (
            "((own_masks, overlap), (next_masks, control)):\n            into",
            "((own_masks, overlap), (own_masks, control)):\n            into",
        ),
        ('mode="bilinear", align_corners=False', 'mode="nearest"'),
        ("if best[u] > iou]", "if best[u] > -1]"),
    ],
}

CORE = [
    (
        "internals/capture.py",
        "last_squashing[0][1] if last_squashing and last_squashing[0][0] is out else copy",
        "copy",
        "driven",
    ),
    ("internals/capture.py", "copy = out.clone()", "copy = out", "driven"),
    ("internals/capture.py", "columns[-1] + 1", "columns[-1]", "receptive"),
    (
        "feature_report/report.py",
        "values, rows = values[:most], rows.gather(0, order[:most])",
        "values = values[:most]",
        "best_of_many",
    ),
    (
        "feature_report/report.py",
        "values.sort(dim=0, descending=True",
        "values.sort(dim=0, descending=False",
        "best_of_many",
    ),
    ("feature_report/report.py", "if not 0 <= u < count", "if not 0 <= u <= count + 9", "refused and features"),
    ("feature_report/report.py", '            if name != "auto":', "            if False:", "test_refused"),
    (
        "reporting/page_template.py",
        "autoescape=True",
        "autoescape=False",
        "data_is_markup and features",
    ),
    ("feature_report/html.py", 'Markup("<wbr>").join(', 'Markup("").join(', "headings_break"),
    ("reporting/pages.py", 'f"~{ord(m[0]):x}~"', '"-"', "pages"),
]
