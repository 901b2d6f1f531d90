"""Which sockets may be made, and which of their options would lead traffic elsewhere than was decided."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from rampart_seccomp.kernel.entries import INT, Case, Disposition, Match, free, refused

__all__ = ["OPTION_CASES", "SOCKET_CASES"]

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_TYPE = 0xF  # above it stand SOCK_NONBLOCK and SOCK_CLOEXEC
_TRANSPORTS = ((1, 0), (1, 6), (2, 0), (2, 17))  # SOCK_STREAM with TCP, SOCK_DGRAM with UDP

_SOL_SOCKET, _SOL_IP, _SOL_TCP, _SOL_IPV6 = 1, 0, 6, 41

_OPTIONS = (
    (_SOL_IP, 4),  # IP_OPTIONS: a source route replaces the destination
    (_SOL_IP, 16),  # IP_IPSEC_POLICY: a tunnel's end of one's own
    (_SOL_IP, 17),  # IP_XFRM_POLICY
    (_SOL_IP, 19),  # IP_TRANSPARENT: foreign addresses as one's own
    (_SOL_IP, 50),  # IP_UNICAST_IF: as SO_BINDTODEVICE
    (_SOL_IPV6, 6),  # IPV6_2292PKTOPTIONS: any of the headers below
    (_SOL_IPV6, 32),  # IPV6_FLOWLABEL_MGR: a label can carry a routing header
    (_SOL_IPV6, 34),  # IPV6_IPSEC_POLICY
    (_SOL_IPV6, 35),  # IPV6_XFRM_POLICY
    (_SOL_IPV6, 50),  # IPV6_PKTINFO: as SO_BINDTODEVICE, for datagrams
    (_SOL_IPV6, 54),  # IPV6_HOPOPTS
    (_SOL_IPV6, 55),  # IPV6_RTHDRDSTOPTS
    (_SOL_IPV6, 57),  # IPV6_RTHDR: a routing header replaces the destination
    (_SOL_IPV6, 59),  # IPV6_DSTOPTS: a home address replaces the source
    (_SOL_IPV6, 64),  # IP6T_SO_SET_REPLACE: the whole machine's packet rules
    (_SOL_IPV6, 65),  # IP6T_SO_SET_ADD_COUNTERS
    (_SOL_IPV6, 75),  # IPV6_TRANSPARENT
    (_SOL_IPV6, 76),  # IPV6_UNICAST_IF
    (_SOL_SOCKET, 25),  # SO_BINDTODEVICE: an address of this machine would be one beyond that interface
    (_SOL_SOCKET, 36),  # SO_MARK: chooses among the host's routes and translations
    (_SOL_SOCKET, 62),  # SO_BINDTOIFINDEX
    (_SOL_TCP, 19),  # TCP_REPAIR: a connection that no connect has made
)
# Any level's option numbers above those of the sockets' own are tables of the machine: iptables, arptables
# (64 …), ebtables and multicast routing (128 …), IPVS (1024 …).
_TABLES = ((_SOL_IP, 64), (_SOL_IP, 128), (_SOL_IP, 1024), (_SOL_IPV6, 128), (_SOL_IPV6, 1024))


def _socket_cases() -> Iterator[Case]:
    yield free(Match(0, INT, _AF_UNIX))
    for family in (_AF_INET, _AF_INET6):
        for kind, protocol in _TRANSPORTS:
            yield free(Match(0, INT, family), Match(1, _SOCK_TYPE, kind), Match(2, INT, protocol))
    # NETLINK_ROUTE: the broker makes it without the right to change anything.
    yield Case((Match(0, INT, _AF_NETLINK), Match(2, INT, 0)), Disposition.MEDIATED)
    for family in (_AF_INET, _AF_INET6, _AF_NETLINK):
        yield refused(errno.EPROTONOSUPPORT, Match(0, INT, family))


def _option_cases() -> Iterator[Case]:
    """Give what setsockopt(2) is refused for: level and name are registers, whatever the socket.

    Free, since the destination stays the one that was judged: the choice of a source address (IP_FREEBIND,
    IP_BIND_ADDRESS_NO_PORT), of an interface for multicast, TCP_FASTOPEN_CONNECT (connect is judged),
    TCP_ULP, socket filters, SO_ZEROCOPY, what is received (IPV6_RECV*, IPV6_2292*HDR and *OPTS), and the
    membership in multicast groups, which sends nothing but the report of it.
    """
    for level, name in _OPTIONS:
        yield refused(errno.EPERM, Match(1, INT, level), Match(2, INT, name))
    for level, bit in _TABLES:
        yield refused(errno.EPERM, Match(1, INT, level), Match(2, bit, bit))


SOCKET_CASES: tuple[Case, ...] = tuple(_socket_cases())
OPTION_CASES: tuple[Case, ...] = tuple(_option_cases())
