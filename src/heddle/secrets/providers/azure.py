"""Azure Key Vault, through its own client: `ledger/dsn` is the secret `ledger--dsn`, its version the vault's.

Names there have letters, digits and hyphens only: a secret with an underscore is never found. Credentials are found as
`DefaultAzureCredential` finds them: environment, workload identity, managed identity."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.secrets.provider import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    Found,
    StoreOptions,
    Surroundings,
    flat_name,
    sdk,
)


class AzureOptions(StoreOptions):
    provider: Literal["azure"]
    vault: str
    """Its address: https://<name>.vault.azure.net"""

    def made(self, _: Surroundings) -> Azure:
        return Azure(self)


class Azure:
    """One thread at a time."""

    name = "azure"

    def __init__(self, options: AzureOptions) -> None:
        self._options = options
        self._client: Any = None

    def look_up(self, name: str) -> Found | None:
        flat = _name(name)
        if flat is None:
            return None
        exceptions = sdk("azure.core.exceptions", "azure")
        try:
            found = self._opened().get_secret(flat)
        except exceptions.ResourceNotFoundError:
            return None
        except exceptions.ClientAuthenticationError as error:
            raise self._refused(name, type(error).__name__) from None
        except exceptions.HttpResponseError as error:
            if error.status_code in (401, 403):
                raise self._refused(name, f"HTTP {error.status_code}") from None
            raise DependencyDownError(f"Azure Key Vault does not answer for {name}: HTTP {error.status_code}") from None
        except exceptions.AzureError as error:
            raise DependencyDownError(f"Azure Key Vault does not answer: {type(error).__name__}") from None
        except ValueError:  # of the address, or of the domain that the answer claims to be of
            raise UsageError(
                f"vault {self._options.vault!r} is no key vault's address", hint="write https://<name>.vault.azure.net"
            ) from None
        ends = found.properties.expires_on
        valid_s = None if ends is None else max(0.0, (ends - datetime.now(UTC)).total_seconds())
        return Found(found.value or "", found.properties.version, valid_s=valid_s)

    def advice(self, name: str) -> str:
        flat = _name(name)
        if flat is None:
            return "give it a name without underscores and double hyphens, for Azure"
        return f"az keyvault secret set --vault-name … --name {flat} --value …"

    def _refused(self, name: str, why: str) -> AuthError:
        return AuthError(
            f"Azure Key Vault refuses secret {name}: {why}",
            hint="give the process's identity the role Key Vault Secrets User, and see that the secret is enabled",
        )

    def _opened(self) -> Any:
        if self._client is None:
            credential = sdk("azure.identity", "azure").DefaultAzureCredential()
            self._client = sdk("azure.keyvault.secrets", "azure").SecretClient(
                self._options.vault,
                credential,
                connection_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retry_total=1,
            )
        return self._client


def _name(name: str) -> str | None:
    return None if "_" in name else flat_name(name)
