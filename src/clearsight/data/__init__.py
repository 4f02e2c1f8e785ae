"""Pictures on disk to pixels, labels, regions and splits; never moves a file."""
