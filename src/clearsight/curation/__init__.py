"""The verb data: pictures before a model."""
