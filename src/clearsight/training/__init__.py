"""The verbs train and tune: from pictures to a model folder."""
