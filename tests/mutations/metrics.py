"""How every metric is broken on purpose."""

# file below src/clearsight -> [(old text, new text)]; the tests that name the method are run
METHODS = {
    "metrics/deletion.py": [("insert=False", "insert=True"), ("fill=fill", 'fill="blur"')],
    "metrics/insertion.py": [("insert=True", "insert=False"), ("fill=fill", 'fill="mean"')],
    "metrics/pointing_game.py": [
        ("hits.float() / highest.sum(1).float()", "(hits > 0).float()"),
        ("2 * tolerance + 1, stride=1, padding=tolerance", "4 * tolerance + 1, stride=1, padding=2 * tolerance"),
        ("flat.amax(1, keepdim=True)", "flat.amin(1, keepdim=True)"),
    ],
    "metrics/relevance_mass.py": [
        ("maps.cpu().clamp(min=0)", "maps.abs()"),
        ("positive.sum(1)).float()", "positive.sum()).float()"),
        ("regions.cpu().flatten(1)", "(~regions).cpu().flatten(1)"),
    ],
}
