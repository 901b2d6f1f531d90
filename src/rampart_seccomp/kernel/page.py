"""The documentation page of the table: ``python -m rampart_seccomp.kernel.page > docs/syscalls.md``."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator

from rampart_seccomp.kernel.syscalls import FEATURES, Disposition, Syscall, table
from rampart_seccomp.kernel.traps import STRICTEST, Traps

__all__ = ["page"]

_MEANING = {
    Disposition.FREE: "The kernel carries these out; the broker never hears of them.",
    Disposition.MEDIATED: "These are held until the policy has decided.",
    Disposition.REFUSED: "These fail with the errno given, whatever the rules say, and are recorded.",
    Disposition.ABSENT: "These fail with `ENOSYS`, as on a kernel without them, and are not recorded.",
}
_INTRODUCTION = """# System calls

What becomes of every system call of Linux up to 6.18 on x86_64 and aarch64. Numbers that are not listed
fail with `ENOSYS`; calls of another architecture (`int 0x80`, x32) end the process. This page is generated
from the table that the filter is built from: `python -m rampart_seccomp.kernel.page > docs/syscalls.md`.
"""


_UNSCOPED = """## Without Landlock's signal scope

On kernels before Linux 6.12 nothing confines the signals of a tree to it. There these are held or refused,
too:
"""
_READABLE = """## Under a policy that restricts no `read`

Where every file may be read, these are free:
"""
_READING = """## Where opens are free, besides

Under a policy that restricts no `read` and wants none recorded, without an audit log, for a user whom the
kernel itself keeps from disks and memory:
"""
_FEATURE = """## With `features: [{}]`

What changes:
"""


def _reason(entry: Syscall) -> tuple[str, str]:
    return (errno.errorcode[entry.errno] if entry.errno else "", entry.note)


def _exceptions(entry: Syscall) -> str:
    others = sorted({case.disposition.value for case in entry.cases} - {entry.disposition.value})
    return f"`{entry.name}` ({', '.join(others)} by arguments)" if others else f"`{entry.name}`"


def _listed(entries: Iterable[Syscall]) -> Iterator[str]:
    """List entries, those in a row that share their reason together."""
    for (number, note), group in itertools.groupby(entries, _reason):
        head = ": ".join(part for part in (f"`{number}`" if number else "", note) if part)
        names = ", ".join(_exceptions(entry) for entry in group)
        yield f"* {head}:\n  {names}\n" if head else f"* {names}\n"


def page() -> str:
    """Write the page, in Markdown."""
    parts = [_INTRODUCTION]
    for disposition, meaning in _MEANING.items():
        parts.append(f"## {disposition.value.capitalize()}\n\n{meaning}\n")
        parts += _listed(entry for entry in table().values() if entry.disposition is disposition)
    readable = Traps(restricted=())
    variants = [
        (_UNSCOPED, Traps(scoped=False), STRICTEST),
        (_READABLE, readable, STRICTEST),
        (_READING, Traps(restricted=(), opens=False), readable),
        *((_FEATURE.format(name), Traps(features={name}), STRICTEST) for name in FEATURES),
    ]
    for heading, traps, beside in variants:
        parts.append(heading)
        parts += _listed(entry for name, entry in table(traps).items() if entry != table(beside)[name])
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
