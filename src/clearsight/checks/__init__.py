"""One file, one method: see CONTRIBUTING.md."""
