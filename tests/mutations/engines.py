"""How running exported models is broken: (file, old text, new text, pytest's -k)."""

CORE = [
    ("engines/manifest.py", "len(fingerprint) == 16 and", "", "wrong_one_is_refused"),
    ("engines/manifest.py", 'check_fields(heatmap, _HEATMAP, place, "heatmap.")', "pass", "wrong_one_is_refused"),
    ("core/json_fields.py", "if name not in lines:", "if False:", "wrong_one_is_refused"),
]
