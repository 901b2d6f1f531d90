"""Policies compiled to tables, which the shim evaluates without the interpreter (csrc/tables.c).

The tables hold what a policy says about paths and addresses whoever acts. The format, all in numbers of 32
bits in the byte order of the machine: magic, version, size of the whole in bytes, the number of records of
each section, then the sections in the order of `_SECTIONS`. csrc/tables.c names the fields of a record. What
refers to other records refers to them by their place.

========== ==========================================================================================
literals   components without wildcards: where they stand in the text
wildcards  components with wildcards: their items
items      a byte, any byte, a star, or a bitmap of bytes
nodes      the patterns as one tree: a loop (behind ``**``) or not, the loop that begins here, and
           the conditions whose paths are matched here
edges      node, literal or wildcard, node; the wildcards count on where the literals end
layers     of a stack, with their defaults; the entries of the first layer come first
entries    rules in the order in which they speak, then grants, then what is a question anyhow:
           DNS, addresses that stand for others, what is led elsewhere, and files of which the broker gives
           a version of its own; then one for no operation, with the patterns of all that is not judged here
conditions of the entries: each one's own, then its exceptions
tests      networks and ports, one of which must hold
========== ==========================================================================================
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterable, Iterator

from rampart_seccomp.events import DNS_PORT, Operation
from rampart_seccomp.policy.conditions import Conditions, Entry
from rampart_seccomp.policy.globs import AnyComponents, Tail, Wildcard, bracket
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.hosts import HostPattern, LocalPattern, Network, Ports, parse_host, parse_local
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.stack import AnyMatcher, StackMatcher
from rampart_seccomp.policy.terms import FILE_OPERATIONS, VERDICTS

__all__ = ["VERSION", "compile_tables"]

VERSION = 2

_MAGIC = 0x54425352
_SECTIONS = (
    *("literals", "wildcards", "items", "bitmaps", "nodes", "edges", "accepts"),
    *("layers", "entries", "conditions", "tests", "ranges", "text"),
)

_OPERATIONS = tuple(Operation)
_BIT = {operation: 1 << place for place, operation in enumerate(_OPERATIONS)}
_JUDGED = FILE_OPERATIONS | {Operation.EXEC, Operation.CONNECT, Operation.LISTEN}
_GRANT, _QUESTION = len(VERDICTS), len(VERDICTS) + 1
_LOGS, _RULE = 1, 2
_BY_PATH, _BY_ADDRESS, _BY_OTHER, _BY_COMMAND, _BY_VARIABLE = 1, 2, 4, 8, 16
_VARIABLES = b"\0"
"""The directory whose names are those of variables: no path has it."""
_ANY_FAMILY, _NAME = 0, 1
_ANY_BYTE, _STAR, _SET = 1 << 24, 2 << 24, 3 << 24

_UNSPECIFIED = tuple(parse_local(text).network for text in ("0.0.0.0", "[::]"))


def compile_tables(matcher: AnyMatcher, questions: tuple[Network, ...] = ()) -> bytes:
    """Compile what a bound policy says about paths and addresses.

    What depends on who acts, on code, on a person or on names is in the tables as that: where it matters they
    say that they cannot decide.

    Args:
        matcher: The policy, bound to a place.
        questions: What is connected to an address of one of these is not decided, whatever the policy says.

    Returns:
        What ``rs_tables_load`` reads (csrc/tables.h).
    """
    tables = _Tables()
    for layer in matcher.layers if isinstance(matcher, StackMatcher) else (matcher,):
        tables.add_layer(layer, questions)
    return tables.written()


class _Tree:
    """The patterns of all layers: those that begin alike share their beginning."""

    def __init__(self) -> None:
        self.literals: dict[bytes, int] = {}
        self.wildcards: dict[Wildcard, int] = {}
        self.loops: list[bool] = [False]
        self.any: list[int] = [0]
        self.accepted: list[list[int]] = [[]]
        self.edges: dict[tuple[int, int, bool], int] = {}

    def add(self, tail: Tail, condition: int) -> None:
        """Let a path that the pattern matches match the condition."""
        node = 0
        for name in tail:
            if isinstance(name, AnyComponents):
                # Two in a row match what one matches.
                if not self.loops[node]:
                    self.any[node] = node = self.any[node] or self._node(loop=True)
                continue
            wild = isinstance(name, Wildcard)
            known: dict[bytes | Wildcard, int] = self.wildcards if wild else self.literals  # type: ignore[assignment]
            edge = (node, known.setdefault(name, len(known)), wild)
            following = self.edges.get(edge)
            if following is None:
                following = self.edges[edge] = self._node(loop=False)
            node = following
        if condition not in self.accepted[node][-1:]:
            self.accepted[node].append(condition)

    def _node(self, *, loop: bool) -> int:
        self.loops.append(loop)
        self.any.append(0)
        self.accepted.append([])
        return len(self.loops) - 1


class _Tables:
    def __init__(self) -> None:
        self.tree = _Tree()
        self.layers: list[int] = []
        self.entries: list[int] = []
        self.conditions: list[int] = []
        self.tests: list[bytes] = []
        self.ranges: list[int] = []

    def add_layer(self, layer: Matcher, questions: tuple[Network, ...]) -> None:
        self.slots: dict[int, int] = {}
        before = len(self.entries)
        # What redirects stands there as what asks: the engine does not open something else.
        shown = layer.redirects[Operation.READ]
        for entry in sorted((*layer.ordered, *shown), key=lambda entry: -entry.level):
            self._add_entry(entry)
        for grant in layer.policy.grants:
            self._add_grant(grant)
        for entry in layer.redirects[Operation.CONNECT]:
            # Not as what asks: a grant would answer that, and leads nowhere else.
            self._add_entry(entry, _QUESTION)
        if layer.judges_names:
            self._write_entry(_BIT[Operation.CONNECT], _QUESTION)
            self._write_condition(_BY_ADDRESS, [self._test(None, ((DNS_PORT, DNS_PORT),))])
        if questions:
            self._write_entry(_BIT[Operation.CONNECT], _QUESTION)
            self._write_condition(_BY_ADDRESS, [self._test(network, ()) for network in questions])
        for path in sorted(layer.substitutes):
            self._write_entry(_BIT[Operation.READ], _QUESTION)
            self.tree.add(tuple(name for name in path.split(b"/") if name), self._next_condition)
            self._write_condition(_BY_PATH, [])
        # Who acts, and sockets, are not judged here; names are told apart by them all the same (rs_alike).
        aside = self._next_condition
        self._write_entry(0, 0)
        self._write_condition(_BY_PATH | _BY_OTHER, [])
        for tail, slot in layer.automaton.patterns():
            self.tree.add(tail, self.slots.get(slot.bit_length(), aside))
        self.layers.append((len(self.entries) - before) // _ENTRY_FIELDS)
        self.layers += [VERDICTS.index(layer.default(operation).verdict) for operation in _OPERATIONS]

    def _add_entry(self, entry: Entry, level: int | None = None) -> None:
        operations = sum(_BIT[operation] for operation in entry.operations & _JUDGED)
        if not operations:
            return
        rule = entry.rule
        self._write_entry(
            operations,
            entry.level if level is None else level,
            error=(rule.errno or 0) if rule else 0,
            flags=(_RULE | (_LOGS if rule.log else 0)) if rule else 0,
            conditions=1 + len(entry.excepts),
        )
        for conditions in (entry.conditions, *entry.excepts):
            self._add_conditions(conditions)

    def _add_conditions(self, given: Conditions) -> None:
        flags = 0
        if given.paths:
            flags |= _BY_PATH
            self.slots[given.paths.bit_length()] = self._next_condition
        if given.commands:
            flags |= _BY_COMMAND
            for command in given.commands:
                self.slots[command.program.bit_length()] = self._next_condition
        if given.env:
            flags |= _BY_VARIABLE
            for name in given.env:
                self.tree.add((_VARIABLES, name), self._next_condition)
        if given.programs or given.within:
            flags |= _BY_OTHER
        if given.hosts or given.ports:
            flags |= _BY_ADDRESS
        tests = [self._host(host) for host in given.hosts if host.socket is None and host.abstract is None]
        self._write_condition(flags, tests + [self._local(port) for port in given.ports])

    def _add_grant(self, grant: Grant) -> None:
        if grant.operation in FILE_OPERATIONS:
            assert grant.path is not None
            self._write_entry(_BIT[grant.operation], _GRANT)
            self.tree.add(tuple(name for name in grant.path.split(b"/") if name), self._next_condition)
            # It is for this very spelling, and the tree takes two slashes for one.
            self._write_condition(_BY_PATH | _BY_OTHER, [])
        elif grant.operation is Operation.EXEC:
            # For one image and one argv, which are not compared here.
            self._write_entry(_BIT[grant.operation], _GRANT)
            self._write_condition(_BY_OTHER, [])
        elif grant.operation is Operation.CONNECT:
            assert grant.host is not None
            if grant.host.startswith("unix:"):
                self._write_entry(0, _GRANT)
                self._write_condition(_BY_OTHER, [])
            else:
                self._write_entry(_BIT[grant.operation], _GRANT)
                self._write_condition(_BY_ADDRESS, [self._host(parse_host(grant.host))])
        elif grant.operation is Operation.LISTEN:
            assert grant.port is not None
            pattern = parse_local(grant.port)
            networks = _UNSPECIFIED if pattern.network is None else (pattern.network,)
            self._write_entry(_BIT[grant.operation], _GRANT)
            self._write_condition(_BY_ADDRESS, [self._test(network, pattern.ports) for network in networks])

    def _host(self, host: HostPattern) -> bytes:
        return self._test(host.network, host.ports, _NAME)

    def _local(self, port: LocalPattern) -> bytes:
        return self._test(port.network, port.ports)

    def _test(self, network: Network | None, ports: Ports, otherwise: int = _ANY_FAMILY) -> bytes:
        first = len(self.ranges) // 2
        self.ranges += [bound for ends in ports for bound in ends]
        if network is None:
            return _TEST.pack(otherwise, 0, b"", first, len(ports))
        packed = network.network_address.packed
        return _TEST.pack(network.version, network.prefixlen, packed, first, len(ports))

    @property
    def _next_condition(self) -> int:
        return len(self.conditions) // 3

    def _write_entry(
        self, operations: int, level: int, *, error: int = 0, flags: int = 0, conditions: int = 1
    ) -> None:
        self.entries += (operations, level, error, flags, conditions)

    def _write_condition(self, flags: int, tests: list[bytes]) -> None:
        self.conditions += (flags, len(self.tests), len(tests))
        self.tests += tests

    def written(self) -> bytes:
        tree = self.tree
        text = b"".join(tree.literals)
        literals = list(_spans(map(len, tree.literals)))
        translated = [_items(wildcard.text) for wildcard in tree.wildcards]
        bitmaps = {found: place for place, found in enumerate(dict.fromkeys(_sets(translated)))}
        items = [
            _SET | bitmaps[item] if isinstance(item, bytes) else item for each in translated for item in each
        ]
        nodes = [
            number
            for node in zip(tree.loops, tree.any, _spans(map(len, tree.accepted)), strict=True)
            for number in (node[0], node[1], *node[2])
        ]
        edges = [
            number
            for (node, symbol, wild), following in tree.edges.items()
            for number in (node, symbol + (len(tree.literals) if wild else 0), following)
        ]
        sections = {
            "literals": _numbers(number for span in literals for number in span),
            "wildcards": _numbers(number for span in _spans(map(len, translated)) for number in span),
            "items": _numbers(items),
            "bitmaps": b"".join(bitmaps),
            "nodes": _numbers(nodes),
            "edges": _numbers(edges),
            "accepts": _numbers(condition for accepted in tree.accepted for condition in accepted),
            "layers": _numbers(self.layers),
            "entries": _numbers(self.entries),
            "conditions": _numbers(self.conditions),
            "tests": b"".join(self.tests),
            "ranges": _numbers(self.ranges),
            "text": text,
        }
        counts = [len(sections[name]) // _RECORD[name] for name in _SECTIONS]
        size = _HEADER.size + sum(map(len, sections.values()))
        return _HEADER.pack(_MAGIC, VERSION, size, *counts) + b"".join(sections[name] for name in _SECTIONS)


_HEADER = struct.Struct(f"={3 + len(_SECTIONS)}I")
_TEST = struct.Struct("=II16sII")
_ENTRY_FIELDS = 5
_RECORD = {
    "literals": 8,
    "wildcards": 8,
    "items": 4,
    "bitmaps": 32,
    "nodes": 16,
    "edges": 12,
    "accepts": 4,
    "layers": 4 + 4 * len(_OPERATIONS),
    "entries": 4 * _ENTRY_FIELDS,
    "conditions": 12,
    "tests": _TEST.size,
    "ranges": 8,
    "text": 1,
}


def _numbers(given: Iterable[int]) -> bytes:
    numbers = list(given)
    return struct.pack(f"={len(numbers)}I", *numbers)


def _spans(lengths: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Give beginning and length of each of what stands one after the other."""
    first = 0
    for length in lengths:
        yield first, length
        first += length


def _items(text: bytes) -> list[int | bytes]:
    """Give the items of a component with wildcards; bitmaps as they are."""
    items: list[int | bytes] = []
    index = 0
    while index < len(text):
        byte = text[index : index + 1]
        if byte == b"[":
            accepted, index = bracket(text, index)
            items.append(_bitmap(accepted))
        else:
            items.append({b"*": _STAR, b"?": _ANY_BYTE}.get(byte, byte[0]))
        index += 1
    return items


def _sets(translated: Iterable[list[int | bytes]]) -> Iterator[bytes]:
    return (item for items in translated for item in items if isinstance(item, bytes))


@functools.lru_cache(maxsize=1024)
def _bitmap(expression: bytes) -> bytes:
    accepts = re.compile(expression, re.DOTALL).match
    words = [sum(1 << bit for bit in range(32) if accepts(bytes([word * 32 + bit]))) for word in range(8)]
    return _numbers(words)
