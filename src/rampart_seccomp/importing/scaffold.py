"""What programs need in order to run at all, where the default of an imported policy does not give it."""

from __future__ import annotations

from rampart_seccomp.importing.draft import Draft

__all__ = ["ANYWHERE", "SHELLS", "WEB", "add"]

ANYWHERE = ("0.0.0.0/0", "[::/0]")
"""Every address; unlike a rule without `hosts` it says nothing about unix sockets."""

WEB = ("0.0.0.0/0:80,443", "[::/0]:80,443")

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/**")

SHELLS = tuple(
    f"/bin/{shell} {flags} **" for shell in ("sh", "bash", "zsh") for flags in ("-c", "-lc", "-l -c")
)
"""A shell of the system that is given a command, which is how agents run commands."""


def add(draft: Draft) -> None:
    """Add rules that are part of no source: reading the system, writing to devices, shells."""
    if draft.default.get("read", "deny") != "allow":
        draft.add(
            None,
            "allow",
            ["read"],
            name="needed-system",
            key="paths",
            patterns=["/", "@system", "/proc/**", "/sys/**", "/dev/**"],
            reason="Programs and their libraries must be readable to be started.",
        )
    if draft.default.get("write", "deny") != "allow":
        draft.add(
            None,
            "allow",
            ["write"],
            name="needed-devices",
            key="paths",
            patterns=[f"/dev/{name}" for name in _DEVICES],
            reason="Devices that keep nothing, and terminals.",
        )
    if draft.default.get("exec", "deny") != "allow":
        draft.add(
            None,
            "allow",
            ["exec"],
            name="needed-shells",
            key="commands",
            patterns=SHELLS,
            reason="Commands are given to a shell; each program that it starts is judged by itself.",
        )
