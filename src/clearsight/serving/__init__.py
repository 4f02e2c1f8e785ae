"""`serve`: answers, explanations and features of a model over HTTP, with limits, measures and a page."""
