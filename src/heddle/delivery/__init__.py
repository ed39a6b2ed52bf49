"""Delivery: batch, outcomes, one transaction."""
