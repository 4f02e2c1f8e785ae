"""The verb explain: tested heatmaps of pictures, sheets and raw maps."""
