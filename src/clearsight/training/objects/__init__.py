"""Train detectors and segmenters: pictures with boxes, or with a class for every pixel, to a model folder."""
