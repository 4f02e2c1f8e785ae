"""What is wrong with a set of pictures, before and after training."""
