"""Pictures with parts removed, filled, muted or recoloured."""
