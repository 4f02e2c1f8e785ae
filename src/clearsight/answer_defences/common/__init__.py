"""What several defences of answers share."""
