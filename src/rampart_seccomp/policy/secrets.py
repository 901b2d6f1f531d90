"""Well-known secrets, and which of them a policy lets be read."""

from __future__ import annotations

from collections.abc import Iterator

from rampart_seccomp.events import FileEvent, Operation
from rampart_seccomp.policy.cases import DIRECTORY, HOME
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.matcher import Match
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import Rule

__all__ = ["SECRETS", "readable"]

SECRETS = (
    "~/.ssh/id_ed25519",
    "~/.ssh/id_rsa",
    "~/.aws/credentials",
    "~/.aws/sso/cache/token.json",
    "~/.azure/msal_token_cache.json",
    "~/.config/gcloud/application_default_credentials.json",
    "~/.kube/config",
    "~/.docker/config.json",
    "~/.config/gh/hosts.yml",
    "~/.git-credentials",
    "~/.netrc",
    "~/.npmrc",
    "~/.pypirc",
    "~/.cargo/credentials.toml",
    "~/.gnupg/private-keys-v1.d/key.key",
    "~/.password-store/login.gpg",
    "~/.local/share/keyrings/login.keyring",
    "~/.vault-token",
    "~/.pgpass",
    "~/.my.cnf",
    "~/.terraform.d/credentials.tfrc.json",
    "~/.config/rclone/rclone.conf",
    "~/.config/google-chrome/Default/Cookies",
    "~/.mozilla/firefox/x.default/logins.json",
    "~/.claude/.credentials.json",
    "~/.codex/auth.json",
    "~/.bash_history",
    "~/.zsh_history",
    "~/.bitcoin/wallet.dat",
    "./.env",
    "./.env.production",
    "/etc/shadow",
    "/etc/ssh/ssh_host_ed25519_key",
    "/run/secrets/token",
)
"""One name for each kind; ``~`` and ``./`` as in a policy."""


def readable(policy: Policy) -> Iterator[tuple[Decision, Rule | None, list[str]]]:
    """Give the well-known secrets that may be read, as they are, without a question.

    Yields:
        What allows them; the deny or ask rule that would not, but for its ``except``; their names.
    """
    matcher = policy.matcher(home=HOME, directory=DIRECTORY)
    found: dict[tuple[str, str | None], tuple[Decision, Rule | None, list[str]]] = {}
    for name in SECRETS:
        path = name.encode()
        if name.startswith("~"):
            path = HOME + path[1:]
        elif name.startswith("."):
            path = DIRECTORY + path[1:]
        event = FileEvent(operation=Operation.READ, path=path)
        decision = matcher.decide(event)
        if decision.verdict != "allow" or decision.redirect is not None:
            continue
        subject = matcher.subject(event)
        silent = next(
            (
                entry.rule
                for entry in matcher.entries[Operation.READ]
                if entry.rule is not None
                and entry.rule.verdict != "allow"
                and entry.match(subject) is Match.EXCEPTED
            ),
            None,
        )
        key = (decision.where, silent.name if silent else None)
        found.setdefault(key, (decision, silent, []))[2].append(name)
    yield from found.values()
