"""From pictures to a trained model."""
