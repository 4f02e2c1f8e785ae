"""How training that continues, resists attacks and follows annotations is broken on purpose."""

CORE = [
    ("training/continued.py", 'split=part or "train"', 'split="train"', "stay_in_their_parts"),
    ("training/continued.py", "first_head=False", "first_head=recipe.first_head", "is_taken_from_it"),
    ("training/continued.py", "label not in labels", "False", "does_not_know"),
    ("training/continued.py", "name in non_default(recipe)", "False", "does_not_go_with_a_run"),
    ("training/run.py", "self.history[-1].collapsed", "False", "goes_back_and_ends"),
    ("training/recipe.py", "bool(recipe.perturb) and not recipe.overfitting_guard", "False", "the_guard_the_last"),
    (
        "training/history.py",
        "return (epoch.robust_right or 0, (epoch",
        "return (0, (epoch",
        "goes_back_and_ends",
    ),
    ("core/evaluation_mode.py", "    net.eval()\n", "", "in_evaluation_mode"),
    ("core/evaluation_mode.py", "            m.training = training\n", "            pass\n", "in_evaluation_mode"),
    ("training/perturb.py", "call = call.with_options(early_stop=False)", "pass", "goes_on_when_a_picture"),
    ("runner/augment.py", "size, seed, drawn_for=x)", "size, seed)", "move_as_their_pictures"),
    ("runner/augment.py", 'and "moves" in call.method.claims', "", "leaves_its_annotation or move_as_their_pictures"),
    ("training/guidance.py", "~_inside(picture)", "_inside(picture)", "a_box_lies"),
    ("training/guidance.py", "if read.left_out:", "if False:", "even_if_others_are_right"),
    ("training/losses.py", "penalties.masked_fill(~annotated, 0.0)", "penalties", "without_annotation"),
    ("auditing/mending.py", '"--from", str(folder)', '"--weights", str(folder)', "quotes_the_training"),
    ("guides/counterexamples.py", "order.roll(1)[order.argsort()]", "order", "counterexamples"),
    ("guides/counterexamples.py", "inside * x + (1 - inside) * x[other]", "x", "counterexamples"),
]
