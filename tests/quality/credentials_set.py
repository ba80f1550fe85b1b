"""Shapes of credentials, made up when the tests run so that no file holds anything like one.

36 texts that hold one, and 19 controls that look as if they did.
"""

from __future__ import annotations

import random
import string

HEX = "0123456789abcdef"
ALNUM = string.ascii_letters + string.digits
WORDS = ALNUM + "_-"
BASE64 = ALNUM + "+/"
SLASH = "/"


def made(count: int, alphabet: str = ALNUM, *, seed: int = 7) -> str:
    """Random characters, the same on every run, beginning and ending with a letter or digit."""
    draw = random.Random(f"{seed}:{count}:{alphabet}")
    middle = "".join(draw.choice(alphabet) for _ in range(count - 2))
    ends = [character for character in alphabet if character.isalnum()]
    return draw.choice(ends) + middle + draw.choice(ends)


def shapes(seed: int = 7) -> dict[str, tuple[str, str]]:
    """Name to (text, the secret in it)."""

    def some(count: int, alphabet: str = ALNUM) -> str:
        return made(count, alphabet, seed=seed)

    def jwt_part(count: int) -> str:
        return "eyJ" + some(count, WORDS)

    upper = string.ascii_uppercase + "234567"
    hook = "https:" + SLASH * 2
    pem = "-----BEGIN RSA PRIVATE" + " KEY-----\n"
    body = "\n".join(some(64, BASE64) for _ in range(6)) + "\n"
    tokens = {
        "aws id": ("id = {}", "AK" + "IA" + some(16, upper)),
        "aws temporary id": ("export AWS_ACCESS_KEY_ID={}", "AS" + "IA" + some(16, upper)),
        "aws secret quoted": ('aws_secret_access_key = "{}"', some(40, BASE64)),
        "aws secret bare": ("AWS_SECRET_ACCESS_KEY={}", some(40, BASE64)),
        "github classic": ("git clone https://x:{}@github.com/a/b", "gh" + "p_" + some(36)),
        "github app": ("token {} expired", "gh" + "s_" + some(36)),
        "github fine": ("GITHUB_TOKEN={}", "github" + f"_pat_{some(22)}_{some(59)}"),
        "gitlab": ("PRIVATE-TOKEN: {}", "gl" + "pat-" + some(20, WORDS)),
        "hugging face": ("login({!r})", "h" + "f_" + some(34, string.ascii_letters)),
        "openai project": ("OPENAI_API_KEY={}", "sk-" + "proj-" + some(120, WORDS)),
        "openai classic": ("key {}", "sk" + "-" + some(20) + "T3Blbk" + "FJ" + some(20)),
        "anthropic": ("x-api-key: {}", "sk-" + "ant-api03-" + some(93, WORDS) + "AA"),
        "google": ("?key={}", "AI" + "za" + some(35, WORDS)),
        "google oauth": ("client_secret: {}", "GOC" + "SPX-" + some(28, WORDS)),
        "slack bot": ("SLACK={}", "xo" + f"xb-{some(12, string.digits)}-{some(24)}"),
        "slack hook": (
            hook + "hooks.slack.com/services/{}",
            f"T{some(9, upper)}/B{some(9, upper)}/{some(24)}",
        ),
        "discord hook": (
            hook + f"discord.com/api/webhooks/{some(18, string.digits)}/" + "{}",
            some(68, WORDS),
        ),
        "discord bot": ("discord.run('{}')", f"M{some(23)}.{some(6)}.{some(27)}"),
        "stripe": ("stripe.api_key = '{}'", "sk" + "_live_" + some(24)),
        "sendgrid": ("SENDGRID: {}", f"SG.{some(22, WORDS)}.{some(43, WORDS)}"),
        "twilio": ("TWILIO_AUTH_TOKEN={}", some(32, HEX)),
        "npm": (SLASH * 2 + "registry.npmjs.org/:_authToken={}", "np" + "m_" + some(36)),
        "pypi": ("password = {}", "py" + "pi-AgEIcHlwaS5vcmc" + some(120, WORDS)),
        "azure storage": (
            "DefaultEndpointsProtocol=https;AccountKey={};x",
            some(86, BASE64) + "==",
        ),
        "azure sas": (
            hook + "a.blob.core.windows.net/c?sv=2022-11-02&se=2026&sig={}&sp=r",
            some(43) + "%3D",
        ),
        "w&b": ("WANDB_API_KEY={}", some(40, HEX)),
        "databricks": ("token: {}", "da" + "pi" + some(32, HEX)),
        "digitalocean": ("DO={}", "do" + "p_v1_" + some(64, HEX)),
        "telegram": ("bot({})", f"{some(10, string.digits)}:A" + "A" + some(33, WORDS)),
        "mailchimp": ("MC {}", some(32, HEX) + "-u" + "s12"),
        "private key": (pem + "{}-----END RSA PRIVATE" + " KEY-----", body),
        "jwt": ("Cookie: session={}", f"{jwt_part(33)}.{jwt_part(80)}.{some(43, WORDS)}"),
        "database url": ("postgresql:" + SLASH * 2 + "admin:{}@db.internal:5432/x", some(14)),
        "bearer": ("Authorization: Bearer {}", some(48)),
        "yaml password": ("db:\n  user: admin\n  password: {}\n", some(10) + "!7"),
        "env secret": ("DJANGO_SECRET_KEY={}", some(50, ALNUM + "!@#^&*-_=+")),
    }
    return {name: (text.format(secret), secret) for name, (text, secret) in tokens.items()}


def controls() -> dict[str, str]:
    """Texts without a credential."""
    url = "https:" + SLASH * 2
    return {
        "aws example id": "AWS_ACCESS_KEY_ID=AK" + "IAIOSFODNN7EXAMPLE",
        "aws example secret": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPx"
        + "RfiCYEXAMPLEKEY",
        "placeholder": 'api_key = "your-api-key"',
        "stars": "password: ********",
        "commit": f"index {made(40, HEX)}..{made(40, HEX, seed=8)} 100644",
        "sha256": f'"sha256": "{made(64, HEX)}"',
        "uuid": "id: 123e4567-e89b-12d3-a456-426614174000",
        "integrity": f'"integrity": "sha512-{made(86, BASE64)}=="',
        "variable": "password = os.environ['DB_PASSWORD']",
        "call": "client = Client(api_key=settings.OPENAI_API_KEY, secret=get_secret(name))",
        "template": "password: ${DB_PASSWORD}\napi_key: {{ vault.key }}",
        "annotation": "def login(user: str, password: Optional[SecretStr] = None) -> AccessToken:",
        "documentation url": url + "user:password@example.com/path",
        "port": "see " + url + "localhost:8000/a@b and git@github.com:a/b.git",
        "data": f"data:image/png;base64,{made(200, BASE64)}",
        "prose": "The secret: never compare password=hash with ==; the bearer of bad news is gone.",
        "slug": "sk-learn-is-not-a-key-but-a-rather-long-name-with-many-dashes-in-it",
        "public key": "-----BEGIN PUBLIC KEY-----\n"
        + made(64, BASE64)
        + "\n-----END PUBLIC KEY-----",
        "test password": 'User.objects.create_user("bob", password="testpass123")',
    }
