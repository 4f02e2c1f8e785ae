"""What is done to pictures in training, one method per file: augmentation(x, y, *, options) -> (x, y)."""
