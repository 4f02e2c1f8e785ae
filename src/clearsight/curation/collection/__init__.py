"""Collect pictures from public sources, with their licences."""
