"""The command data: check, collect and augment pictures before a model sees them."""
