"""Vault and OpenBao. What takes a `store` runs against our stand-in and, where it is installed (`make stores-test`),
against a real OpenBao; what takes a `fake` needs a clock or a state that a real one does not give."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from vault_fake import ROOT, version
from vault_stores import Fake, Store, fake_store, openbao, openbao_binary

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.secrets import MissingSecretError, redact
from heddle.secrets.asking import ask
from heddle.secrets.config import made_of, parse
from heddle.secrets.provider import OVERLAP_S, Provider
from heddle.secrets.providers.vault import Vault, VaultOptions

BINARY = openbao_binary()
STORES = [pytest.param(None, id="fake"), *([pytest.param(BINARY, id="openbao")] if BINARY is not None else [])]


@pytest.fixture(scope="module", params=STORES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if request.param is None:
        with fake_store() as fake:
            yield fake
    else:
        with openbao(request.param, tmp_path_factory.mktemp("openbao")) as real:
            yield real


@pytest.fixture
def store(shared: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HEDDLE_SECRET_VAULT_TOKEN", ROOT)
    return shared


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("HEDDLE_SECRET_VAULT_TOKEN", ROOT)
    with fake_store() as made:
        yield made


def providers(store: Store, **options: Any) -> tuple[Provider, ...]:
    """Environment first, as our credentials are there."""
    vault = {"provider": "vault", "address": store.url, **options}
    return made_of(parse([{"provider": "environment"}, vault], "test"), Path())


def alone(store: Store, **options: Any) -> Vault:
    """Without the cache, logged in with a token of the environment."""
    return Vault(VaultOptions(provider="vault", address=store.url, **options), lambda _: ROOT)


def test_a_secret_is_the_field_value_under_its_name_with_its_version(store: Store) -> None:
    store.put("app/ledger/dsn", "postgresql://one")
    store.put("app/ledger/dsn", "postgresql://two")
    answer = ask(providers(store, prefix="app"), "ledger/dsn")
    assert (answer.values, answer.provider, answer.found.version) == (("postgresql://two",), "vault", "2")


def test_the_version_before_counts_until_it_is_deleted(store: Store) -> None:
    store.put("rotated", "old")
    store.put("rotated", "new")
    found = alone(store).look_up("rotated")
    assert found is not None
    assert (found.text, found.previous) == ("new", "old")
    store.delete("rotated", 1)
    found = alone(store).look_up("rotated")
    assert found is not None
    assert (found.text, found.previous) == ("new", "")


def test_the_version_before_counts_for_an_hour_at_most(fake: Fake) -> None:
    for age_s, expected in ((OVERLAP_S - 60, "old"), (OVERLAP_S + 1, "")):
        fake.vault.secrets["aged"] = [version("old"), version("new", timedelta(seconds=age_s))]
        found = alone(fake).look_up("aged")
        assert found is not None
        assert found.previous == expected


def test_what_is_not_there_or_was_deleted_is_missing_and_it_is_said_what_to_do(store: Store) -> None:
    store.put("gone", "value")
    store.delete("gone", 1)
    for name in ("gone", "never/was"):
        with pytest.raises(MissingSecretError, match=f"{name} has no value; asked: environment, vault") as missing:
            ask(providers(store), name)
        assert f"vault kv put -mount=secret {name} value=…" in missing.value.hint


def test_a_version_that_the_store_will_delete_is_not_used_longer(store: Store) -> None:
    store.expire("short", timedelta(seconds=90))
    store.put("short", "value")
    found = alone(store).look_up("short")
    assert found is not None
    assert found.valid_s is not None
    assert 60 < found.valid_s <= 90


def test_an_engine_that_is_not_there_is_not_a_missing_secret(store: Store) -> None:
    with pytest.raises(UsageError, match="no engine at elsewhere/"):
        alone(store, mount="elsewhere").look_up("any")


def test_a_secret_without_the_field_says_which(fake: Fake) -> None:
    fake.vault.secrets["odd"] = [version("")]
    fake.vault.secrets["odd"][0].value = {"password": "hunter22"}
    with pytest.raises(UsageError, match="secret/odd has no text in its field value") as caught:
        alone(fake).look_up("odd")
    assert "hunter22" not in f"{caught.value}{caught.value.hint}"


def test_an_approle_logs_in_with_secrets_of_the_providers_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("mine", "value")
    role_id, secret_id = store.approle()
    monkeypatch.setenv("HEDDLE_SECRET_VAULT_ROLE_ID", role_id)
    monkeypatch.setenv("HEDDLE_SECRET_VAULT_SECRET_ID", secret_id)
    assert ask(providers(store, auth="approle"), "mine").values == ("value",)
    monkeypatch.setenv("HEDDLE_SECRET_VAULT_SECRET_ID", "wrong-secret-id")
    with pytest.raises(AuthError, match="Vault refuses our login") as refused:
        ask(providers(store, auth="approle"), "mine")
    assert "wrong-secret-id" not in f"{refused.value!r} {refused.value.hint}"
    assert redact(f"sent {secret_id}") == "sent ***"


def test_a_pod_logs_in_with_its_service_account(store: Store, tmp_path: Path) -> None:
    store.put("pods", "value")
    token = tmp_path / "token"
    token.write_text(store.account("integration") + "\n")
    options = {"auth": "kubernetes", "role": "integration", "service_account": str(token)}
    assert ask(providers(store, **options), "pods").values == ("value",)
    token.write_text("a.wrong.one")
    with pytest.raises(AuthError, match="Vault refuses our login"):
        ask(providers(store, **options), "pods")
    token.unlink()
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        ask(providers(store, **options), "pods")


def test_a_login_that_was_revoked_is_made_anew(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("revoked", "value")
    role_id, secret_id = store.approle()
    earlier = {"vault/role-id": role_id, "vault/secret-id": secret_id}
    vault = Vault(VaultOptions(provider="vault", address=store.url, auth="approle"), earlier.__getitem__)
    assert vault.look_up("revoked") is not None
    store.revoke_logins()
    assert vault.look_up("revoked") is not None


def test_a_token_that_was_replaced_is_taken_up(store: Store) -> None:
    store.put("tokens", "value")
    given = [store.token(600)]
    vault = Vault(VaultOptions(provider="vault", address=store.url), lambda _: given[-1])
    assert vault.look_up("tokens") is not None
    given.append("not-a-token")
    with pytest.raises(AuthError, match="Vault refuses our login"):
        vault.look_up("tokens")
    given.append(store.token(600))
    assert vault.look_up("tokens") is not None


def test_what_a_policy_hides_is_refused_and_not_missing(store: Store) -> None:
    store.put("hidden/any", "value")
    token = store.token(600)
    vault = Vault(VaultOptions(provider="vault", address=store.url), lambda _: token)
    with pytest.raises(
        AuthError, match=r"refuses secret hidden/any: 1 error occurred: \* permission denied$"
    ) as refused:
        vault.look_up("hidden/any")
    assert "policy read on hidden/any" in refused.value.hint


def test_a_sealed_store_is_down_and_comes_back(store: Store) -> None:
    store.put("sealed", "value")
    vault = alone(store)
    assert vault.look_up("sealed") is not None
    store.seal()
    try:
        with pytest.raises(DependencyDownError, match="sealed"):
            vault.look_up("sealed")
    finally:
        store.unseal()
    assert vault.look_up("sealed") is not None


def test_a_store_that_nobody_runs_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(DependencyDownError, match=f"Vault at {url} does not answer: ConnectionError"):
        Vault(VaultOptions(provider="vault", address=url), lambda _: ROOT).look_up("any")


def test_a_token_is_renewed_when_half_of_its_life_is_over(fake: Fake) -> None:
    fake.put("any", "value")
    token, now = fake.token(600), [0.0]
    vault = Vault(VaultOptions(provider="vault", address=fake.url), lambda _: token, lambda: now[0])
    vault.look_up("any")
    now[0] = 299.0
    vault.look_up("any")
    assert ("POST", "auth/token/renew-self") not in fake.vault.log
    now[0] = 301.0
    vault.look_up("any")
    vault.look_up("any")
    assert fake.vault.log.count(("POST", "auth/token/renew-self")) == 1
    now[0] = 602.0
    fake.vault.tokens[token].renewable = False
    vault.look_up("any")
    assert fake.vault.log.count(("GET", "auth/token/lookup-self")) == 2, "what cannot be renewed is looked at anew"


def test_credentials_with_a_lease_are_written_as_the_address_needs_them(fake: Fake) -> None:
    fake.vault.credentials["ledger"] = 90
    lease = {"path": "database/creds/ledger", "text": "postgresql://{username}:{password}@db/x"}
    found = alone(fake, leases={"ledger/dsn": lease}).look_up("ledger/dsn")
    assert found is not None
    assert found.text.startswith("postgresql://v-ledger-0:p%2F0%40")
    assert (found.version, found.fresh_s, found.valid_s) == ("lease0", 60, 90)
    password = found.text.removeprefix("postgresql://v-ledger-0:p%2F0%40").removesuffix("@db/x")
    assert password not in redact(f"refused: p/0@{password} and {found.text}")


def test_a_lease_whose_fields_are_others_says_which(fake: Fake) -> None:
    fake.vault.credentials["ledger"] = 90
    leases = {
        "a": {"path": "database/creds/ledger", "text": "{user}"},
        "b": {"path": "database/creds/x", "text": "{user}"},
    }
    with pytest.raises(UsageError, match="database/creds/ledger answers no field 'user'") as caught:
        alone(fake, leases=leases).look_up("a")
    assert "it answers username, password" in caught.value.hint
    assert alone(fake, leases=leases).look_up("b") is None


def test_a_text_without_fields_is_no_lease() -> None:
    for text in ("postgresql://db", "{0.__class__}", "{"):
        entry = {"provider": "vault", "leases": {"a": {"path": "p", "text": text}}}
        with pytest.raises(UsageError, match="entry 1 vault leases a text"):
            parse([entry], "test")
