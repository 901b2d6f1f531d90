"""An imported policy as YAML: readable, with the source of each rule beside it."""

from __future__ import annotations

import itertools
import os
import shlex
import textwrap
from collections.abc import Iterable, Iterator

from rampart_seccomp.approval.escape import printable, shortened
from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Operation
from rampart_seccomp.importing.draft import Imported, Loss, Proposal
from rampart_seccomp.policy import Matcher, Policy, Rule
from rampart_seccomp.policy.cases import DIRECTORY, HOME, events
from rampart_seccomp.policy.terms import VERDICTS, WRITE

__all__ = ["losses", "to_yaml"]

WIDTH = 108
MAX_TESTS = 12


def to_yaml(imported: Imported) -> str:
    """Write a policy file, which loads.

    Raises:
        PolicyError: It would not: the policy is too large for one file.
    """
    text = "\n".join(_lines(imported)) + "\n"
    try:
        Policy.loads(text, source=imported.file)
    except PolicyError as error:
        raise PolicyError(
            f"what it translates to is not a policy: {error.problem}", file=imported.file, hint=error.hint
        ) from None
    return text


def losses(imported: Imported) -> Iterator[str]:
    """Give lines about what the policy does not say, and what else to know; without any end of line."""
    open_, closed = imported.not_enforced, [loss for loss in imported.losses if not loss.open]
    if open_:
        yield "NOT ENFORCED by this policy, and so weaker than the source:"
        yield from _grouped(open_)
    if closed:
        yield "Left out, so that nothing is allowed that was not:"
        yield from _grouped(closed)
    if imported.remarks:
        yield "To know:"
        for remark in imported.remarks:
            yield from _wrapped(f"- {printable(remark)}", "  ", "    ")


def _grouped(lost: Iterable[Loss]) -> Iterator[str]:
    ordered = sorted(lost, key=lambda loss: (loss.entry.line, loss.entry.key, loss.reason))
    for (entry, reason), group in itertools.groupby(ordered, key=lambda loss: (loss.entry, loss.reason)):
        yield from _wrapped(f"- {entry}", "  ", "    ")
        parts = ", ".join(
            f"'{printable(shortened(each.part, 120))}'" for each in group if each.part is not None
        )
        yield from _wrapped(f"{parts}: {printable(reason)}" if parts else printable(reason), "    ", "    ")


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH - 2, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first]


def _lines(imported: Imported) -> Iterator[str]:
    name = printable(shortened(os.path.basename(imported.file), 80))
    yield f"# Imported from {imported.title}: {name}"
    about = list(losses(imported))
    if about:
        yield "#"
        yield from (f"# {line}".rstrip() for line in about)
    yield "version: 1"
    if imported.policy.default and any(value != "deny" for value in imported.policy.default.values()):
        yield "default:"
        yield from (f"  {key}: {value}" for key, value in _defaults(imported.policy))
    if imported.proposals:
        yield "rules:"
        yield from itertools.chain.from_iterable(map(_rule, imported.proposals))
    tests = list(_tests(imported.policy))
    if tests:
        yield "tests:"
        yield from tests


def _defaults(policy: Policy) -> Iterator[tuple[str, str]]:
    verdicts = {policy.default[operation] for operation in WRITE}
    for operation in Operation:
        if operation in WRITE and len(verdicts) == 1:
            if operation is Operation.CREATE:
                yield "write", policy.default[operation]
        else:
            yield str(operation), policy.default[operation]


def _rule(proposal: Proposal) -> Iterator[str]:
    rule = proposal.rule
    source = "Needed by every program." if proposal.entry is None else str(proposal.entry)
    for text in (source, *map(printable, proposal.notes)):
        yield from (f"  # {line}" for line in _wrapped(text, "", "  "))
    yield f"  - name: {rule.name}"
    operations = _operations(rule)
    listed = operations[0] if len(operations) == 1 else f"[{', '.join(operations)}]"
    yield f"    {rule.verdict}: {listed}"
    for key, entries in (
        ("paths", rule.paths),
        ("commands", rule.commands),
        ("hosts", rule.hosts),
        ("except", tuple(map(str, rule.except_))),
    ):
        yield from _list(key, entries)
    if rule.message:
        yield f"    message: {_quoted(rule.message)}"
    if rule.reason:
        yield f"    reason: {_quoted(rule.reason)}"


def _operations(rule: Rule) -> list[str]:
    names = [str(operation) for operation in Operation if operation in rule.operations - WRITE]
    if rule.operations >= WRITE:
        return ["read", "write", *names[1:]] if "read" in names else ["write", *names]
    return [str(operation) for operation in Operation if operation in rule.operations]


def _list(key: str, entries: tuple[str, ...]) -> Iterator[str]:
    if not entries:
        return
    line = f"    {key}: [{', '.join(map(_quoted, entries))}]"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"    {key}:"
    yield from (f"      - {_quoted(entry)}" for entry in entries)


def _quoted(text: str) -> str:
    """Write a double-quoted YAML scalar (YAML 1.2, 7.3.1), which holds any text on one line."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _tests(policy: Policy) -> Iterator[str]:
    """Give test entries that hold, of the strictest rules first; each is an object that a rule is about."""
    matcher = policy.matcher(home=HOME, directory=DIRECTORY)
    rules = sorted(policy.rules, key=lambda rule: -VERDICTS.index(rule.verdict))
    found = itertools.chain.from_iterable(_test(matcher, rule) for rule in rules)
    yield from itertools.islice(found, MAX_TESTS)


def _test(matcher: Matcher, rule: Rule) -> Iterator[str]:
    for key, value in _samples(rule):
        operation = _operations(rule)[0]
        try:
            decisions = [matcher.decide(event) for event in events(matcher, operation, **{key: value})]
        except PolicyError:
            continue
        if decisions and all(decision.rule is rule for decision in decisions):
            yield f"  - {{{rule.verdict}: {operation}, {key}: {_quoted(value)}, by: {rule.name}}}"
            return


def _samples(rule: Rule) -> Iterator[tuple[str, str]]:
    """Give objects that the patterns of a rule match, as keys and values of test entries."""
    for text in rule.paths:
        if not text.startswith("@"):
            names = text.split("/")
            if names[-1] == "**" and len(names) > 2:
                names.pop()
            names = ["sample" if name in ("*", "**") else _plain(name) for name in names]
            yield "path", "/".join(["", *names] if names[0] == "sample" else names)
    for text in rule.commands:
        program, *arguments = [
            "sample" if word == "*" else word for word in shlex.split(text) if word != "**"
        ]
        yield "command", shlex.join([_plain(program), *(word.replace("*", "x") for word in arguments)])
    for text in rule.hosts:
        if "/" not in text:
            host, _, ports = text.replace("*", "sample").partition(":")
            yield "host", f"{host}:{ports.split(',')[0] or 443}"


def _plain(name: str) -> str:
    """Give a name that a component matches; a guess where it has classes, which the caller checks."""
    for pattern, plain in (("[*]", "*"), ("[?]", "?"), ("[[]", "["), ("[{]", "{")):
        name = name.replace(pattern, plain)
    return name.replace("*", "x").replace("?", "x")
