"""How texts, their tensors and their drawing are broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS: dict[str, list[tuple[str, str]]] = {}
CORE = [
    ("data/text_marks.py", "here = here or [(places[i]", "here = [(places[i]", "pieces"),
    ("data/text_marks.py", "places[i + len(piece)])", "places[i] + len(piece))", "pieces"),
    ("data/text_marks.py", "start <= merged[-1][1]", "start < merged[-1][1]", "ranges"),
    ("data/text_marks.py", "max(end, merged[-1][1])", "end", "ranges_that_touch"),
    ("data/text_marks.py", 'replace("\\ufffd", ".")', 'replace("_", ".")', "pieces"),
    ("data/text_rows.py", 'removeprefix(b"\\xef\\xbb\\xbf")', 'removeprefix(b"")', "texts"),
    ("data/text_rows.py", "csv.field_size_limit(2**31 - 1)", "csv.field_size_limit(131072)", "long_cell"),
    ("data/text_tables.py", "[n for word in TEXTS for n in names if", "[n for n in names if n != names[0] or", "texts"),
    ("data/text_sources.py", "if not t.text.strip()]", "if not t.text]", "empty_texts"),
    ("data/text_sources.py", "sum(len(same) - 1 for", "sum(len(same) for", "empty_texts"),
    ("data/text_sources.py", "not (train and splits - train) or splits != tops", "not splits", "called_train"),
    ("data/text_encoding.py", "places.get(c, len(places))", "places.get(c, 0)", "each_character"),
    ("data/text_encoding.py", "len(text) <= preprocess.size[0]", "len(text) <= preprocess.size[0] + 1", "do_not_fit"),
    ("data/text_encoding.py", "texts += bool(outside)", "texts += 1", "do_not_fit"),
    ("data/text_encoding.py", "text_bytes(text, model", "text_bytes(text[:6], model", "do_not_fit"),
    ("drawing/text.py", "strengths(heat[: len(text)]", "strengths(heat", "not_of_what_lies_behind"),
    ("drawing/text.py", "i in range(start, end)}", "i in range(start, end + 1)}", "marks_part_runs"),
    ("drawing/text.py", "in _HIDDEN else character", 'in ("Cc",) else character', "steers_or_hides"),
    ("drawing/text.py", "escape(run.text)", "run.text", "html_is_escaped"),
    ("drawing/text.py", "if bright > 0.18 else", "if bright > 0.4 else", "can_be_read"),
    ("drawing/text.py", "or console.no_color:", "and console.no_color:", "without_colours"),
    ("drawing/text.py", '" ,-="}', '" .+#"}', "without_colours"),
    ("drawing/text.py", "for at in range(0, len(above), width)", "for at in range(0, 1, width)", "long_lines"),
    (
        "drawing/heatmaps.py",
        "else full) or 1), -1 if signed else 0, 1)\n    return",
        "else full) or 1), -1, 1)\n    return",
        "runs",
    ),
    ("models/model_folder.py", 'pre.get("alphabet", ""),\n', '"",\n', "text_model_is_loaded"),
]
