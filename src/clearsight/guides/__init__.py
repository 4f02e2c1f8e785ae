"""One file, one way to train for the right reason, told by annotations."""
