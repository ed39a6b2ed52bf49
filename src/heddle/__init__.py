"""Heddle: integrations as code on Kafka. These are the public names."""
