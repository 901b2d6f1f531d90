"""What the harness itself runs, and no tree may change."""

from __future__ import annotations

import os
import sysconfig

import pytest

import rampart_seccomp
from rampart_seccomp.broker.ownfiles import harness_code


@pytest.mark.parametrize("name", ["stdlib", "platstdlib", "purelib", "platlib"])
def test_the_library_is_among_it(name: str) -> None:
    """All places that Python itself names are closed, without the module that names them."""
    place = os.fsencode(os.path.realpath(sysconfig.get_paths()[name]))
    closed = harness_code()
    assert [code for code in closed if place == code or place.startswith(code + b"/")] != []


def test_this_package_is_among_it() -> None:
    """Wherever it is installed."""
    package = os.path.dirname(rampart_seccomp.__file__)
    assert os.fsencode(os.path.realpath(package)) in harness_code()
