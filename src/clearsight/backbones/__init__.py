"""What detectors and segmenters stand on: networks that give maps of features at strides 8, 16 and 32."""
