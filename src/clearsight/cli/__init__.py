"""Words to calls, results to the screen."""
