"""The only place where methods are run: clones, seeds, batches, clips, recounts, checks."""
