"""The verb inspect: layers, sizes, costs, several models side by side."""
