"""How guides, and the graph that they keep, are broken on purpose: (file, old text, new text, pytest's -k)."""

METHODS = {
    "guides/right_reasons.py": [
        ("steep.log1p() if logarithm", "steep if logarithm"),
        ("((1 - inside) * slope)", "(inside * slope)"),
        ("create_graph=True", "create_graph=False"),
        (".log_softmax(1).sum()", ".sum()"),
    ],
    "guides/energy.py": [
        (".relu()", ".abs()"),
        ("(1 - inside[:, 0])", "inside[:, 0]"),
        ("positive.flatten(1).sum(1)", "positive.detach().flatten(1).sum(1)"),
    ],
    "guides/cam_loss.py": [
        (".square().flatten(1).mean(1)", ".flatten(1).mean(1)"),
        (".flatten(1).mean(1)", ".flatten(1).sum(1)"),
        ("cam = of_largest(class_activation(step, x, y, layer))", "cam = class_activation(step, x, y, layer)"),
    ],
    "guides/gain.py": [
        ("left = 1 - (", "left = ("),
        ("mining * (chances", "(chances"),
        ("supervision * off +", "off +"),
        ("with statistics_held(step.model.net):", "if True:"),
    ],
    "guides/res.py": [
        ("(hard - slack).relu()", "hard"),
        ("_to_one(_blurred(wanted))", "wanted"),
        ("(2 * wanted - 1)", "wanted"),
        ("maps.detach().flatten(1).sort(1, descending=True)", "maps.detach().flatten(1).sort(1)"),
    ],
    "guides/attention_prior.py": [
        ("2 * width**2", "width**2"),
        ("if inside.shape[i] > 1", "if True"),
        ("inside > 0.5", "inside > 2"),
        ("torch.where(far < _FAR / 2, far, 0.0)", "far"),
        ("                break\n", "                return far\n"),
        ("[marked] > apart", "[marked] < apart"),
        ("far.amin(axis) < _FAR / 2  #", "far.amin(axis) < 0  #"),
        ("((0, k), (k, 0))", "((0, k),)"),
    ],
}

CORE = [
    ("internals/layers.py", "create_graph=is_kept()", "create_graph=False", "guide"),
    ("internals/layers.py", "return held(a), g", "return a.detach(), g", "guide"),
    ("internals/layers.py", "target(model(held(x)))", "target(model(x.detach()))", "guide"),
    ("internals/layers.py", "as_maps(held(out), places)", "as_maps(out.detach(), places)", "guide"),
    ("internals/kept_graph.py", "return t if _kept.get() else t.detach()", "return t", "keeps_no_graph"),
    ("internals/kept_graph.py", "CLAIM in call.method.claims", "True", "refused_by_name"),
    ("explainers/common/inner_method.py", "    must_learn(call)\n", "", "inner_method"),
    ("explainers/common/inner_method.py", "return held(maps)", "return maps.detach()", "learnable"),
    ("explainers/cam.py", "return held(caught[0]), g", "return caught[0].detach(), g", "learnable"),
    ("core/training_step.py", "            self._last.clear()\n", "            pass\n", "guide"),
    ("core/training_step.py", " and torch.is_grad_enabled()", "", "learnable"),
    ("core/running_statistics.py", "m.track_running_stats = False", "pass", "leave_nothing"),
    ("internals/twice_differentiable.py", "default(g, v, weight", "default(v, v, weight", "cheap"),
    ("internals/twice_differentiable.py", "isinstance(getattr(node", "isinstance(str(node", "reach_parameters"),
    ("internals/twice_differentiable.py", "- size * both", "", "batchnorm_are"),
    ("internals/twice_differentiable.py", "if not training or bias", "if True or bias", "forms_are_those"),
    ("internals/twice_differentiable.py", "and x.requires_grad and", "and", "forms_are_those"),
    ("training/guided_memory.py", "each * len(x) > free", "False", "keeps_is_counted"),
    ("training/guided_memory.py", "            b.copy_(before)", "            pass", "counting_leaves"),
    ("core/free_memory.py", 'limit - used + int(rows.get("inactive_file", 0))', "limit - used", "control_group"),
]  # fmt: skip
