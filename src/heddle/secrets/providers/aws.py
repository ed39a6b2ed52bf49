"""AWS Secrets Manager, through boto3: the text of the secret `<prefix>ledger/dsn`, its version the VersionId.

Credentials, region and endpoint are found as every tool of AWS finds them: environment, profile, the machine's role."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.secrets.provider import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    Found,
    StoreOptions,
    Surroundings,
    overlaps,
    sdk,
)

_GONE = frozenset({"ResourceNotFoundException", "InvalidRequestException"})  # the latter: marked for deletion
_REFUSED = frozenset(
    {
        "AccessDeniedException",
        "DecryptionFailure",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "UnrecognizedClientException",
    }
)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError")


class AwsOptions(StoreOptions):
    provider: Literal["aws"]
    region: str = Field("", description="empty: AWS_REGION or the profile's")
    prefix: str = ""

    def made(self, _: Surroundings) -> Aws:
        return Aws(self)


class Aws:
    """One thread at a time."""

    name = "aws"

    def __init__(self, options: AwsOptions) -> None:
        self._options = options
        self._client: Any = None

    def look_up(self, name: str) -> Found | None:
        current = self._version(name, "AWSCURRENT")
        if current is None:
            return None
        previous = self._version(name, "AWSPREVIOUS") if overlaps(current["CreatedDate"]) else None
        return Found(_text(name, current), current["VersionId"], _text(name, previous) if previous else "")

    def advice(self, name: str) -> str:
        return f"aws secretsmanager create-secret --name {self._options.prefix}{name} --secret-string …"

    def _version(self, name: str, stage: str) -> dict[str, Any] | None:
        exceptions = sdk("botocore.exceptions", "aws")
        try:
            found: dict[str, Any] = self._opened().get_secret_value(
                SecretId=self._options.prefix + name, VersionStage=stage
            )
        except exceptions.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _GONE:
                return None
            if code in _REFUSED:
                raise AuthError(
                    f"AWS refuses secret {name}: {code}", hint="allow secretsmanager:GetSecretValue on it, and its key"
                ) from None
            raise DependencyDownError(f"AWS Secrets Manager does not answer for {name}: {code}") from None
        except exceptions.NoRegionError:
            raise UsageError("AWS: no region", hint="set `region` of the provider aws, or AWS_REGION") from None
        except exceptions.BotoCoreError as error:
            kind = type(error).__name__
            if kind in _NO_CREDENTIALS:
                raise AuthError(
                    f"AWS: no usable credentials ({kind})", hint="give the process a role, or set AWS_…"
                ) from None
            raise DependencyDownError(f"AWS Secrets Manager does not answer: {kind}") from None
        return found

    def _opened(self) -> Any:
        if self._client is None:
            limits = sdk("botocore.config", "aws").Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": 2},
            )
            session = sdk("boto3", "aws").session.Session(region_name=self._options.region or None)
            self._client = session.client("secretsmanager", config=limits)
        return self._client


def _text(name: str, version: dict[str, Any]) -> str:
    text = version.get("SecretString")
    if not isinstance(text, str):
        raise UsageError(f"AWS: secret {name} is binary", hint="store it as text, binary keys as base64 or hex")
    return text
