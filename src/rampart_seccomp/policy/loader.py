"""Policies from YAML files. Loading is total: either a whole policy comes out, or one error."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.policy.document import MAX_BYTES, read
from rampart_seccomp.policy.environment import Environment
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.inheritance import unite
from rampart_seccomp.policy.limits import Limits
from rampart_seccomp.policy.model import Policy
from rampart_seccomp.policy.structure import Draft, Extension, Structure

__all__ = ["load", "load_grants", "loads", "profiles"]

PROFILES = os.path.join(os.path.dirname(__file__), "profiles")
_ENDING = ".yaml"

MAX_DEPTH = 8
MAX_FILES = 32


def profiles() -> list[str]:
    """Name the shipped profiles."""
    return sorted(name.removesuffix(_ENDING) for name in os.listdir(PROFILES) if name.endswith(_ENDING))


def load(source: str | os.PathLike[str]) -> Policy:
    """Load a file or a shipped profile.

    A bare word is a profile, even if a file of that name lies in the working directory: what runs behind a
    policy can make one there, and must not choose the policy of the next run.

    Raises:
        PolicyError: It cannot be read or is not a valid policy, or one of its tests fails.
    """
    name = os.fspath(source)
    if "/" in name or name.endswith((".yaml", ".yml")) or not isinstance(source, str):
        file = _File(name, name, name, name)
        return _Loading().policy(file, file.read())
    profile = _profile(name)
    if profile is None:
        raise PolicyError(
            f"there is no profile {name!r}",
            file=name,
            hint=f"for the file write './{name}'" if os.path.exists(name) else _known_profiles(),
        )
    return _Loading().policy(profile, profile.read())


def loads(text: str, *, source: str = "<string>") -> Policy:
    """Load a policy from YAML text. Files that it extends are relative to the directory of `source`.

    Raises:
        PolicyError: It is not a valid policy, or one of its tests fails.
    """
    return _Loading().policy(_File(source, source, source, None), text)


def load_grants(source: str | os.PathLike[str]) -> tuple[Grant, ...]:
    """Load an overrides file: a YAML list of grants, such as approvals write it.

    Raises:
        PolicyError: It cannot be read, or an entry is not valid; then none of them is in force.
    """
    name = os.fspath(source)
    text = _read(name, name)
    if not text.strip():
        return ()
    return tuple(Structure(name).grants(read(text, name), "grants"))


def _known_profiles() -> str:
    return f"the profiles are {', '.join(profiles())}; a file ends in .yaml or has a '/' in its name"


@attrs.frozen(eq=False, repr=False)
class _File:
    """A policy file.

    Attributes:
        name: For messages.
        source: For `Policy.source`.
        identity: What tells it from other files.
        path: Where it is; None for text that is in no file.
    """

    name: str
    source: str
    identity: str
    path: str | None

    def read(self, *, regular: bool = False) -> str:
        """Give its text; with `regular` only if it is a regular file."""
        assert self.path is not None
        return _read(self.path, self.name, regular=regular)

    @property
    def is_profile(self) -> bool:
        """True if it is shipped: then it was checked, and its tests run, by the tests of this package."""
        return self.identity.startswith("profile:")

    @property
    def names(self) -> tuple[str, ...]:
        """Absolute names: as it was named, and as it really is."""
        if self.path is None or not os.path.exists(self.path):
            return ()
        return (os.path.abspath(self.path), os.path.realpath(self.path))


def _profile(name: str) -> _File | None:
    if name not in profiles():
        return None
    file = name + _ENDING
    return _File(file, f"profile:{name}", f"profile:{name}", os.path.join(PROFILES, file))


class _Loading:
    """One loading: the file itself, and everything it extends."""

    def __init__(self) -> None:
        self._known: dict[str, Draft] = {}
        self._files: list[str] = []

    def policy(self, file: _File, text: str, chain: tuple[str, ...] = ()) -> Policy:
        """Load one file, with what it extends.

        Args:
            file: The file.
            text: Its content.
            chain: The files that extend it, the outermost first.
        """
        draft = Structure(file.name).draft(read(text, file.name))
        own = os.path.realpath(file.path) if file.path is not None else file.identity
        chain = (*chain, file.identity if file.is_profile else own)
        bases = [(each, self._base(each, draft, own, chain)) for each in self._distinct(draft)]
        self._files += file.names
        united = unite(draft, bases)
        policy = _build(united, file.source, self._files)
        if not file.is_profile:
            _check(policy, file.name)
        self._known[chain[-1]] = united
        return policy

    def _distinct(self, draft: Draft) -> list[Extension]:
        seen: set[tuple[bool, str]] = set()
        for extension in draft.extends:
            key = (extension.is_file, os.path.normpath(extension.target.text))
            if key in seen:
                raise _problem(draft, extension, f"{extension.target.text!r} is extended twice")
            seen.add(key)
        return draft.extends

    def _base(self, extension: Extension, draft: Draft, own: str, chain: tuple[str, ...]) -> Draft:
        """Load what an entry of ``extends`` names, unless it is known already."""
        target = extension.target.text
        if extension.is_file:
            file = _relative(target, draft.file, own)
        else:
            found = _profile(target)
            if found is None:
                raise _problem(draft, extension, f"there is no profile {target!r}", _known_profiles())
            file = found
        if file.identity in chain:
            names = [os.path.basename(each) for each in (*chain[chain.index(file.identity) :], file.identity)]
            raise _problem(draft, extension, "the file extends itself", " → ".join(names))
        if len(chain) >= MAX_DEPTH:
            raise _problem(draft, extension, f"more than {MAX_DEPTH} files extend each other")
        if file.identity not in self._known:
            if len(self._known) >= MAX_FILES:
                raise _problem(draft, extension, f"more than {MAX_FILES} files are united")
            try:
                text = file.read(regular=True)
            except PolicyError as error:
                raise _problem(draft, extension, f"{error.file} {error.problem}", error.hint) from None
            self.policy(file, text, chain)
        return self._known[file.identity]


def _relative(target: str, name: str, own: str) -> _File:
    """Find a file that is extended: relative names start at the directory the extending file is really in."""
    target = os.path.expanduser(target)
    directory = os.path.dirname(own)
    path = os.path.join(directory, target)
    real = os.path.realpath(path)
    shown = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if os.path.realpath(shown) != real or os.path.abspath(shown) != real:
        shown = real
    return _File(shown, shown, real, path)


def _check(policy: Policy, file: str) -> None:
    """Look for errors that show only in the whole, and run the tests."""
    from rampart_seccomp.policy import cases, lint

    for finding in lint.errors(policy):
        raise PolicyError(finding.message, file=finding.file, line=finding.line, key=finding.key)
    cases.run_tests(policy, file=file)


def _problem(draft: Draft, extension: Extension, problem: str, hint: str | None = None) -> PolicyError:
    place = extension.target
    return PolicyError(problem, file=draft.file, line=place.line, key=place.key, hint=hint)


def _build(draft: Draft, source: str, files: list[str]) -> Policy:
    try:
        return Policy(
            version=draft.version,
            rules=draft.rules,
            default={str(operation): verdict for operation, verdict in draft.default.items()},
            grants=draft.grants,
            environment=Environment(drop=draft.drop, pass_=draft.pass_),
            features=draft.features,
            limits=Limits(**draft.limits),
            linger=bool(draft.linger),
            names="resolved" if draft.names is None else draft.names,
            tests=draft.tests,
            audit="all" if draft.audit is None else draft.audit,
            source=source,
            files=files,
            places=draft.places,
        )
    except PolicyError as error:
        key = error.key or ""
        line = draft.lines.get(key, draft.lines.get(key.partition(".")[0], draft.lines[""]))
        raise PolicyError(error.problem, file=draft.file, line=line, key=error.key, hint=error.hint) from None


def _read(path: str, name: str, *, regular: bool = False) -> str:
    try:
        with open(path, "rb", opener=_no_wait) as file:
            if regular and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PolicyError("is no regular file", file=name)
            raw = _content(file)
    except OSError as error:
        hint = "check the name" if isinstance(error, FileNotFoundError) else None
        raise PolicyError(f"cannot be read: {error.strerror}", file=name, hint=hint) from None
    except ValueError as error:
        raise PolicyError(f"cannot be read: {error}", file=name) from None
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"the file is larger than {MAX_BYTES // 1024} KiB", file=name)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PolicyError("the file is not UTF-8", file=name, line=line, hint="save it as UTF-8") from None


def _content(file: BinaryIO) -> bytes:
    """Read up to a byte more than a policy may have; wait only for a pipe that somebody still writes to."""
    try:
        first = os.read(file.fileno(), MAX_BYTES + 1)
    except BlockingIOError:
        first = None
    if first == b"":
        return first
    os.set_blocking(file.fileno(), True)
    first = first or b""
    return first + file.read(MAX_BYTES + 1 - len(first))


def _no_wait(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
