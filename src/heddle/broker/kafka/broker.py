"""The broker object: makes Kafka clients from settings."""

from __future__ import annotations

from heddle.broker.kafka.admin import KafkaAdmin
from heddle.broker.kafka.consumer import KafkaConsumer
from heddle.broker.kafka.producer import KafkaProducer
from heddle.broker.kafka.reader import KafkaReader
from heddle.broker.log import Admin, Broker, Consumer, OnRelease, Producer, Reader
from heddle.settings import Settings

REPLICATION = 3


class KafkaBroker(Broker):
    """Clients for the brokers that the settings name. Making one connects to nothing yet."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def consumer(self, group: str, topic: str, on_release: OnRelease | None = None) -> Consumer:
        return KafkaConsumer(self._settings, group, topic, on_release)

    def reader(self) -> Reader:
        return KafkaReader(self._settings)

    def producer(self, transactional_id: str) -> Producer:
        return KafkaProducer(self._settings, transactional_id)

    def admin(self) -> Admin:
        return KafkaAdmin(self._settings, replication=1 if self._settings.local else REPLICATION)
