"""The kinds of model beside the classifier: what their outputs mean, and the targets and goals that know it."""
