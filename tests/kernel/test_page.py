"""The documentation page of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from rampart_seccomp.kernel.page import page
from rampart_seccomp.kernel.syscalls import Disposition, table

PAGE = Path(__file__).parents[2] / "docs" / "syscalls.md"


def test_every_call_is_on_the_page() -> None:
    """No entry is left out, under whatever heading."""
    assert {entry.disposition for entry in table().values()} == set(Disposition) - {
        Disposition.ANSWERED,
        Disposition.KILLED,
    }
    for name in table():
        assert page().count(f"`{name}`") >= 1, name


@pytest.mark.skipif(not PAGE.exists(), reason="not a checkout")
def test_the_page_in_docs_is_up_to_date() -> None:
    """What readers see is generated from the table that the filter is built from."""
    assert PAGE.read_text() == page()
