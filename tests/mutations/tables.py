"""How the reading of tables and of class words is broken on purpose."""

CORE = [
    ("classwords.py", "if places and label_numbers(model.labels):", "if False:", "test_tables and digits"),
    ("classwords.py", "if places and said and places != said:", "if False:", "test_tables and counts_from_0"),
    ("classwords.py", "return found if same == len(words) == len(found) else {}", "return found",
     "test_tables and two_ways"),
    ("labelling.py", "text if is_number(text) else plain(text)", "plain(text)", "test_tables and two_ways"),
    ("labelling.py", "return exact.get(word) or exact.get(text) or", "return", "test_tables and mean_one_class"),
    ("data_columns.py", "if not counts_rows(row[c] for row in rows)]", "]", "test_tables and counter"),
    ("data_columns.py", "chosen = label if len(label) == 1 else could", "chosen = could[:1]", "test_tables and asked"),
    ("learning/portions.py", 'named = {word: f"{data.column} {word}" for word in words}', "return pictures, []",
     "test_tables and gaps"),
    ("learning/portions.py", "key=lambda w: (int(w), w)", "key=int", "test_tables and one_order"),
    ("data_metadata.py", "if not apart:", "if True:", "test_tables and go_together"),
    ("data_metadata.py", "if not labels and called.folders is not None:", "if False:",
     "test_tables and class_folders_stay"),
    ("data_metadata.py", "merged = [_merged(p, own[p.name], called) for p in pictures] +",
     "merged = [_merged(p, own[p.name], called) for p in pictures if own[p.name]] +", "test_tables and metadata"),
    ("data_fiftyone.py", "return (clean(names[value]),)", "return (str(value),)", "test_tables and fiftyone"),
    ("data_folders.py", "notes = _empty(found, splits)", "notes = []", "test_tables and empty_folders"),
]  # fmt: skip
