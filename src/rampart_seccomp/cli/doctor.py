"""``rampart-seccomp doctor``: what this machine enforces a policy with, and what is lost."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rampart_seccomp.approval.escape import printable
from rampart_seccomp.cli import Parser
from rampart_seccomp.errors import RampartError

if TYPE_CHECKING:
    from rampart_seccomp.events import Operation
    from rampart_seccomp.kernel.probes import Features, Finding
    from rampart_seccomp.policy import Rule

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Returns:
        0; 1 if something is missing without which no command can be started.
    """
    parser = Parser("doctor", "Say what this machine enforces a policy with, and what is lost.")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="FILE|PROFILE",
        help="default: the profile agent; several: a stack",
    )
    names = parser.parse_args(argv).policy
    from rampart_seccomp.cli.policies import load
    from rampart_seccomp.kernel.probes import probe
    from rampart_seccomp.policy import Stack
    from rampart_seccomp.policy.features import FEATURES

    policy = load(names)
    features = probe()
    findings = [*features.findings(), *_parts()]
    _table((finding.state, finding.name, finding.detail) for finding in findings)
    hints = [finding for finding in findings if finding.hint and finding.state != "ok"]
    if hints:
        print("\nwhat to do:")
        _table((finding.name, finding.hint) for finding in hints)
    for layer in policy.layers if isinstance(policy, Stack) else (policy,):
        print(f"\nthe rules of {printable(layer.source or '(Python)')} are")
        _show(_enforcement(layer.rules, features))
    for name, what in FEATURES.items():
        if name in policy.features:
            print(f"opened by `features: [{name}]`: {what}")
    return 1 if any(finding.state == "missing" for finding in findings) else 0


def _parts() -> list[Finding]:
    """Look at Rampart's own parts: the shim, the launcher, and a filter that agrees with its table."""
    return [
        _part("shim", "loaded", _load_shim),
        _part("launcher", "installed", _find_launcher),
        _part("filter", "built, and verified against the syscall table", _build_filter),
        _name_service(),
    ]


def _part(name: str, detail: str, attempt: Callable[[], object]) -> Finding:
    from rampart_seccomp.kernel.probes import Finding

    try:
        attempt()
    except (RampartError, ImportError, OSError) as error:
        return Finding(name, "missing", "not usable", str(error))
    return Finding(name, "ok", detail)


def _load_shim() -> object:
    from rampart_seccomp import _shim

    return _shim


def _find_launcher() -> object:
    from rampart_seccomp.launch.locate import launcher_path

    return launcher_path()


def _build_filter() -> object:
    from rampart_seccomp.kernel.filter import load_filter

    return load_filter()


def _name_service() -> Finding:
    from rampart_seccomp.kernel.probes import Finding
    from rampart_seccomp.network.responder import answers_on_port_53

    if answers_on_port_53():
        return Finding("host names", "ok", "DNS of a tree is answered, on port 53")
    return Finding(
        "host names",
        "ok",
        "DNS of a tree is answered, on other ports than 53: resolvers of musl and dnspython take no answer",
    )


def _show(found: dict[str, list[str]]) -> None:
    for way, rules in found.items():
        print(f"{way}:")
        print(
            textwrap.fill(
                ", ".join(map(printable, rules)),
                100,
                initial_indent="  ",
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
        )


def _enforcement(rules: Iterable[Rule], features: Features) -> dict[str, list[str]]:
    """Return, for each way to enforce a rule, the names of the rules that are enforced like that.

    Where only some operations of a rule are, they stand behind its name.
    """
    found: dict[str, list[str]] = {}
    for rule in rules:
        ways: dict[str, set[Operation]] = {}
        for operation in rule.operations:
            ways.setdefault(_layer(operation, features), set()).add(operation)
        for way, operations in sorted(ways.items()):
            name = rule.name if len(ways) == 1 else f"{rule.name} ({_words(operations)})"
            found.setdefault(way, []).append(name)
    return found


def _words(operations: set[Operation]) -> str:
    """Name operations as a policy does: the four of ``write`` by that word."""
    from rampart_seccomp.events import Operation
    from rampart_seccomp.policy.terms import WRITE

    whole = operations >= WRITE
    words = [str(each) for each in Operation if each in operations and not (whole and each in WRITE)]
    return ", ".join([*words, "write"] if whole else words)


def _layer(operation: Operation, features: Features) -> str:
    """Return what enforces the rules of an operation on this machine."""
    from rampart_seccomp.events import Operation

    if operation in (Operation.CONNECT, Operation.LISTEN):
        if not features.pidfd_getfd:
            return "void, sockets cannot be copied here: all such calls are denied"
        return "performed by the broker on a copy of the socket"
    if operation is Operation.EXEC:
        if not features.ptrace:
            return (
                "decided by the broker, executed by the kernel, not verified: ptrace is refused here, so no "
                "command starts without --allow-degraded exec"
            )
        return "decided by the broker, executed by the kernel, verified by the launcher at the commit"
    if operation is Operation.CREATE and not features.unshare_fs:
        return "performed by the broker on the object it judged; created closed, the mode set afterwards"
    return "performed by the broker on the object it judged"


def _table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns; the last one is as wide as it is."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)][:-1]
    for *cells, last in shown:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), last]))
