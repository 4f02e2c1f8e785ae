"""How the ways of running a network on patches alone are broken on purpose."""

# (file, old text, new text, pytest's -k)
CORE = (
    [
        ("internals/patch_rules.py", old, new, "test_patch")
        for old, new in (
            ("first = -((reach - changed.starts - padding) // stride)", "first = (changed.starts + padding) // stride"),
            ("torch.tensor(changed.sides) - 1 + padding) // stride", "torch.tensor(changed.sides) - 1) // stride"),
            ("torch.tensor(sliding.dilation) * (torch.tensor(sliding.kernel) - 1)", "torch.tensor(sliding.kernel) - 1"),
            ("boxes.starts * stride - padding", "boxes.starts * stride"),
            ("boxes[n].starts for n in moving]).amin(0)", "boxes[n].starts for n in moving]).amax(0)"),
            (
                "torch.tensor(known.boxes[n].sides) for n in moving]).amax(0)",
                "torch.tensor(known.boxes[n].sides) for n in moving]).amin(0)",
            ),
            ("return Boxes(first.minimum(out - sides), _two(sides))", "return Boxes(first, _two(sides))"),
            ("first.clamp_min(0).minimum(out - 1)", "first"),
            ("_two(dilation), -inf)", "_two(dilation), 0.0)"),
            ("(pads[2], pads[0])", "(pads[0], pads[2])"),
            ("_two(stride or kernel), _two(padding))", "_two(kernel), _two(padding))"),
            ("if ceil or not (padding_counts or sliding.padding == (0, 0)):", "if False:"),
            ("if transposed or moving != [source]:", "if False:"),
            ("all(side == 1 for side in v.shape[-2:])", "True"),
            ("known.shapes[n][2:] != sides for n in moving", "False for n in moving"),
            ('("clone", "_to_copy", "alias", "detach")', "()"),
            ("node.args[1] in (1, -3)", "node.args[1] == 0"),
            ("if node.target is affine:", "if False:"),
        )
    ]
    + [
        ("internals/patch_plan.py", old, new, "test_patch")
        for old, new in (
            ("if any(word(n) in PAIRS for n in handed if n is not known.graph.start):", "if False:"),
            ("if not read.is_same(boxes[n])} | set(handed)", "if not read.is_same(boxes[n])}"),
            ("work += CALL + ELEMENT * shapes[source][1] * prod(read.sides)", "work += 10**9"),
            ("after -= whole[i - 1]", "pass"),
        )
    ]
    + [
        ("internals/forward_with_patch.py", old, new, "test_patch")
        for old, new in (
            ("out.fill_(fill)", "out.fill_(0.0)"),
            ("_put(box, patch, row - top, column - left)", "_put(box, patch, column - left, row - top)"),
            ("_put(box, patch, row - top, column - left)", "pass"),
            ("if row not in values:", "if not values:"),
            ("windows[rows == row], inside[rows == row]", "windows[rows == row], inside[: (rows == row).sum()]"),
            ("inside = model.normalised(patches)", "inside = (patches)"),
            ("passes.note(len(rows))", "pass"),
            ("first_pass.note(model.net, x, logits)", "pass"),
            ("if not _worth_recording(model, x, times):", "if False:"),
            ("isinstance(module, _ConvNd | _BatchNorm) and", "True and"),
            ("and prod(module_run.shape[2:]) > 1", "or True"),
            ("plan.share <= MOST and", "True and"),
            ("and _agrees(model, x[:1], starts, plan)", "and True"),
            ("if x.dim() != 4 or", "if"),
            ("or times * (1 - MOST) < PLAN", "or False"),
            ("    except Refused:\n", "    except ZeroDivisionError:\n"),
        )
    ]
)
