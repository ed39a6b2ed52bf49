"""Real Kafka, registry and PostgreSQL from Python packages."""
