"""How the loading and the looking at detectors and segmenters is broken on purpose."""

# (file, old text, new text, pytest's -k)
CORE = [
    ("models/weights.py", "{k: state[k] for k in (*differ, *others)} | placed", "state", "names_of_now_and_of_before"),
    ("models/weights.py", "shape[0] // numbers - background", "shape[0] // numbers", "names_of_now_and_of_before"),
    (
        "models/torchvision_kinds.py",
        "names[1:] if name in DETECTORS",
        "names if name in DETECTORS",
        "names_the_classes",
    ),
    (
        "models/torchvision_kinds.py",
        "hexdigest().startswith(digest[1])",
        "hexdigest().startswith(digest[1][:1])",
        "known_by_its_digest",
    ),
    (
        "models/torchvision_kinds.py",
        "eps[0] != eps[1] and len({*eps[0]}) == 1",
        "False",
        "known_by_its_digest",
    ),
    ("auditing/diagnosis.py", 'if model.kind == "detector" and background:', "if False:", "background_is_no_label"),
    (
        "models/model_folder.py",
        'isinstance(model, Detector) else {}\n    config |= {"ch',
        'False else {}\n    config |= {"ch',
        "read_back_bit",
    ),
    ("models/model_folder.py", "if real != kind:", "if False:", "contradicts_itself"),
    ("models/loading.py", "most=config.most", "most=100", "read_back_bit"),
    (
        "models/architectures.py",
        "for folder in KINDS for n in catalogue(folder)]\n    spellings",
        "for folder in () for n in catalogue(folder)]\n    spellings",
        "three_folders",
    ),
    ("kinds/forms.py", "if shape[2] == columns + 1:", "if False:", "of_another_form"),
    ("kinds/forms.py", "if shape[3] == classes:", "if False:", "of_another_form"),
    ("models/kind_outputs.py", "<= _UNIT", "<= 0", "of_another_form"),
    ("models/kind_outputs.py", "(boxes[:, 2:] < boxes[:, :2])", "(boxes[:, 2:] > 1e9)", "of_another_form"),
    (
        "models/kind_outputs.py",
        "there = parts.objectness > -40",
        "there = parts.objectness > -99",
        "fill_up_the_number",
    ),
    (
        "auditing/kind_facts.py",
        "for shapes in reversed(sizes.values()):",
        "for shapes in sizes.values():",
        "last_maps_that_fit",
    ),
    ("auditing/kind_facts.py", "each * prod(s[2:]))", "prod(s[2:]))", "levels_of_the_catalogue"),
    (
        "core/classifier.py",
        "    if isinstance(model, Classifier):\n        return model\n",
        "    return model\n",
        "takes_a_classifier",
    ),
    ("core/model_parts.py", "isinstance(labels, str) or not len(labels)", "not len(labels)", "refused_when_it_is_made"),
    ("inspecting/receptive_fields.py", "(p[j] - d[j] * (k[j] - 1)) * step", "p[j] * step", "enlarged_maps"),
    ("inspecting/receptive_fields.py", "[2 * f - f % 2 if bilinear else f", "[f if bilinear else f", "enlarged_maps"),
    ("inspecting/compare_models.py", "if len(kinds) > 1:", "if False:", "one_kind_stand"),
]
