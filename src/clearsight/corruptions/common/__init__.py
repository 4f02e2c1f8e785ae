"""What several corruptions share."""
