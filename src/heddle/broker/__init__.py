"""The log: a protocol, Kafka, and an in-memory log with the same transactional behaviour."""
