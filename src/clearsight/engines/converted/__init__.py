"""An ONNX graph as a torch network, with layers and exact gradients, where every operator of it is known."""
