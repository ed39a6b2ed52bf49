"""`heddle check` finds credentials in the role folders, and leaves alone what only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from heddle.operations.check import check_project
from heddle.operations.credentials import credentials_in

# Put together here, so that no scanner of repositories takes this file for a leak.
GITHUB = "ghp_" + "a1B2" * 9
STRIPE = "sk_live_" + "4eC39HqLyjWDarjtT1"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
JWT = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N"
VAULT = "hvs." + "CAESIJlU8mZDk4gRx2mnBVbT"
TOKENS = [
    ("an AWS access key id", ("ASIA", "IOSFODNN7EXAMPLE")),
    ("a GitHub token", ("github", "_pat_", "a1B2" * 13)),
    ("a GitLab token", ("glpat", "-", "a1B2" * 5)),
    ("a Google API key", ("AIza", "a1B2c" * 7)),
    ("a HubSpot token", ("pat-", "eu1-", "01234567-89ab-cdef-0123-456789abcdef")),
    ("an npm token", ("npm", "_", "a1B2" * 9)),
    ("a SendGrid key", ("SG", ".", "a1" * 11, ".", "b" * 43)),
    ("a Shopify token", ("shp", "at_", "0a" * 16)),
    ("a Slack token", ("xox", "b-", "a1B2" * 3)),
    ("a Stripe key", ("rk", "_test_", "a1B2" * 4)),
    ("a Vault token", ("hvb", ".", "a1B2" * 6)),
    ("a webhook secret", ("whsec", "_", "a1B2" * 6)),
]
KEYWORDS = [
    "access_key",
    "access_token",
    "api_token",
    "apikey",
    "auth_token",
    "bearer_token",
    "client_secret",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "refresh_token",
    "secret",
    "secret_key",
]
PEM = "-----BEGIN " + "RSA PRIVATE KEY-----"


def found(tmp_path: Path, source: str) -> list[tuple[int, str]]:
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    return [tuple(literal) for literal in credentials_in(path)]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ('dsn = "postgresql://me:hunter22@db/x"', "an address with a password"),
        ('dsn = "redis://:hunter22@cache"', "an address with a password"),
        ('dsn = f"postgresql://me:hunter22@{host}/x"', "an address with a password"),
        ('dsn = f"postgresql://{user}:hunter22@db/x"', "an address with a password"),
        ('dsn = ("postgresql://me:hun" "ter22@db/x")', "an address with a password"),
        ('dsn = "host=db user=me password=hunter22"', "a connection string with a password"),
        ("""dsn = "password='hunter22' host=db" """, "a connection string with a password"),
        ('dsn = "Server=db;Database=x;Pwd=hunter22"', "a connection string with a password"),
        (f'key = """{PEM}\nabc\n"""', "a private key"),
        (f'key = b"{PEM}"', "a private key"),
        (f'client = Client("{GITHUB}")', "a GitHub token"),
        (f'headers = {{"authorization": "Bearer {STRIPE}"}}', "a Stripe key"),
        (f'key = "{AWS}"', "an AWS access key id"),
        (f'"""A docstring is source too: {JWT}"""', "a JSON Web Token"),
        (f'key = "{VAULT}"', "a Vault token"),
        *((f'value = "{"".join(parts)}"', kind) for kind, parts in TOKENS),
        *((f'client = Client({keyword}="hunter22")', f"the argument {keyword}") for keyword in KEYWORDS),
        ('client = http.client(api_key="hunter22", other=1)', "the argument api_key"),
        ('verify(token=b"hunter22")', "the argument token"),
        ('headers = {"Authorization": "Bearer hunter22"}', "the header Authorization"),
        ('headers = {"Accept": "*/*", "x-api-key": "hunter22"}', "the header x-api-key"),
    ],
)
def test_what_is_a_credential(tmp_path: Path, source: str, kind: str) -> None:
    assert found(tmp_path, source) == [(1, kind)]


@pytest.mark.parametrize(
    "source",
    [
        'dsn = secret("ledger/dsn")',
        'client = Client(password=secret("crm/password"), token=os.environ["TOKEN"])',
        'url = "https://api.example.com:8443/path?next=a@b"',
        'url = "postgresql://db:5432/x"',
        'url = f"postgresql://{user}:{password}@db/x"',
        'url = "postgresql://user:password@db/x"',
        'url = "postgresql://<user>:<password>@db/x"',
        'mapping = Mapping(Deal, Invoice, token="token", secret=take("secret"))',
        'nested = dict(body=record(password="user.password"))',
        'echo = EchoQuery("hub.challenge", token=secret("meta/verify"), token_parameter="hub.verify_token")',
        'password = ""\nclient = Client(password="", token="***", secret="{secret}")',
        'text = "the password = what the user typed"',
        'name = "skip_live_migration and ghp_short"',
        'page = fetch(next_page_token="abc", secret_name="ledger/dsn")',
        'headers = {"Authorization": f"Bearer {token}", "X-Api-Key": secret("crm/key"), "Api-Key": ""}',
        'headers = {"Authorization": "Bearer <token>", "X-Auth-Token": "***", **more}',
        '"not python',
    ],
)
def test_what_is_none(tmp_path: Path, source: str) -> None:
    assert found(tmp_path, source) == []


def test_a_line_may_say_that_it_is_none_for_itself_alone(tmp_path: Path) -> None:
    source = (
        'first = Client(password="hunter22")  # heddle: not a credential, the vendor\'s public test account\n'
        'second = Client(password="hunter22")\n'
        "third = Client(\n"
        '    password="""hunter\n'
        '22""",  # heddle: not a credential\n'
        ")\n"
        'fourth = Client(password="# heddle: not a credential")\n'
    )
    assert found(tmp_path, source) == [(2, "the argument password"), (7, "the argument password")]


def test_check_names_file_line_and_kind_and_not_the_value(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.heddle]\nproject = "p"\n')
    (tmp_path / "consumers" / "deep").mkdir(parents=True)
    (tmp_path / "consumers" / "_helpers.py").write_text(f'\nKEY = "{STRIPE}"\n')
    (tmp_path / "consumers" / "deep" / "more.py").write_text('DSN = "postgresql://me:hunter22@db/x"\n')
    problems = check_project(tmp_path)
    assert [(problem.file, problem.message) for problem in problems] == [
        ("consumers/_helpers.py:2", "a Stripe key stands in the source"),
        ("consumers/deep/more.py:1", "an address with a password stands in the source"),
    ]
    assert STRIPE not in str(problems)
    assert "hunter22" not in str(problems)
    assert "# heddle: not a credential" in problems[0].hint


def test_check_names_a_wrong_entry_of_the_stores(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.heddle]\nproject = "p"\n[[tool.heddle.secrets]]\nprovider = "vault"\nmonut = "kv"\n'
    )
    (problem,) = check_project(tmp_path)
    assert problem.file == "pyproject.toml"
    assert problem.message.startswith("[[tool.heddle.secrets]]: entry 1 vault monut: Extra inputs")


@pytest.mark.parametrize(
    ("given", "told"), [("hunter22", "HEDDLE_SECRETS: not JSON"), ('[{"provider": "vaul"}]', "HEDDLE_SECRETS: entry 1")]
)
def test_check_reads_the_stores_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, told: str
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.heddle]\nproject = "p"\n')
    (tmp_path / "consumers").mkdir()
    assert check_project(tmp_path) == []
    monkeypatch.setenv("HEDDLE_SECRETS", given)
    (problem,) = check_project(tmp_path)
    assert told in problem.message
    assert "hunter22" not in str(problem)
