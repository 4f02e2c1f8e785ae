"""One file, one method that cleans pictures before a model sees them."""
