"""Predictions of a stage on a whole dataset, as an artifact."""
