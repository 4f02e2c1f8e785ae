"""The verb attack: robust accuracy of pictures as a report."""
