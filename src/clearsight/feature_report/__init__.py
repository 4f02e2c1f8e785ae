"""The verb features: pages for each layer and unit."""
