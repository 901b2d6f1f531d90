"""Every mediated call has a decoder, and every decoder a mediated call."""

from rampart_seccomp.calls import attributes, spaces
from rampart_seccomp.calls.decode import DECODERS
from rampart_seccomp.calls.processes import SIGNAL_DECODERS
from rampart_seccomp.kernel.syscalls import FEATURES, Disposition, table
from rampart_seccomp.kernel.traps import Traps


def mediated(traps: Traps) -> set[str]:
    return {
        name
        for name, entry in table(traps).items()
        if entry.disposition is Disposition.MEDIATED
        or any(case.disposition is Disposition.MEDIATED for case in entry.cases)
    }


def test_table_and_decoders_agree() -> None:
    """Nothing is notified that nobody can decode, and no decoder waits for what all filters let pass."""
    assert mediated(Traps(scoped=False, features=frozenset(FEATURES))) == set(DECODERS)
    assert mediated(Traps(features=frozenset(FEATURES))) == set(DECODERS) - set(SIGNAL_DECODERS)
    assert mediated(Traps()) == set(DECODERS) - set(SIGNAL_DECODERS) - set(spaces.DECODERS)
    some = set(DECODERS) - set(SIGNAL_DECODERS) - set(spaces.DECODERS)
    assert mediated(Traps(restricted=())) == some - set(attributes.DECODERS)
