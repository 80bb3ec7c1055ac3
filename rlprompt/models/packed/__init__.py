"""A causal model run packed: whatever sequences share is computed once."""
