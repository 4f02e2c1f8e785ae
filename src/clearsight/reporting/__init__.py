"""Findings and reports as records, JSON, HTML and terminal text."""
