"""What credentials look like: a table of shapes, and the values that only look like one.

Each shape has words of which a text holding it contains one, so that most texts need no pattern at
all; every pattern is anchored at such a word and every repetition is bounded. Entropy alone accuses
nothing: hashes of commits are everywhere.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of credential; group `s` of the pattern is the secret, else the whole match.

    `context` says that only words nearby tell it from other text: its value must look random.
    """

    name: str
    needles: tuple[str, ...]
    pattern: re.Pattern[str]
    context: bool = False


def _shape(name: str, needles: str, pattern: str, *, context: bool = False) -> Shape:
    # A needle written in lower case is looked for in the lowered text.
    return Shape(name, tuple(needles.split()), re.compile(pattern), context)


_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_ASSIGNED = r"[\"'\]`]{0,3}[ \t]{0,8}(?::=|=>|[:=]{1,3})[ \t]{0,8}(?:[rbuf]?[\"'`]{1,3})?"
_VALUE = r"(?P<s>[^\s\"'`,;<>(){}\[\]\\|]{8,200})(?=[\s\"'`,;)}\]\\]|$)"
_URL = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://"

SHAPES = (
    _shape("aws_access_key", "AKIA ASIA ABIA ACCA", rf"{_START}A[KSBC][IC]A[A-Z2-7]{{16}}{_END}"),
    _shape(
        "aws_secret_key",
        "secret_access_key secretaccesskey secret-access-key aws_secret secret_key",
        rf"(?i:secret[_-]?(?:access[_-]?)?key|aws_secret){_ASSIGNED}"
        r"(?P<s>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        context=True,
    ),
    _shape(
        "github_token",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        rf"{_START}(?:gh[pousr]_[A-Za-z0-9]{{36,255}}|github_pat_[A-Za-z0-9]{{22}}_[A-Za-z0-9]{{59}})"
        rf"{_END}",
    ),
    _shape(
        "gitlab_token",
        "glpat- gldt- glrt- glptt- GR1348941",
        rf"{_START}(?:gl(?:pat|dt|rt|ptt)-|GR1348941)[A-Za-z0-9_-]{{20,50}}{_END}",
    ),
    _shape(
        "huggingface_token",
        "hf_ api_org_",
        rf"{_START}(?:hf_|api_org_)[A-Za-z]{{34}}{_END}",
    ),
    _shape(
        "openai_key",
        "sk-",
        rf"{_START}sk-(?:(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{{40,200}}|[A-Za-z0-9]{{48}})"
        rf"{_END}",
    ),
    _shape("anthropic_key", "sk-ant-", rf"{_START}sk-ant-[A-Za-z0-9_-]{{32,200}}{_END}"),
    _shape("openrouter_key", "sk-or-", rf"{_START}sk-or-v1-[0-9a-f]{{64}}{_END}"),
    _shape("google_key", "AIza", rf"{_START}AIza[A-Za-z0-9_-]{{35}}(?![A-Za-z0-9_-])"),
    _shape(
        "google_oauth",
        "GOCSPX- ya29.",
        rf"{_START}(?:GOCSPX-[A-Za-z0-9_-]{{28}}|ya29\.[A-Za-z0-9_-]{{30,400}})(?![A-Za-z0-9_-])",
    ),
    _shape(
        "slack_token",
        "xoxa- xoxb- xoxp- xoxr- xoxs- xoxe- xapp- hooks.slack.com",
        rf"{_START}(?:xox[abprse]-[0-9A-Za-z-]{{20,250}}|xapp-1-[0-9A-Za-z-]{{40,250}})"
        r"|hooks\.slack\.com/services/(?P<s>T[A-Z0-9]{6,14}/B[A-Z0-9]{6,14}/[A-Za-z0-9]{20,32})",
    ),
    _shape(
        "discord_hook",
        "/api/webhooks/",
        r"/api/webhooks/[0-9]{15,21}/(?P<s>[A-Za-z0-9_-]{60,80})(?![A-Za-z0-9_-])",
    ),
    _shape(
        "discord_token",
        "discord bot",
        rf"{_START}[MNO][A-Za-z0-9_-]{{23,27}}\.[A-Za-z0-9_-]{{6}}\.[A-Za-z0-9_-]{{27,40}}{_END}",
    ),
    _shape(
        "stripe_key",
        "sk_live_ rk_live_ sk_test_ rk_test_ whsec_",
        rf"{_START}(?:[sr]k_(?:live|test)_[0-9A-Za-z]{{20,250}}|whsec_[A-Za-z0-9+/]{{32,64}}){_END}",
    ),
    _shape("sendgrid_key", "SG.", rf"{_START}SG\.[A-Za-z0-9_-]{{22}}\.[A-Za-z0-9_-]{{43}}{_END}"),
    _shape(
        "twilio_key",
        "twilio",
        rf"(?i:twilio).{{0,60}}?{_START}(?P<s>(?:SK)?[0-9a-f]{{32}}){_END}",
        context=True,
    ),
    _shape("npm_token", "npm_", rf"{_START}npm_[A-Za-z0-9]{{36}}{_END}"),
    _shape(
        "npm_auth",
        ":_authToken",
        r":_authToken[ \t]{0,4}=[ \t]{0,4}[\"']?(?P<s>[A-Za-z0-9_-]{20,100})",
        context=True,
    ),
    _shape("pypi_token", "pypi-", rf"{_START}pypi-A[A-Za-z0-9_-]{{50,250}}"),
    _shape("docker_token", "dckr_pat_", rf"{_START}dckr_pat_[A-Za-z0-9_-]{{27}}"),
    _shape("azure_storage_key", "AccountKey=", r"AccountKey=(?P<s>[A-Za-z0-9+/]{86}==)"),
    _shape("azure_sas", "sig=", r"[?&]sig=(?P<s>[A-Za-z0-9%+/]{43,70}(?:%3[Dd]|=))"),
    _shape(
        "azure_client_secret",
        "8Q~ 7Q~",
        rf"{_START}[A-Za-z0-9_.~-]{{3}}[78]Q~[A-Za-z0-9_.~-]{{31,34}}",
    ),
    _shape(
        "wandb_key",
        "wandb",
        r"(?i:wandb)[A-Za-z_. ]{0,30}(?:\(key=|"
        rf"{_ASSIGNED}|[ ]{{1,3}})[\"']?(?P<s>[0-9a-f]{{40}}){_END}",
        context=True,
    ),
    _shape("databricks_token", "dapi", rf"{_START}dapi[0-9a-f]{{32}}(?:-[0-9])?{_END}"),
    _shape(
        "digitalocean_token", "dop_v1_ doo_v1_ dor_v1_", rf"(?:dop|doo|dor)_v1_[0-9a-f]{{64}}{_END}"
    ),
    _shape("shopify_token", "shpat_ shpss_ shpca_ shppa_", r"shp(?:at|ss|ca|pa)_[0-9a-fA-F]{32}"),
    _shape(
        "telegram_token", ":AA", rf"{_START}[0-9]{{8,10}}:AA[A-Za-z0-9_-]{{33}}(?![A-Za-z0-9_-])"
    ),
    _shape("mailchimp_key", "-us", rf"{_START}[0-9a-f]{{32}}-us[0-9]{{1,2}}{_END}"),
    _shape("mailgun_key", "key-", rf"{_START}key-[0-9a-f]{{32}}{_END}"),
    _shape("groq_key", "gsk_", rf"{_START}gsk_[A-Za-z0-9]{{52}}{_END}"),
    _shape("replicate_key", "r8_", rf"{_START}r8_[A-Za-z0-9]{{37}}{_END}"),
    _shape("square_token", "sq0 EAAA", rf"{_START}(?:sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{{22,43}})"),
    _shape("linear_key", "lin_api_", rf"{_START}lin_api_[A-Za-z0-9]{{40}}{_END}"),
    _shape("newrelic_key", "NRAK-", rf"{_START}NRAK-[A-Z0-9]{{27}}{_END}"),
    _shape("age_key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    _shape(
        "private_key",
        "PRIVATE",
        r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----(?:\\n|\s){0,4}"
        r"(?P<s>(?:\\n|-(?!-)|[A-Za-z0-9+/=\s:,.()]){64,8000})-----END",
    ),
    _shape(
        "jwt",
        "eyJ",
        rf"{_START}eyJ[A-Za-z0-9_-]{{10,400}}\.eyJ[A-Za-z0-9_-]{{10,2000}}\.[A-Za-z0-9_-]{{20,700}}",
    ),
    _shape(
        "url_password",
        "://",
        rf"{_URL}[^\s:/@\"'<>{{}}$]{{1,64}}:(?P<s>[^\s:/@\"'<>{{}}$%*\[\]]{{6,100}})@[A-Za-z0-9.-]{{2,100}}",
        context=True,
    ),
    _shape(
        "bearer_token",
        "bearer",
        r"(?i:bearer)[ \t]{1,4}(?P<s>[A-Za-z0-9_.~+/-]{24,400}={0,2})(?![A-Za-z0-9_.~+/-])",
        context=True,
    ),
    _shape(
        "password",
        "password passwd pwd secret api_key apikey api-key auth_token access_token access_key",
        r"(?i:passw(?:or)?d|pwd|secret(?:[_-]?key)?|api[_-]?key|auth[_-]?token|access[_-]?token"
        rf"|access[_-]?key){_ASSIGNED}{_VALUE}",
        context=True,
    ),
)

# What no random value holds by chance, however long it is.
_SURELY_STANDS_FOR = re.compile(
    r"example|placeholder|redacted|x{6}|\*\*\*|\.\.\.|your[-_](?:api|key|token|secret)|12345678|abcdefgh",
    re.IGNORECASE,
)
_STANDS_FOR = re.compile(
    r"example|placeholder|change[-_]?me|dummy|fake|insecure|redacted|sample|your[-_]|[-_]here\b|xxx"
    r"|\*\*\*|\.\.\.|todo|abcdef|qwerty|123456|987654|deadbeef|foobar|foo_|bar_|my[-_]?(?:secret|pass"
    r"|token|key)|(?:super|top)[-_]?secret|not[-_]?(?:so[-_]?)?secret|s3cr3t|test(?:ing)?[-_]?(?:key"
    r"|pass|secret|token)|pass(?:word|wd)|lorem|%s|\$\{|\{\{",
    re.IGNORECASE,
)
# Words joined as names in code and paths are, each with at most two digits after it.
_NAME = r"(?:[A-Z]{2,40}|[A-Z]?[a-z]{1,40}(?:[A-Z]{1,4}[a-z]{2,40}){0,6})[0-9]{0,2}"
_CODE = re.compile(
    rf"[_./~@$-]{{0,3}}{_NAME}(?:[_.:/=&-]{{1,3}}{_NAME})*[_.:=/-]{{0,2}}[0-9]{{0,4}}"
)


def stands_for_secret(value: str, *, context: bool) -> bool:
    """Whether a value is a placeholder or a documented example rather than a credential.

    Args:
        value: The value without its prefix words.
        context: Only words nearby made it a suspect, so that it must look random by itself.
    """
    if _SURELY_STANDS_FOR.search(value) or len(set(value)) < 6:
        return True
    if not context:
        return False
    if _STANDS_FOR.search(value):
        return True
    kinds = {
        "a" if c.islower() else "A" if c.isupper() else "0" if c.isdigit() else "" for c in value
    }
    return len(kinds) < 2 or bool(_CODE.fullmatch(value)) or _bits(value) < 2.75


def _bits(value: str) -> float:
    """Shannon entropy per character."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values())
