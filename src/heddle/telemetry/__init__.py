"""Logs (logs.py), and metrics: what they are (catalogue.py), who tells them (metrics.py), where they go (export.py)."""
