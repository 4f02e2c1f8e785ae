"""From words to a Classifier and back to a folder; what will not work with it."""
