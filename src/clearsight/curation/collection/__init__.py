"""Pictures from public sources, with their licences."""
