"""Run a model that was exported: ONNX, OpenVINO, programs of torch.export."""
