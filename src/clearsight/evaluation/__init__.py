"""How good answers about places are, beside the truth: boxes, pixels, segments, landmarks and boxes of class maps."""
