"""The formats of annotations, each in a file of its own; `data.annotations` finds the one that a path holds."""
