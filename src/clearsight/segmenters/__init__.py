"""Networks that give a score for each class at each place, one per file: segmenter(classes, shape, *, options)."""
