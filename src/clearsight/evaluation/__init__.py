"""How good answers about places are: boxes, pixels, segments and landmarks beside the truth."""
