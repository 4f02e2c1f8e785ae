"""The points of the checklist for masked gradients, for the check of that name."""
