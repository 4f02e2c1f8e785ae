"""How the guard, what surrounds a call, types and parts of outputs are broken on purpose."""

# (file below src/clearsight, old text, new text, pytest's -k)
CORE = [
    ("undoing.py", "            failed.append(e)\n", "            return [e]\n", "whatever_step_back"),
    ("guard.py", '("_parameters", "_buffers", "_modules")', '("_parameters", "_buffers")', "exchanged"),
    ("guard.py", "m._modules[name] = before", "pass", "compiled_before or torch_made"),
    ("guard.py", "if _trains_for_good(m):", "if False:", "recorded_in_training_mode"),
    ("guard.py", 'and not hasattr(m, "training")', "and False", "frozen_torchscript"),
    ("guard.py", "        p.data = was\n", "        pass\n", "data_that_was_exchanged"),
    ("surroundings.py", "torch.set_default_dtype(torch.float32)", "pass", "stands_around and pgd"),
    ("surroundings.py", "if torch.is_autocast_enabled(kind):", "if False:", "stands_around and layer-cam"),
    (
        "surroundings.py",
        "function(*args) if _is_inside() else apply",
        "function(*args) if True else apply",
        "another_thread",
    ),
    ("surroundings.py", "setattr(checkpoint, name, _plain(generator))", "pass", "without_checkpointing and stages2"),
    (
        "surroundings.py",
        "CheckpointFunction.apply = staticmethod(applied)",
        "CheckpointFunction.apply = apply",
        "stands_inside",
    ),
    ("surroundings.py", 'set_stance("force_eager")', 'set_stance("default")', "torch_made"),
    (
        "classifier.py",
        "            z.register_hook(refuse)",
        "            pass",
        "explainers_of_networks",
    ),
    ("classifier.py", "            out.register_hook(refuse_small)", "            pass", "slope_that"),
    ("classifier.py", 'name.replace("_orig_mod.", "")', "name", "compiled_before"),
    ("graph.py", "wanted = model.logits(z.clone())", "wanted = model.logits(z)", "write_into"),
    ("graph.py", "    if coarse is not None:\n", "    if False:\n", "every_type and lrp"),
    ("layers.py", "    why = in_script(model.net, layer)\n", '    why = ""\n', "layer_in_torchscript"),
    ("outputs.py", "    own = _part(out, output)\n", "    own: list[Any] = []\n", "as_if_it_were_all"),
    ("outputs.py", "if len({id(part) for part in found}) > 1:", "if False:", "several_parts"),
    (
        "outputs.py",
        "rows = [path for path, t in known if t.dim() == 2]",
        "rows = [path for path, _ in known]",
        "rows_of",
    ),
    ("passes.py", "if passes.of is net:", "if False:", "as_if_it_were_all"),
    (
        "dryrun.py",
        "return model.returned(model.normalised(x))",
        "return model.net(model.normalised(x))",
        "says_of_types",
    ),
    ("forwards.py", "if isinstance(e, TypeError) and", "if False and", "wants_more"),
]
