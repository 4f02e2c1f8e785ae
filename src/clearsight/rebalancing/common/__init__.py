"""What several ways of rebalancing share."""
