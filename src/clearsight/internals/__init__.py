"""Reading, recording and re-running the inside of a torch network."""
