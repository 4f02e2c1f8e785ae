"""What several segmenters share: backbones, upsampling, refusals; what they are trained with: losses, heatmaps."""
