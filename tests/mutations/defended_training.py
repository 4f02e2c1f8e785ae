"""How training that continues, resists attacks and follows annotations is broken on purpose."""

METHODS = {
    "guides/counterexamples.py": [
        ("order.roll(1)[order.argsort()]", "order"),
        ("inside * x + (1 - inside) * x[other]", "x"),
        ("    with statistics_held(step.model.net):\n        return", "    if True:\n        return"),
    ],
}

CORE = [
    ("training/continued.py", 'split=part or "train"', 'split="train"', "stay_in_their_parts"),
    ("training/continued.py", "first_head=False", "first_head=recipe.first_head", "is_taken_from_it"),
    ("training/continued.py", "label not in labels", "False", "does_not_know"),
    ("training/continued.py", "name in non_default(recipe)", "False", "does_not_go_with_a_run"),
    ("training/cross_validation.py", "recipe.from_run is not None", "False", "folds_do_not_go"),
    (
        "training/preparation.py",
        "        refuse_other_kind(pictures, source.config.preprocess)\n",
        "",
        "run_of_the_other_kind",
    ),
    ("training/preparation.py", "    refuse_other_inputs(run_recipe, pictures.are_texts)\n", "", "that_do_not_exist"),
    ("training/perturb.py", "eps == 0 or", "False or", "that_do_not_exist"),
    ("internals/input_convolution.py", 'not torch.is_autocast_enabled("cpu")', "True", "in_bf16"),
    ("auditing/mending.py", '*columns_of(command), "--from"', '"--from"', "quotes_the_same_training"),
    (
        "comparing/sources.py",
        'if {"text", "label", "split"} <= {*columns}',
        "if False",
        "of_texts_are_compared",
    ),
    ("data/annotations.py", "hits = ends if len(ends) == 1 else hits", "pass", "are_matched_by_path"),
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
    ("training/guidance.py", "places if self.inside else 255 - places", "places", "may_look_is_its_marks"),
    ("training/batches.py", "y, self._places(rows, pictures)", "y, None", "guided_by_their_marks"),
    ("training/continued.py", "else picture.text", "else picture.name", "guided_by_their_marks"),
    ("training/objective.py", 'norm == "characters" and defence', "False and defence", "go_with_texts"),
    ("training/trial_guide.py", "    fits_regions(calls)\n", "", "that_the_run_had"),
    ("auditing/text_robustness.py", "character-substitution(eps={characters})'\"", "pgd'\"", "goes_with_texts"),
]
