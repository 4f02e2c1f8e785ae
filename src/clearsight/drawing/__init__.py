"""Tensors and numbers to pictures and charts."""
