"""What can be answered: verdicts are types, so that no truthy value is ever taken for a yes."""

from __future__ import annotations

import ipaddress

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Address, Operation

__all__ = ["Allow", "Ask", "Deny", "Redirect", "Verdict", "stricter"]


@attrs.frozen
class Allow:
    """The call takes place, exactly as asked for."""


@attrs.frozen
class Deny:
    """The call does not take place; the program sees an error.

    Args:
        errno: The error the program sees (errno(3)); None for the usual one of the operation: EACCES, and
            ECONNREFUSED for a connection.
        message: Said to people, never to the program.
    """

    errno: int | None = None
    message: str | None = None


@attrs.frozen
class Ask:
    """A person decides."""


@attrs.frozen(kw_only=True)
class Redirect:
    """The file may be read, or the connection made, but to something else. Exactly one argument is given.

    Args:
        to: For a file, the name of the one that is opened instead: absolute, or beginning with ``~/`` or
            ``./`` as in a policy; no pattern. For a connection, address and port of what is reached instead:
            ``127.0.0.1:8443`` or ``[::1]:8443``. The policy must allow that itself, too.
        mask: ``values``: the file itself, read as a dotenv file, with ``***`` for each value. One that cannot
            be read so is denied.
        content: These bytes.

    Raises:
        PolicyError: None, or more than one, is given; or what is given is none of these.
    """

    to: str | None = None
    mask: str | None = None
    content: bytes | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        given = [name for name in ("to", "mask", "content") if getattr(self, name) is not None]
        if len(given) != 1:
            problem = f"a redirect has {' and '.join(given)}" if given else "a redirect leads nowhere"
            hint = "write exactly one of {to: FILE}, {to: 'ADDRESS:PORT'} and {mask: values}"
            raise PolicyError(problem, key="redirect", hint=hint)
        if self.to is not None:
            _check_target(self.to)
        if self.mask not in (None, "values"):
            raise PolicyError(f"there is no mask {self.mask!r}", key="redirect.mask", hint="write values")
        if self.content is not None and not isinstance(self.content, bytes):
            raise PolicyError("the content of a redirect is no bytes", key="redirect.content")

    @property
    def hides(self) -> bool:
        """True if nothing of the file is shown."""
        return self.mask is None

    @property
    def destination(self) -> tuple[Address, int] | None:
        """Address and port of what is reached instead, of a redirect for connections; None for files."""
        return None if self.to is None or self.to.startswith(_FILES) else _destination(self.to)

    @property
    def operation(self) -> Operation:
        """What it answers: ``read`` or ``connect``."""
        return Operation.READ if self.destination is None else Operation.CONNECT

    @property
    def effect(self) -> str:
        """What happens with the substitute, in a word: it is shown, or reached."""
        return "shown" if self.destination is None else "reached"

    def __str__(self) -> str:
        if self.to is not None:
            return f"to {self.to}"
        return f"mask {self.mask}" if self.mask is not None else "content"


def stricter(one: Redirect | None, other: Redirect | None) -> Redirect | None:
    """Give the one of two redirects that shows less of the file; the first, where neither does.

    Of two that lead a connection elsewhere that is the first: the policy's before an answer's.
    """
    if one is None or (other is not None and other.hides and not one.hides):
        return other
    return one


_FILES = ("/", "~/", "./")


def _check_target(to: str) -> None:
    """Raise `PolicyError` unless it is the name of a file, or an address with a port."""
    problem = hint = None
    if to.startswith(_FILES):
        if "\0" in to:
            problem = f"{to!r} is not the name of a file"
    elif to.startswith("unix:"):
        problem = f"{to!r} is a unix socket, and what connects to an address is none"
        hint = "let the substitute listen on 127.0.0.1, and write '127.0.0.1:PORT'"
    else:
        found = _destination(to)
        if found is None:
            problem = f"{to!r} is neither the name of a file nor an address with a port"
            hint = "begin with '/', '~/' or './'; for a connection write '127.0.0.1:8443' or '[::1]:8443'"
        elif found[0].is_unspecified or found[0].is_multicast or not found[1]:
            problem, hint = f"nobody can be reached at {to!r}", "write '127.0.0.1:8443' or '[::1]:8443'"
    if problem is not None:
        raise PolicyError(problem, key="redirect.to", hint=hint)


def _destination(text: str) -> tuple[Address, int] | None:
    """Read ``127.0.0.1:8443`` or ``[::1]:8443``; None if it is neither. A v4-mapped address is IPv4."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        return None
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return None if bracketed else (address, int(port))
    if not bracketed or address.scope_id is not None:
        return None
    return address.ipv4_mapped or address, int(port)


Verdict = Allow | Deny | Ask | Redirect
