"""Stacks: several authorities over one command, each judged alone; the strictest wins."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import attrs

from rampart_seccomp.errors import PolicyError
from rampart_seccomp.events import Event, FileEvent, Operation
from rampart_seccomp.policy.answering import Names
from rampart_seccomp.policy.decisions import Decision
from rampart_seccomp.policy.environment import StackedEnvironment
from rampart_seccomp.policy.grants import Grant
from rampart_seccomp.policy.limits import Limits
from rampart_seccomp.policy.matcher import Matcher
from rampart_seccomp.policy.model import AUDITS, Policy
from rampart_seccomp.policy.rules import Rule
from rampart_seccomp.policy.terms import VERDICTS

__all__ = ["AnyMatcher", "AnyPolicy", "Stack", "StackMatcher"]

_STRICTNESS = {verdict: level for level, verdict in enumerate(VERDICTS)}


def _flat(layers: Iterable[Policy | Stack]) -> tuple[Policy, ...]:
    found = tuple(layer for given in layers for layer in given.layers)
    if not found:
        raise PolicyError("a stack has no layers", hint="name at least one policy")
    return found


@attrs.frozen
class Stack:
    """Policies on top of each other; made by `Policy.stack`. A layer can only tighten what the others allow.

    It has the face of a `Policy` wherever something is judged or started.

    Attributes:
        layers: The policies, the highest authority first.
    """

    layers: tuple[Policy, ...] = attrs.field(converter=_flat)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of all layers; names are unique within a layer only."""
        return tuple(rule for layer in self.layers for rule in layer.rules)

    @property
    def effective(self) -> tuple[Rule, ...]:
        """The rules of all layers and those registered with `Policy.on`."""
        return tuple(rule for layer in self.layers for rule in layer.effective)

    @property
    def default(self) -> Mapping[Operation, str]:
        """The strictest default of each operation."""
        return MappingProxyType(
            {
                operation: max((layer.default[operation] for layer in self.layers), key=VERDICTS.index)
                for operation in Operation
            }
        )

    @property
    def grants(self) -> tuple[Grant, ...]:
        """The grants of all layers; each answers its own layer only."""
        return tuple(grant for layer in self.layers for grant in layer.grants)

    @property
    def environment(self) -> StackedEnvironment:
        """What every layer lets through."""
        return StackedEnvironment(tuple(layer.environment for layer in self.layers))

    @property
    def features(self) -> frozenset[str]:
        """The features that every layer has."""
        return frozenset.intersection(*(layer.features for layer in self.layers))

    @property
    def limits(self) -> Limits:
        """The lowest limit of each kind."""
        return Limits.lowest(layer.limits for layer in self.layers)

    @property
    def linger(self) -> bool:
        """True if every layer lets what a command leaves running live on."""
        return all(layer.linger for layer in self.layers)

    @property
    def names(self) -> Names:
        """How the first layer that wants made-up addresses wants names answered: that tells names apart."""
        return next((layer.names for layer in self.layers if layer.names.synthetic), Names())

    @property
    def audit(self) -> str:
        """The strictest of what the layers want on record."""
        return max((layer.audit for layer in self.layers), key=AUDITS.index)

    @property
    def source(self) -> str | None:
        """The sources of the layers, joined by `` + ``; None if all were made in Python."""
        sources = [layer.source for layer in self.layers]
        return " + ".join(source or "(Python)" for source in sources) if any(sources) else None

    @property
    def files(self) -> tuple[str, ...]:
        """All files that the layers were read from."""
        return tuple(dict.fromkeys(name for layer in self.layers for name in layer.files))

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over the fingerprints of the layers in their order."""
        joined = "\n".join(["stack", *(layer.fingerprint for layer in self.layers)])
        return hashlib.sha256(joined.encode()).hexdigest()

    def unrestricted(self, operation: Operation) -> bool:
        """Say whether the operation is certainly allowed on every object, by every layer."""
        return all(layer.unrestricted(operation) for layer in self.layers)

    def with_rules(self, *rules: Rule) -> Stack:
        """Give a stack whose last layer has these rules too: it is the one that flags amend.

        Raises:
            PolicyError: A name is used twice within that layer.
        """
        return Stack((*self.layers[:-1], self.layers[-1].with_rules(*rules)))

    def with_grants(self, *grants: Grant, layer: int = -1) -> Stack:
        """Give a stack one of whose layers has these grants too.

        Args:
            grants: They answer this layer's questions and no other's.
            layer: The layer's place, such as `Decision.layer`; the last one if not given.
        """
        layers = list(self.layers)
        layers[layer] = layers[layer].with_grants(*grants)
        return Stack(layers)

    def matcher(
        self,
        *,
        home: bytes | None = None,
        directory: bytes | None = None,
        protected: Iterable[bytes] = (),
        planted: Iterable[bytes] = (),
        substitutes: Iterable[bytes] = (),
    ) -> StackMatcher:
        """Bind all layers to a place; arguments as for `Policy.matcher`."""
        protected, planted, substitutes = tuple(protected), tuple(planted), tuple(substitutes)
        return StackMatcher(
            self,
            [
                layer.matcher(
                    home=home,
                    directory=directory,
                    protected=protected,
                    planted=planted,
                    substitutes=substitutes,
                )
                for layer in self.layers
            ],
        )


class StackMatcher:
    """A stack bound to a place. Immutable to its users, and safe to use from several threads.

    Attributes:
        policy: The stack.
        layers: The matchers of its layers.
        home: Real path of the home that ``~`` means.
        directory: Real path of the directory that ``./`` means.
        host_patterns, host_names, judges_names, substitutes: As of a `Matcher`; what any layer has.
        process_operations, needs_process, needs_environment: As of a `Matcher`; what any layer needs.
    """

    def __init__(self, policy: Stack, layers: Sequence[Matcher]) -> None:
        self.policy = policy
        self.layers = tuple(layers)
        self.home = layers[0].home
        self.directory = layers[0].directory
        self.host_patterns = tuple(
            dict.fromkeys(pattern for layer in layers for pattern in layer.host_patterns)
        )
        self.host_names = frozenset[str]().union(*(layer.host_names for layer in layers))
        self.judges_names = any(layer.judges_names for layer in layers)
        self.substitutes = frozenset[bytes]().union(*(layer.substitutes for layer in layers))
        self.process_operations = frozenset[Operation]().union(
            *(layer.process_operations for layer in layers)
        )
        self.needs_process = bool(self.process_operations)
        self.needs_environment = any(layer.needs_environment for layer in layers)
        self._file: Callable[[Operation, bytes], Decision | None] = functools.lru_cache(maxsize=4096)(
            self._decide_file
        )

    def decide(self, event: Event) -> Decision:
        """Judge one event: the strictest of what the layers say.

        Of layers that are equally strict, the first one with a rule that says so speaks, else the first one.

        Raises:
            TypeError, ValueError: As `Matcher.decide`.
        """
        decision = self._file(event.operation, event.path) if isinstance(event, FileEvent) else None
        return self._decide(event) if decision is None else decision

    def laxest(self, event: Event) -> Decision:
        """Judge an event as if whoever may do most did it; as `Matcher.laxest`."""
        return self._strictest([layer.laxest(event) for layer in self.layers])

    def widens(self, old: bytes, new: bytes, *, directory: bool, program: bool = True) -> Decision | None:
        """Say whether something would be less restricted by some layer under a new name.

        Arguments and result as for `Matcher.widens`.
        """
        for index, layer in enumerate(self.layers):
            lost = layer.widens(old, new, directory=directory, program=program)
            if lost is not None:
                return self._marked(index, lost)
        return None

    @property
    def stands(self) -> bool:
        """As of a `Matcher`; of all layers."""
        return all(layer.stands for layer in self.layers)

    def default(self, operation: Operation) -> Decision:
        """Give the strictest of the defaults of an operation."""
        return self._strictest([layer.default(operation) for layer in self.layers])

    def _decide_file(self, operation: Operation, path: bytes) -> Decision | None:
        """Decide about a file; None if that depends on who acts."""
        if any(layer.varies(operation, path) for layer in self.layers):
            return None
        return self._decide(FileEvent(operation=operation, path=path))

    def _decide(self, event: Event) -> Decision:
        return self._strictest([layer.decide(event) for layer in self.layers])

    def _strictest(self, said: Sequence[Decision]) -> Decision:
        # The first of the strictest; of those that are equally strict, one with a rule.
        ranks = [(_STRICTNESS[each.verdict], each.rule is not None) for each in said]
        best = ranks.index(max(ranks))
        others = tuple(
            self._marked(index, each)
            for index, each in enumerate(said)
            if index != best and each.verdict != "allow"
        )
        redirecting = [each.redirecting for each in said if each.redirect is not None]
        redirecting.sort(key=lambda rule: not (rule and rule.redirect and rule.redirect.hides))
        decision = self._marked(best, said[best], others)
        return attrs.evolve(decision, redirecting=redirecting[0]) if redirecting else decision

    def _marked(self, index: int, said: Decision, others: tuple[Decision, ...] = ()) -> Decision:
        return Decision(
            verdict=said.verdict,
            operation=said.operation,
            rule=said.rule,
            reason=said.reason,
            grant=said.grant,
            layer=index,
            source=self.layers[index].policy.source,
            others=others,
        )


AnyPolicy = Policy | Stack
AnyMatcher = Matcher | StackMatcher
