"""How answers are given so that a model is not stolen through them; one file, one method."""
