"""Damage that pictures suffer without an attacker, one kind per file: corruption(x, *, severity) -> x."""
