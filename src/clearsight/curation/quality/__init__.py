"""data check: what is wrong with a set of pictures and its labels."""
