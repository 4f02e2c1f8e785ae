"""How exports are broken on purpose.

The tests: tests/values/test_onnx_pixels.py, tests/parts/test_export*.py, test_parity.py, test_int8_rounding.py.
"""

# (file below src/clearsight, old text, new text, pytest's -k)
CORE = [
    ("core/calibration_error.py", "confidence - right, bins)).sum()", "confidence, bins)).sum()", "calibration"),
    (
        "core/calibration_error.py",
        "np.ceil(confidence * bins).astype(np.int64) - 1",
        "np.floor(confidence * bins).astype(np.int64)",
        "calibration",
    ),
    ("exporting/pooling.py", "/ node.args[_DIVISOR]", "", "divisor_of_its_own"),
    ("exporting/onnx_pixels.py", "exclude_outside=1", "exclude_outside=0", "noise_that_clips"),
    ("exporting/onnx_pixels.py", "PILLOW_CUBIC = -0.5", "PILLOW_CUBIC = -0.75", "noise_that_clips"),
    ("exporting/onnx_pixels.py", 'steps.constant("twice", [2])', 'steps.constant("twice", [1])', "noise_that_clips"),
    (
        "exporting/onnx_pixels.py",
        'steps.run("Add", [half, steps.run("Mul", [odd, odd_half], "rounded")], "start")',
        "half",
        "odd_sizes",
    ),
    ("exporting/heatmap_head.py", "[[-0.5], [0.5]]", "[[0.5], [-0.5]]", "every_kind_of_scores"),
    ("exporting/exported_network.py", "[out * -0.5, out * 0.5]", "[out * 0.5, out * -0.5]", "every_kind_of_scores"),
    ("exporting/exported_network.py", "_EXAMPLES = 2", "_EXAMPLES = 1", "test_exporting"),
    ("exporting/export.py", "    clear_away(request.folder, earlier - {*files})\n", "", "leaves_nothing_of_it"),
    ("exporting/export.py", "        _ = case.labelled  #", "        pass  #", "before_a_file_is_written"),
    ("models/exported.py", "if apart <= TOLERANCE * max(largest, 1e-6):", "if True:", "its_engine_on_the_pictures"),
    ("inspecting/compare_models.py", "if facts is None else facts.size", "if True else 0", "only_what_is_known"),
    ("inspecting/compare_models.py", "parameters=None if closed else ", "parameters=", "only_what_is_known"),
    ("comparing/sources.py", "labels=labels, preprocess=preprocess, scores=scores", "", "by_what_is_stated"),
    ("exporting/earlier.py", 'and ".." not in below.parts', "", "no_file_outside"),
    ("exporting/onnx_file.py", "    _forget_sources(proto)\n", "", "names_no_path"),
    ("exporting/int8.py", "per_channel=True", "per_channel=False", "scale_for_each_channel"),
    ("exporting/int8.py", "            given |= set(node.output)\n", "", "follows_a_layer"),
    ("exporting/int8.py", "    _keep_in_float(quantised, in_float)\n", "", "stays_in_float"),
    ("exporting/int8_search.py", "key=lambda name: -moved[name]", "key=lambda name: moved[name]", "worst_layers"),
    ("exporting/int8_rounding.py", "left[..., j + 1 :] -= error", "left[..., j + 1 :] += error", "int8_rounding"),
    ("exporting/int8_rounding.py", "return ((weights - as_rounded)", "return ((as_rounded - weights)", "mean_error"),
    ("exporting/int8.py", "    _keep_scores(quantised)\n", "", "scores_in_float"),
    (
        "exporting/int8.py",
        "for name, found in rounded.items() if name not in in_float",
        "for name, found in rounded.items()",
        "scores_in_float",
    ),
    ("exporting/int8_search.py", "found[k][0] >= needed)", "found[k][0] > needed)", "as_few_layers"),
    ("exporting/layers_apart.py", "if gap.error > more_than", "if gap.error < more_than", "layer_is_named"),
    ("exporting/sheet.py", "share >= agree", "share <= agree", "wrong_file_fails"),
    ("exporting/to_openvino.py", '== "fp16"', '!= "fp16"', "openvino_weights"),
    ("exporting/openvino_pixels.py", '"bicubic_pillow"', '"cubic"', "openvino_pixels"),
    (
        "exporting/openvino_pixels.py",
        "lost[1], ops.constant(np.array([2]",
        "lost[1], ops.constant(np.array([9]",
        "openvino_pixels",
    ),
    ("exporting/torch_pixels.py", "first * new_high + (1 - first) * high", "high", "torch_export"),
    ("exporting/to_torch_export.py", "        _forget_sources(one)\n", "", "torch_export"),
    (
        "exporting/to_triton.py",
        "dims: [ -1, -1, {channels} ]",
        "dims: [ {channels}, -1, -1 ]",
        "triton or configuration",
    ),
]
