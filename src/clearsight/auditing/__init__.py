"""What checks share: a case, its time, its evidence; and the loop over checks."""
