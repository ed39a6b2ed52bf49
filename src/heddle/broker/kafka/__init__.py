"""The log on Kafka, through librdkafka: with `broker.async_edge` the only place that imports a Kafka client."""

from heddle.broker.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
