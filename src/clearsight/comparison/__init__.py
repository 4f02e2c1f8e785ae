"""Several runs side by side: what equal accuracy hides."""
