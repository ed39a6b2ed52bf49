"""Heddle: integrations as code on Kafka. These are the public names."""

from __future__ import annotations

from heddle.errors import (
    AuthError,
    ContractError,
    DependencyDownError,
    FailureClass,
    HeddleError,
    Park,
    RateLimitError,
    RetryLater,
    Stop,
    TransientError,
    UnknownEffectError,
    UsageError,
)
from heddle.event import Draft, Event, Identity, stable_id
from heddle.http.assertion import JwtAssertion
from heddle.http.auth import ApiKey, Basic, Bearer, ClientCredentials
from heddle.http.tls import ClientCertificate
from heddle.integration import Flow, Sink, Source
from heddle.mapping import Mapping
from heddle.on_failure import Breaker, Caps, FailureBudget, OnFailure, Retry
from heddle.secrets import Secret, secret
from heddle.sinks.http import Deadlines, Endpoint, HttpAnswer, HttpCall, HttpSink, IdempotencyKey, LookUp
from heddle.sinks.sql import SqlSink
from heddle.sources.outbox import Outbox, OutboxSource
from heddle.sources.postgres import PostgresSource, RowView, Table
from heddle.sources.rest import Resource, RestSource
from heddle.sources.signatures import (
    GitHub,
    Hmac,
    HubSpotV3,
    QuickBooks,
    Shopify,
    Slack,
    StandardWebhooks,
    Stripe,
    Xero,
)
from heddle.sources.webhook import Delivery, WebhookSource

__all__ = [
    "ApiKey",
    "AuthError",
    "Basic",
    "Bearer",
    "Breaker",
    "Caps",
    "ClientCertificate",
    "ClientCredentials",
    "ContractError",
    "Deadlines",
    "Delivery",
    "DependencyDownError",
    "Draft",
    "Endpoint",
    "Event",
    "FailureBudget",
    "FailureClass",
    "Flow",
    "GitHub",
    "HeddleError",
    "Hmac",
    "HttpAnswer",
    "HttpCall",
    "HttpSink",
    "HubSpotV3",
    "IdempotencyKey",
    "Identity",
    "JwtAssertion",
    "LookUp",
    "Mapping",
    "OnFailure",
    "Outbox",
    "OutboxSource",
    "Park",
    "PostgresSource",
    "QuickBooks",
    "RateLimitError",
    "Resource",
    "RestSource",
    "Retry",
    "RetryLater",
    "RowView",
    "Secret",
    "Shopify",
    "Sink",
    "Slack",
    "Source",
    "SqlSink",
    "StandardWebhooks",
    "Stop",
    "Stripe",
    "Table",
    "TransientError",
    "UnknownEffectError",
    "UsageError",
    "WebhookSource",
    "Xero",
    "secret",
    "stable_id",
]
