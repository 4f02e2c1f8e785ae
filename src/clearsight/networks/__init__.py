"""Networks to be trained from the beginning, one per file: network(classes, shape, *, options) -> nn.Module."""
