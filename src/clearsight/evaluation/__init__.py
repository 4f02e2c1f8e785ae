"""How good a detector's boxes are, beside boxes that people drew: one file for each kind of figure."""
