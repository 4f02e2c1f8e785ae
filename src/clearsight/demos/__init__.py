"""The verb demo: the story of a shortcut, and how detectors came to be."""
