"""Environment to frozen settings. Every quantity carries its unit; every default is safe.

What is not set falls back to the local stack that `heddle up` started (`.heddle/stack.json`)."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from heddle.errors import UsageError
from heddle.root import state_dir
from heddle.secrets import remember, secret


class Settings(BaseSettings):
    """Read from HEDDLE_* variables, for example HEDDLE_BOOTSTRAP_SERVERS=kafka:9093."""

    model_config = SettingsConfigDict(env_prefix="HEDDLE_", frozen=True, extra="ignore")

    bootstrap_servers: str = Field("", description="Kafka brokers, host:port,host:port")
    kafka: dict[str, str] = Field(
        default_factory=dict,
        repr=False,  # it may hold passwords too: of a private key, of an identity provider
        description='further librdkafka settings as JSON: {"security.protocol": "SASL_SSL", "ssl.ca.location": "…"}',
    )
    kafka_password: SecretStr | None = Field(None, description="SASL password, kept apart so that it is never shown")
    kafka_password_secret: str = Field(
        "", description="name of the secret that is the SASL password: asked for by each new client, so it may rotate"
    )
    registry_url: str = Field("", description="Confluent-API schema registry")
    registry_user: str = ""
    registry_password: SecretStr | None = None
    registry_password_secret: str = Field("", description="name of the secret that is it, asked for with each request")
    registry_ca: str = Field("", description="CA file for a registry behind private TLS")
    dsn: SecretStr | None = Field(None, description="PostgreSQL of the local stack or an existing one")
    instance: str = Field(
        "0", pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$", description="stable name of this copy of the workers"
    )
    local: bool = Field(
        False, description="set by us when the local stack fills the gaps; topics then have one replica"
    )

    batch_max_records: int = Field(2000, ge=1, le=100_000)
    batch_max_bytes: int = Field(8 * 2**20, ge=1)
    batch_max_wait_s: float = Field(0.02, gt=0, le=5, description="how long a record waits for others of its batch")
    batch_deadline_s: float = Field(
        60.0, gt=0, lt=300, description="cuts the unattempted tail; below max.poll.interval"
    )
    drain_timeout_s: float = Field(20.0, gt=0, description="how long SIGTERM may take")
    transaction_timeout_s: float = Field(15.0, gt=0)
    session_timeout_s: float = Field(6.0, ge=6.0, description="how long a dead worker keeps its partitions")
    codec: Literal["auto", "python", "native", "both", "objects"] = Field(
        "auto",
        description="engine of mappings: native where it is installed, else Python; both: compared; objects: neither",
    )
    async_concurrency: int = Field(64, ge=1, description="async handler calls in flight per worker")

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(8080, ge=0, le=65535, description="0 = a free port")
    gateway_base_url: str = Field(
        "", description="public URL before the path, where a proxy changes it (signed by HubSpot)"
    )
    gateway_max_body_bytes: int = Field(2**20, ge=1)
    gateway_max_in_flight_bytes: int = Field(64 * 2**20, ge=1)
    gateway_max_requests: int = Field(512, ge=1, description="requests being served at once; more get 503")
    gateway_deadline_s: float = Field(2.5, gt=0)
    gateway_renew_s: float = Field(15.0, gt=0, description="how often its secrets are asked for")

    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    log_format: str = Field("console", pattern="^(console|json)$")

    def kafka_config(self) -> dict[str, str]:
        """librdkafka settings that every client shares, with the password of this moment."""
        config = {"bootstrap.servers": self.bootstrap_servers, **self.kafka}
        if self.kafka_password_secret:
            config["sasl.password"] = secret(self.kafka_password_secret).resolve()
        elif self.kafka_password is not None:
            config["sasl.password"] = self.kafka_password.get_secret_value()
        return config


def load_settings(**overrides: Any) -> Settings:
    """Environment first, then the running local stack. Raises `UsageError` with the variable's name."""
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        field, *inside = (str(part) for part in first["loc"])
        name = " ".join([f"HEDDLE_{field.upper()}", *inside])
        # Without its cause, which repeats the value.
        raise UsageError(f"setting {name}: {first['msg']}", hint="correct or unset it") from None
    except SettingsError:
        raise UsageError(
            "setting HEDDLE_KAFKA: not a JSON object", hint='write {"security.protocol": "SASL_SSL"}'
        ) from None
    _check_passwords(settings)
    stack = _stack_state()
    gaps = {
        name: stack[name]
        for name in ("bootstrap_servers", "registry_url", "dsn")
        if stack.get(name) and not getattr(settings, name)
    }
    if not gaps:
        return settings
    if "bootstrap_servers" in gaps:
        gaps["local"] = True
    if "dsn" in gaps:
        gaps["dsn"] = SecretStr(gaps["dsn"])
    return settings.model_copy(update=gaps)


def _check_passwords(settings: Settings) -> None:
    """One place for each, and `redact` knows what was given openly."""
    for name in ("kafka_password", "registry_password"):
        given, reference = getattr(settings, name), getattr(settings, f"{name}_secret")
        if reference and given is not None:
            variable = f"HEDDLE_{name.upper()}"
            raise UsageError(f"{variable} and {variable}_SECRET are both set", hint="unset one of them")
        if reference:
            secret(reference)
    for given in (settings.kafka_password, settings.registry_password, settings.dsn):
        if given is not None:
            remember(given.get_secret_value())
    for key, value in settings.kafka.items():
        if key.endswith((".password", ".secret", ".key.pem")) or key == "sasl.jaas.config":
            remember(value)


def need(settings: Settings, *names: str) -> Settings:
    """The same settings, or `UsageError` when one of `names` is still empty."""
    missing = [name for name in names if not getattr(settings, name)]
    if missing:
        variables = ", ".join(f"HEDDLE_{name.upper()}" for name in missing)
        raise UsageError(f"{variables} not set and no local stack runs", hint="run `heddle up`, or set the variable")
    return settings


def _stack_state() -> dict[str, Any]:
    try:
        state = json.loads((state_dir() / "stack.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
