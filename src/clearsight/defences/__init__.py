"""One file, one way to train against attacks."""
