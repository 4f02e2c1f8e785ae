"""What happens to pictures by themselves, one kind per file: corruption(x, *, severity) -> x."""
