"""What a network is made of, layer by layer."""
