"""Whether robust accuracy comes from a gradient that misleads the attack: one file, one group of questions."""
