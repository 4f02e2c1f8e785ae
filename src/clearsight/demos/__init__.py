"""The verb demo: the story of a shortcut."""
