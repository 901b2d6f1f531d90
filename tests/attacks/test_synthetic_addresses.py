"""Addresses that stand for a name and an address of it: decided by exactly that name, and by no other way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from test_dns import PRELUDE

import rampart_seccomp as rampart

pytestmark = pytest.mark.core

SITE = "127.200.0.1"  # stands for an address of the internet: tests/naming.py
RANGE = "198.18.0.0/15"


@pytest.fixture(params=["native", "python"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAMPART_SECCOMP_ENGINE", request.param)
    return str(request.param)


@pytest.fixture
def ask(by_name: Any) -> Callable[..., Any]:
    """Run lines of Python with the functions of the prelude; gives the command with the lines printed."""

    def run(lines: str, policy: Any, **options: Any) -> Any:
        done = by_name.run(["python3", "-c", PRELUDE + lines], policy, **options)
        assert done.returncode == 0, done.stderr
        done.lines = done.stdout.splitlines()
        return done

    return run


def synthetic(policy: rampart.Policy, names: Any = "synthetic") -> rampart.Policy:
    return attrs.evolve(policy, names=names)


def test_names_that_share_an_address(by_name: Any, ask: Any, project: Any) -> None:
    """Of two sites at one address each is decided by its own name; without this nobody can tell them."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "other.example": [("A", SITE)]}
    port, closed = by_name.site(SITE), by_name.site(SITE)
    policy = by_name.policy(f"site.example:{port}", f"other.example:{closed}")
    steps = f"""
one, other = lookup("site.example")[0], lookup("other.example")[0]
print(one, other)
print(reach(one, {port}), reach(other, {port}), reach("{SITE}", {port}))
"""
    done = ask(steps, synthetic(policy))
    assert done.lines == ["198.18.0.1 198.18.0.2", "hello ECONNREFUSED ECONNREFUSED"]
    connected = [record for record in project.records() if record.get("protocol") == "tcp"]
    assert [(each["verdict"], each["address"], each["names"]) for each in connected] == [
        ("allow", SITE, ["site.example"]),
        ("deny", SITE, ["other.example"]),
        ("deny", SITE, []),
    ]
    assert ask(steps, policy).lines == [f"{SITE} {SITE}", "hello hello hello"]
