"""One file, one way to show what layers and units respond to: feature(inside, *, options) -> Iterator[Page]."""
