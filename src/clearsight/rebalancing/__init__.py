"""One file, one way to train so that no group of pictures is left behind."""
