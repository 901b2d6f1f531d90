"""Rows 1, 4, 45 and the parts of 2, 3 and 10 that are judged: what changes while a call is decided.

Every test makes the same race bare first: there the attacker must win, which shows that the race runs and
that a win would be seen. Behind the policy it must reach the allowed object, be denied the other one, and
never win. Short here; with the marker ``long``, at least 100,000 tries each.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import racing
from racing import Amount

BARE = Amount(50_000_000, 20.0)
AMOUNTS = racing.amounts(Amount(500, 20.0))
# A call, and whether its object exists before it.
CALLS = [
    ("read", True),
    ("open", True),
    ("open-trunc", True),
    ("openat2", True),
    ("create", False),
    ("mkdir", False),
    ("symlink", False),
    ("unlink", True),
    ("rename-from", True),
    ("rename-onto", True),
    ("link", True),
    ("chmod", True),
    ("truncate", True),
    ("utimensat", True),
    ("setxattr", True),
]


@pytest.fixture
def areas(project: Any) -> Callable[[], tuple[Path, Path]]:
    """(Re)make two directories that differ in one byte, each holding ``f``; the second one is denied."""

    def make() -> tuple[Path, Path]:
        found = []
        for letter, content in (("a", "public\n"), ("b", "SECRET of somebody\n")):
            path = project.root / f"area-{letter}" / "f"
            path.unlink(missing_ok=True)
            found.append(project.write(f"area-{letter}/f", content))
        return found[0], found[1]

    return make


@pytest.fixture
def guarded(deny_rule: Callable[..., Any]) -> Any:
    """Everything is allowed but ./area-b."""
    return deny_rule(["read", "write", "exec"], paths=["./area-b/**"])


def assert_lost(counters: dict[str, int], amount: Amount) -> None:
    """The race took place, both ways, and was never won."""
    racing.assert_lost(counters, amount)
    assert counters["denied"] > 0, counters


def assert_untouched(secret: Path) -> None:
    """Nothing happened to the denied file, nor beside it."""
    assert secret.read_text() == "SECRET of somebody\n"
    assert secret.stat().st_nlink == 1
    assert [entry.name for entry in secret.parent.iterdir()] == ["f"]


@pytest.mark.core
@AMOUNTS
@pytest.mark.parametrize(("call", "exists"), CALLS, ids=[call for call, _ in CALLS])
def test_sibling_thread_rewrites_the_path(
    call: str, exists: bool, amount: Amount, project: Any, areas: Any, guarded: Any, race: Any
) -> None:
    """Row 1: the string is copied once, and what was decided is what is used."""
    names = [path if exists else path.with_name("new") for path in areas()]
    assert race("thread", call, BARE, names, None)["wins"] > 0
    for path in names:
        path.unlink(missing_ok=True) if not path.is_dir() else path.rmdir()
    _, secret = areas()

    counters = race("thread", call, amount, names, guarded)

    assert_lost(counters, amount)
    assert_untouched(secret)
    assert project.denials("secret")


@AMOUNTS
@pytest.mark.parametrize("flipper", ["vm", "shared"])
def test_other_process_rewrites_the_path(
    flipper: str, amount: Amount, areas: Any, guarded: Any, race: Any
) -> None:
    """Row 3: memory shared with another process is no different."""
    names = areas()
    assert race(flipper, "open-trunc", BARE, names, None)["wins"] > 0
    names = areas()

    counters = race(flipper, "open-trunc", amount, names, guarded)

    assert_lost(counters, amount)
    assert_untouched(names[1])


@pytest.mark.core
def test_memory_of_another_process_cannot_be_opened_for_writing(areas: Any, guarded: Any, race: Any) -> None:
    """Row 3: a child that would rewrite the path through /proc/PID/mem gets no such file."""
    names = areas()
    assert race("proc", "read", BARE, names, None)["wins"] > 0

    counters = race("proc", "read", Amount(500, 5.0), names, guarded)

    assert counters["wins"] == 0
    assert counters["allowed"] == counters["tries"], "somebody rewrote the path"


@pytest.mark.core
@AMOUNTS
@pytest.mark.parametrize("call", ["dirfd", "cwd"])
def test_directory_is_swapped(call: str, amount: Amount, areas: Any, guarded: Any, race: Any) -> None:
    """Row 10: a directory descriptor replaced with dup2, a working directory changed with fchdir."""
    names = areas()
    assert race("none", call, BARE, names, None)["wins"] > 0

    counters = race("none", call, amount, names, guarded)

    assert_lost(counters, amount)


@pytest.mark.core
@AMOUNTS
def test_open_how_changes_its_flags(amount: Amount, areas: Any, guarded: Any, race: Any) -> None:
    """Row 45: the flags behind the pointer of openat2 alternate between O_PATH and O_RDWR | O_TRUNC."""
    names = areas()
    assert race("none", "how", BARE, names, None)["wins"] > 0
    names = areas()

    counters = race("none", "how", amount, names, guarded)

    assert counters["wins"] == 0, counters
    assert counters["denied"] > 0, "O_RDWR | O_TRUNC was never asked for"
    assert counters["refused"] + counters["allowed"] > 0, "O_PATH was never asked for"
    assert_untouched(names[1])


@pytest.mark.core
@AMOUNTS
@pytest.mark.parametrize("swapped", ["last", "parent", "deep"])
@pytest.mark.parametrize("call", ["read", "open-trunc", "truncate", "chmod", "utimensat", "create", "unlink"])
def test_component_is_swapped_for_a_link(
    call: str,
    swapped: str,
    amount: Amount,
    project: Any,
    areas: Any,
    guarded: Any,
    race: Any,
    flipping: Any,
) -> None:
    """Row 4: the last component, its directory, or one above that leads elsewhere at every moment.

    The one who swaps is outside of the sandbox, where nothing slows it down.
    """
    if swapped == "last" and call in {"create", "unlink"}:
        pytest.skip("these do not follow the last component")
    leaf = "new" if call == "create" else "f"
    fixed = {
        "VICTIM": str(project.root / "area-b" / leaf),
        "UNDO": str(project.root / "area-a" / leaf),
    }
    one, other = project.root / "here", project.root / "there"
    target = "area-%s/f" if swapped == "last" else "area-%s"
    if swapped == "deep":
        for letter in "ab":
            project.write(f"tree-{letter}/keep", "")
            (project.root / f"tree-{letter}" / "area").symlink_to(project.root / f"area-{letter}")
        target = "tree-%s"
    one.symlink_to(project.root / (target % "a"))
    other.symlink_to(project.root / (target % "b"))
    name = {"last": one, "parent": one / leaf, "deep": one / "area" / leaf}[swapped]
    denied = Path(str(name).replace("here", "hero"))
    areas()
    flipping(one, other)
    assert race("none", call, BARE, [name, denied], None, **fixed)["wins"] > 0
    Path(fixed["VICTIM"]).unlink(missing_ok=True)
    _, secret = areas()

    counters = race("none", call, amount, [name, denied], guarded, **fixed)

    assert_lost(counters, amount)
    assert_untouched(secret)


@AMOUNTS
def test_link_is_swapped_from_inside(
    amount: Amount, project: Any, areas: Any, guarded: Any, race: Any
) -> None:
    """Row 4: a process of the same tree renames a link to the one and a link to the other into each other."""
    _, secret = areas()
    (project.root / "link-a").symlink_to("area-a/f")
    (project.root / "link-b").symlink_to("area-b/f")
    names = [project.root / "link-a", project.root / "link-b"]
    fixed = {"VICTIM": str(secret)}
    assert race("link", "read", BARE, names, None, **fixed)["wins"] > 0

    counters = race("link", "read", amount, names, guarded, **fixed)

    assert_lost(counters, amount)


class Server:
    """A loopback server that counts who connected."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = str(self.socket.getsockname()[1])
        self.connections = 0
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            peer.close()

    def count(self) -> int:
        """Connections until now: one of our own comes last in the queue, and is not counted."""
        with socket.create_connection(("127.0.0.1", int(self.port))) as last:
            last.recv(1)
        self.connections -= 1
        return self.connections

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    """Two servers: one may be reached, one not."""
    made = (Server(), Server())
    yield made
    for server in made:
        server.close()


@pytest.mark.core
@AMOUNTS
def test_address_is_rewritten(
    amount: Amount, project: Any, servers: tuple[Server, Server], deny_rule: Any, race: Any
) -> None:
    """Row 2: the port of the sockaddr alternates while connect is decided."""
    open_server, closed_server = servers
    ports = [open_server.port, closed_server.port]
    assert race("none", "connect", BARE, ports, None)["wins"] > 0
    assert closed_server.count() > 0
    closed_server.connections = 0
    guarded = deny_rule("connect", hosts=[f"127.0.0.1:{closed_server.port}"])

    counters = race("none", "connect", amount, ports, guarded)

    assert_lost(counters, amount)
    assert closed_server.count() == 0
    assert open_server.count() > 0
    assert project.denials("secret")
