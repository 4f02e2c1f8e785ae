"""The nouns and small tools that every method may use; knows no picture file and no report."""
