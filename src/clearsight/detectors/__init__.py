"""Networks that find objects, one per file: detector(classes, shape, *, options) -> nn.Module.

The network maps normalised pictures (B, C, H, W) to candidates (B, N, 5 + classes): x1, y1, x2, y2 in pixels of its
input, a logit of objectness, a logit of each class.  The score of a class is sigmoid(objectness) * sigmoid(class).
Candidates are before any floor of scores and any suppression; a row without meaning has logits of -50.  Its method
``loss(z, boxes, labels)`` gives scalars whose sum is to be made small.
"""
