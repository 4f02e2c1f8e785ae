"""What several visualisations share."""
