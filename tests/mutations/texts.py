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
    ("models/model_folder.py", 'pre.get("alphabet", ""),\n', '"",\n', "text_model_is_loaded"),
]
