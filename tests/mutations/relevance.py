"""How relevance propagation, and the recorded network that it walks, are broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "explainers/lrp.py": [
        ("return r.sum(1)", "return r.mean(1)"),
        ("if size < 0 or strength < 0 or alpha < 1:", "if False:"),
        ("dense = epsilon(max(size, 1e-9))", "dense = epsilon()"),
        ("mixed = alpha_beta(alpha)", "mixed = alpha_beta(2.0)"),
        ('"epsilon-plus-flat": Rules(flat, positive, dense)', '"epsilon-plus-flat": Rules(flat, positive, positive)'),
        ('"epsilon-plus-box": Rules(box, positive, dense)', '"epsilon-plus-box": Rules(flat, positive, dense)'),
        ("Rules(box, gamma(strength), dense)", "Rules(box, gamma(0.25), dense)"),
        ("Rules(dense, dense, dense, by_sign=False)", "Rules(dense, dense, dense)"),
        ('"plus": Rules(positive, positive, positive)', '"plus": Rules(positive, positive, positive, by_sign=False)'),
    ],
    "explainers/contrastive_lrp.py": [
        ("return r.sum(1).relu()", "return r.sum(1)"),
        ("return r.sum(1).relu()", "return r.relu().sum(1)"),
        ("keepdim=True).abs()", "keepdim=True)"),
        ("/ (logits.shape[1] - 1)", "/ logits.shape[1]"),
        ('if kind == "clrp1" else 0', 'if kind == "clrp2" else 0'),
        ('against_itself if kind == "clrp2" else None', "None"),
        ("Rules(box, positive, positive,", "Rules(positive, positive, positive,"),
        ("return share - opposite", "return share + opposite"),
    ],
    "explainers/rap.py": [("return r.sum(1)", "return r.mean(1)")],  # the others below: "rap" is in many a word
    "explainers/relevance_cam.py": [
        ("chosen - (1 - chosen) / classes", "chosen - (1 - chosen) / (classes - 1)"),
        ("chosen - (1 - chosen) / classes", "chosen"),
        ("(a * r.mean(tuple(range(2, r.dim())), keepdim=True))", "(a * r)"),
        ("(a * r.mean(", "(a.relu() * r.mean("),
        ("by_sign=False", "by_sign=True"),
        ("single(enlarge(cam, x.shape[2:]))", "single(enlarge(cam.relu(), x.shape[2:]))"),
    ],
}

_RULES, _GRAPH = "test_lrp or test_relevance", "test_graph"
_RAP = "test_relevance and rap"

# what the methods stand on: (file, old text, new text, pytest's -k)
CORE = (
    [
        ("explainers/common/lrp_rules.py", old, new, _RULES)
        for old, new in (
            ("torch.add(away, z, out=over(away))", "z + smallest(z, share)"),
            ("max(1e-20, torch.finfo(z.dtype).tiny)", "torch.finfo(z.dtype).tiny"),
            ("norm * (share / math.sqrt(max(z[0].numel(), 1)))", "share"),
            ("(op.z - op.bias).mul_(s)", "op.z * s"),
            ("up, kept_up = positive(op, alpha * r)", "up, kept_up = positive(op, r)"),
            ("positive(negated(op), (alpha - 1) * r)", "positive(op, (alpha - 1) * r)"),
            ("        bias=-op.bias,\n", ""),
            ("z += op.forward(*part)", "pass"),
            ("share.addcmul_(op.back(s, change), x)", "pass"),
            ("positive_total(op).add_(bias)", "positive_total(op)"),
            ("    bias = op.bias.clamp(min=0)\n", "    bias = op.bias\n"),
            ("self.follows_relu or not self.x.numel() or bool(self.x.amin() >= 0)", "True"),
            (".add_(op.z).sub_(op.bias).mul_(0.5)", ".add_(op.z).mul_(0.5)"),
            ("if not op.rectified or op.is_nonnegative:", "if True:"),
            ("kept_by(op, s, bias + size)", "kept_by(op, s, size)"),
            (".mul_(channels)", ""),
            ("(op.x.clamp(max=0), for_negative)]", "(op.x.clamp(max=0), for_positive)]"),
            ("is_positive = op.z >= 0", "is_positive = op.z >= -1e9"),
            ("plain + size * (plain - favoured)", "plain + size * favoured"),
            ("op.bias.clamp(min=0), op.bias.clamp(max=0)) * size + op.bias", "op.bias, op.bias) * 0 + op.bias"),
            ("signed_parts(op, more_down, more_up)", "signed_parts(op, more_up, more_down)"),
            ("torch.ones_like(one.x), torch.ones_like)", "one.x.abs(), torch.ones_like)"),
            ("(op.x - high, negative_part)", "(op.x - low, negative_part)"),
            ("[(op.x.abs(), torch.abs)]", "[(op.x.abs(), positive_part)]"),
        )
    ]
    + [
        ("explainers/common/lrp_walk.py", old, new, _RULES)
        for old, new in (
            ("self.kept + kept", "self.kept"),
            ("not bool((residual.abs() <= LOST).all())", "False"),
            ("not bool((residual.abs() <= LOST).all())", "bool((residual.abs() > LOST).any())"),
            ("walk.kept / whole * put_in.sign()", "walk.kept / whole"),
            ("return slope(target, logits) * logits", "return slope(target, logits)"),
            ("logits / logits.abs().amax(1, keepdim=True).clamp_min(1e-12)", "logits"),
            ("r.reshape(args[0].shape)", "r.reshape(args[0].shape) * 0.9"),
            ("/ math.prod(x.shape[axis] for axis in over)", ""),
            ("for axis in () if keepdim else over:", "for axis in ():"),
            ("share += part @ changed_block(block, change).mT", "pass"),
            ("changing(block, change) if times == 1 else change(block * times)", "changing(block, change)"),
            ("w.numel() > KEPT:", "w.numel() > 10 * KEPT:"),
            ("w.storage_offset(), w.shape, change", "w.storage_offset(), change"),
            ("if rest[-1] == 1 and not rest[3]:", "if not rest[3]:"),
            ("all(n in found for n in node", "any(n in found for n in node"),
            ("if is_new and not batches:", "if False:"),
            ("for level in (0.0, 1.0))", "for level in (-1.0, 1.0))"),
            ("((level - mean) / std)", "(level - mean)"),
            ("rules.dense if _is_dense(node, op, walk.pictures) else rules.conv", "rules.conv"),
            ("        rule = rules.first\n", "        pass\n"),
            ("if word(node) in _LINEAR and node not in before:", "if node is graph.end:"),
            ('(-1 if word(node) == "sub" else 1)', "1"),
            ("out = z if part is x else run(part)", "out = z"),
            ("if walk.rules.by_sign:", "if True:"),
            ("if walk.rules.by_sign and bool((x < 0).any())", "if bool((x < 0).any())"),
            ("if walk.rules.by_sign and bool((x < 0).any()) and bool((x > 0).any()):", "if False:"),
            ("    walk.absorb(walk.each(r) - walk.each(s * z))\n", "    s = s * 0.5\n"),
            ("if ranks[0] > ranks[1] else", "if ranks[0] < ranks[1] else"),
        )
    ]
    + [
        ("explainers/common/one_output.py", old, new, "test_one_output")
        for old, new in (
            ("    target(outputs)  # which", "    pass  # which"),
            (" or type(target).__call__ is not ClassScore.__call__", ""),
            ("return target.of in _AS_THEY_ARE", "return True"),
            ("index[:, None], 1.0)", "index[:, None], 2.0)"),
        )
    ]
    + [
        ("explainers/rap.py", old, new, _RAP)
        for old, new in (
            ("Rules(box, relative", "Rules(relative, relative"),
            ("last=lambda _rule: influence", "last=None"),
            ("positive_part, negative_part), r / stable(z))", "positive_part, positive_part), r / stable(z))"),
            ("both = z * 2 - ", "both = z - "),
            ("r / stable(z))\n    share -=", "0 * r / stable(z))\n    share -="),
            ("share.add_(each).mul_(nonzero)", "share.add_(each)"),
            ("share.add_(each).mul_(nonzero)", "share"),
            ("came * (number == 0)", "came * 0"),
        )
    ]
    + [
        ("internals/graph.py", old, new, _GRAPH)
        for old, new in (
            ("for at, t in storages.items() if at not in counted)", "for at, t in storages.items())"),
            ("copies * total + work * new", "total + work * new"),
            ("copies * total + work * new", "copies * total"),
            ("return self.fixed + self.each * pictures", "return self.fixed + self.each * 2"),
        )
    ]
    + [
        ("internals/recording.py", old, new, _GRAPH)
        for old, new in (
            ("known is not None and known.weights == weights and", "known is not None and"),
            (
                "known.weights == weights and _same_logits(known.graph(z), wanted, known.close)",
                "known.weights == weights",
            ),
            ("if known is not None and known.weights", "if False and known.weights"),
            ("graphs[(*run, fold)] = _Bound(graph, weights, _SAME)", "pass"),
            ("if key in recordings:", "if False:"),
            ("with uncollected():", "if True:"),
            ("if _same_logits(graph(z), wanted, _SAME_AGAIN):", "if True:"),
            ("_SAME_AGAIN = 1e-4", "_SAME_AGAIN = 1e-1"),
            ("while len(recordings) > _KEPT:", "while False:"),
            ("if _place(tensor) in name_of:", "if False:"),
            ("return (likeness(net).key, *run)", "return run"),
            ("x.device, layer, model.reading", "x.device, '', model.reading"),
            ("(*run, fold)] =", "(*run, True)] ="),
            ("    if not _same_logits(graph(z), wanted, _SAME):\n", "    if False:\n"),
            ("if isinstance(e.__cause__, ValueNeededError):", "if False:"),
            ("not torch.equal(a, b)", "False"),
            ("if len(two.graph.nodes) != len(three.graph.nodes):", "if False:"),
        )
    ]
    + [
        ("internals/tape.py", old, new, _GRAPH)
        for old, new in (
            ("with tape, _Calls():", "with tape:"),
            ("return into if out is into else into.copy_(out)", "return out"),
            ("else args[0].copy_(instead(*args, **kwargs))", "else instead(*args, **kwargs)"),
            ("if packet is None or not any(", "if packet is None or any("),
            (
                "self.nodes.put(value, node)",
                "self.nodes.put(value, node); self.attributes[f'v{len(self.nodes)}'] = value",
            ),
            ("func.tags and self.any_moving(nodes):", "func.tags:"),
            ("func.tags and self.any_moving(nodes):", "():"),
        )
    ]
    + [
        ("internals/graph_rewrites.py", old, new, _GRAPH)
        for old, new in (
            ("if torch.Tag.nondeterministic_seeded in", "if torch.Tag.core in () and"),
            ("if target is aten.copy.default:", "if False:"),
            ("if len(marked) > 1:", "if False:"),
            (
                'if word(node) != "convolution" or len(node.users) != 1 or node.args[6]:',
                'if word(node) != "convolution" or node.args[6]:',
            ),
            (
                'if word(node) != "convolution" or len(node.users) != 1 or node.args[6]:',
                'if word(node) != "convolution" or len(node.users) != 1:',
            ),
            ("or node.args[3] is None:", "or False:"),
            ("(var + eps).rsqrt()", "var.rsqrt()"),
            ("return -mean * scale + (0 if beta is None else beta)", "return -mean * scale"),
            ("return bias * scale + shift", "return bias + shift"),
            ("shift if bias is None else call(_scaled_bias, bias, scale, shift)", "shift"),
            ("if end not in moving:", "if False:"),
            ("if _has_a_size(node) or not growing", "if not growing"),
            ("if _has_a_size(node) or not growing.isdisjoint(node.all_input_nodes):", "if _has_a_size(node):"),
            ("kind_of(node) == kind_of(source)", "True"),
        )
    ]
)
CORE += [("internals/graph_rewrites.py", 'if word(node) == "as_strided_":', "if False:", "channels_last")]
CORE += [
    (
        "core/weight_digest.py",
        ", *buffers_joined, ",
        ", ",
        _GRAPH,
    )
]
