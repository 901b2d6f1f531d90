"""Policies as YAML text."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.policy.answering import Names, to_names
from rampart_seccomp.policy.exemptions import Except, Exemption
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.limits import KEYS, Limits
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.rules import CONDITIONS, PolicyTest, Rule
from rampart_seccomp.policy.terms import WRITE
from rampart_seccomp.verdicts import Redirect

__all__ = ["dump_grants", "dumps"]

WIDTH = 100

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z", re.ASCII)
_SENTENCE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*( [A-Za-z0-9_.,;()'/+-]+)*\Z", re.ASCII)
_CONSTANTS = frozenset({"null", "true", "false"})


def dumps(policy: Policy) -> str:
    """Implement `Policy.dumps`."""
    for rule in policy.effective:
        if rule.decide is not None:
            raise PolicyError(
                f"the rule {rule.name!r} is answered by code, which cannot be written down",
                file=rule.file,
                line=rule.line,
                hint="leave the rule out, and add it in Python",
            )
        if rule.redirect is not None and rule.redirect.content is not None:
            raise PolicyError(
                f"the rule {rule.name!r} shows bytes of this process, which a file does not have",
                file=rule.file,
                line=rule.line,
                hint="write them to a file, and redirect to that",
            )
    text = "\n".join(_lines(policy)) + "\n"
    if Policy.loads(text, source=policy.source or "<string>") != policy:
        raise PolicyError("the policy cannot be written as one file")
    return text


def dump_grants(grants: Iterable[Grant]) -> str:
    """Write grants as the text of an overrides file, which `load_grants` reads."""
    return "".join(f"- {_flow(_grant(grant))}\n" for grant in grants)


def _lines(policy: Policy) -> Iterator[str]:
    yield "version: 1"
    default = {str(operation): verdict for operation, verdict in policy.default.items() if verdict != "deny"}
    if len({policy.default[operation] for operation in WRITE}) == 1:
        written = {str(operation) for operation in WRITE}
        default = {("write" if key in written else key): verdict for key, verdict in default.items()}
    if default:
        yield "default:"
        yield from (f"  {key}: {verdict}" for key, verdict in default.items())
    if policy.features:
        yield f"features: [{', '.join(sorted(policy.features))}]"
    if policy.audit != "all":
        yield f"audit: {policy.audit}"
    if policy.environment.drop:
        yield "environment:"
        yield from _list("  ", "drop", policy.environment.drop)
        if policy.environment.pass_:
            yield from _list("  ", "pass", policy.environment.pass_)
    yield from _limits(policy.limits)
    if policy.linger:
        yield "linger: true"
    yield from _names(policy.names)
    if policy.rules:
        yield "rules:"
    for rule in policy.rules:
        yield from _rule(rule)
    if policy.grants:
        yield "grants:"
        yield from (f"  - {_flow(_grant(grant))}" for grant in policy.grants)
    if policy.tests:
        yield "tests:"
        yield from (f"  - {_flow(_test(test))}" for test in policy.tests)


def _names(names: Names) -> Iterator[str]:
    if names == to_names("synthetic"):
        yield "names: synthetic"
    elif names.synthetic:
        yield f"names: {_flow({'synthetic': list(map(str, names.synthetic))})}"


def _limits(limits: Limits) -> Iterator[str]:
    values = {key: getattr(limits, key.replace("-", "_")) for key in KEYS}
    if any(value is not None for value in values.values()):
        yield "limits:"
    for key, value in values.items():
        if value is not None:
            yield f"  {key}: {_seconds(value) if key == 'wall-time' else value}"


def _seconds(seconds: float) -> str:
    return f"{Decimal(repr(seconds)):f}s"


def _rule(rule: Rule) -> Iterator[str]:
    yield f"  - name: {_text(rule.name)}"
    operations = [str(each) for each in Operation if each in rule.operations]
    if rule.operations >= WRITE:
        operations = [each for each in operations if Operation(each) not in WRITE] + ["write"]
    yield f"    {rule.verdict}: {'[' + ', '.join(operations) + ']' if operations[1:] else operations[0]}"
    for key in ("reason", "message"):
        value = getattr(rule, key)
        if value is not None:
            yield f"    {key}: {_text(value)}"
    for key in CONDITIONS:
        if getattr(rule, key):
            yield from _list("    ", key, getattr(rule, key))
    if rule.except_:
        yield from _list("    ", "except", rule.except_)
    if rule.errno is not None:
        yield f"    errno: {errno.errorcode[rule.errno]}"
    if rule.timeout is not None:
        yield f"    timeout: {_seconds(rule.timeout)}"
    if not rule.log:
        yield "    log: false"
    if rule.redirect is not None:
        yield f"    redirect: {_redirect(rule.redirect)}"


def _redirect(redirect: Redirect) -> str:
    return _flow({"to": redirect.to, "mask": redirect.mask})


def _list(indent: str, key: str, entries: Iterable[Except]) -> Iterator[str]:
    quoted = [
        _flow({name: list(texts) for name, texts in entry.given.items()})
        if isinstance(entry, Exemption)
        else _quoted(entry)
        for entry in entries
    ]
    line = f"{indent}{key}: [{', '.join(quoted)}]"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{indent}{key}:"
    yield from (f"{indent}  - {each}" for each in quoted)


def _grant(grant: Grant) -> dict[str, str | list[str] | None]:
    return {
        "operation": str(grant.operation),
        "path": None if grant.path is None else os.fsdecode(grant.path),
        "command": None if grant.command is None else list(map(os.fsdecode, grant.command)),
        "host": grant.host,
        "port": grant.port,
        "rule": grant.rule,
        "by": grant.by,
        "at": grant.at,
    }


def _test(test: PolicyTest) -> dict[str, str | list[str] | Redirect | bool | None]:
    return {
        test.verdict: test.operation,
        "path": test.path,
        "command": test.command,
        "host": test.host,
        "port": test.port,
        "program": test.program,
        "within": test.within,
        "env": list(test.env) or None,
        "by": test.by,
        "redirect": test.redirect,
    }


def _flow(fields: Mapping[str, str | list[str] | Redirect | bool | None]) -> str:
    parts = []
    for key, value in fields.items():
        if isinstance(value, list):
            parts.append(f"{key}: [{', '.join(map(_quoted, value))}]")
        elif isinstance(value, Redirect):
            parts.append(f"{key}: {_redirect(value)}")
        elif isinstance(value, bool):
            parts.append(f"{key}: {str(value).lower()}")
        elif value is not None:
            parts.append(f"{key}: {value if _is_word(value) else _quoted(value)}")
    return "{" + ", ".join(parts) + "}"


def _text(text: str) -> str:
    """Write text that stands alone on its line."""
    return text if _SENTENCE.match(text) and text.lower() not in _CONSTANTS else _quoted(text)


def _is_word(text: str) -> bool:
    return _WORD.match(text) is not None and text.lower() not in _CONSTANTS


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    number = ord(character)
    if character in '"\\':
        return "\\" + character
    if 0x20 <= number < 0x7F:
        return character
    if character.isprintable() and number > 0xA0:
        return character
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
