"""What to do when Kafka refuses us or does not answer; the same words in every client."""

from __future__ import annotations

DOWN = "check that the brokers run, HEDDLE_BOOTSTRAP_SERVERS, and security.protocol in HEDDLE_KAFKA"
CREDENTIALS = "check sasl.username and sasl.mechanisms in HEDDLE_KAFKA, and HEDDLE_KAFKA_PASSWORD"
RULES = "have the cluster's owner allow this (an ACL for the user that we connect as)"
CERTIFICATES = (
    "check in HEDDLE_KAFKA ssl.ca.location (the authority that signed the brokers' certificates) and, where brokers "
    "ask for a client certificate, ssl.certificate.location and ssl.key.location"
)


def is_about_certificates(text: str) -> bool:
    """Whether a TLS failure, as OpenSSL words it, is one side's distrust of the other: waiting does not mend that."""
    words = text.lower().replace("_", " ")
    return "certificate" in words or "alert unknown ca" in words
