"""What several explainers share."""
