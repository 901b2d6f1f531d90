"""What can be answered: verdicts are types, so that no truthy value is ever taken for a yes."""

from __future__ import annotations

import attrs

from rampart_seccomp.errors import PolicyError

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
    """The file may be read, but something else is shown in its place. Exactly one of the arguments is given.

    Args:
        to: Name of the file that is opened instead, where the policy lets that one be read: absolute, or
            beginning with ``~/`` or ``./`` as in a policy; no pattern.
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
            raise PolicyError(
                problem, key="redirect", hint="write exactly one of {to: FILE} and {mask: values}"
            )
        if self.to is not None and (not self.to.startswith(("/", "~/", "./")) or "\0" in self.to):
            raise PolicyError(
                f"{self.to!r} is not the name of a file",
                key="redirect.to",
                hint="begin with '/', '~/' or './'",
            )
        if self.mask not in (None, "values"):
            raise PolicyError(f"there is no mask {self.mask!r}", key="redirect.mask", hint="write values")
        if self.content is not None and not isinstance(self.content, bytes):
            raise PolicyError("the content of a redirect is no bytes", key="redirect.content")

    @property
    def hides(self) -> bool:
        """True if nothing of the file is shown."""
        return self.mask is None

    def __str__(self) -> str:
        if self.to is not None:
            return f"to {self.to}"
        return f"mask {self.mask}" if self.mask is not None else "content"


def stricter(one: Redirect | None, other: Redirect | None) -> Redirect | None:
    """Give the one of two redirects that shows less of the file; the first, where neither does."""
    if one is None or (other is not None and other.hides and not one.hides):
        return other
    return one


Verdict = Allow | Deny | Ask | Redirect
