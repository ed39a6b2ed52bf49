"""The log in memory, with the same transactional rules as Kafka: for tests of integrations and of delivery."""

from heddle.broker.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
