"""Every mediated call has a decoder, and every decoder a mediated call."""

from rampart_seccomp.calls.decode import DECODERS
from rampart_seccomp.kernel.syscalls import Disposition, table


def test_table_and_decoders_agree() -> None:
    """Nothing is notified that nobody can decode, and no decoder waits for what the filter lets pass."""
    mediated = {
        name
        for name, entry in table().items()
        if entry.disposition is Disposition.MEDIATED
        or any(case.disposition is Disposition.MEDIATED for case in entry.cases)
    }

    assert mediated == set(DECODERS)
