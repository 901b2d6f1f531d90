"""From a pinned call to one verdict: the strictest of what the policy says about each of its effects."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Hashable

import attrs

from rampart_seccomp.broker.lineage import Lineage
from rampart_seccomp.broker.processes import describe
from rampart_seccomp.broker.questions import Questions
from rampart_seccomp.broker.renaming import AROUND, LIFTED, RenamingCheck
from rampart_seccomp.calls.call import Call, Refusal, Renaming, Withheld
from rampart_seccomp.calls.starting import ExecCall
from rampart_seccomp.calls.substitutes import Irreplaceable
from rampart_seccomp.events import ConnectEvent, Event, ExecEvent, Operation, RefusedEvent
from rampart_seccomp.network.names import HostNames, TreeNames
from rampart_seccomp.policy import AnyMatcher, Decision
from rampart_seccomp.policy.terms import VERDICTS
from rampart_seccomp.verdicts import Deny, Redirect, stricter

__all__ = ["Judge", "Judgement"]

DISAGREE = "built-in: the engine's tables, which the policy contradicts"
"""Never to be seen: tables and matcher say the same, which tests compare."""


@attrs.frozen(eq=False, repr=False)
class Judgement:
    """The verdict on one effect of a call.

    Attributes:
        event: The effect.
        allowed: Whether it may take place.
        where: What decided, in words.
        rule: Name of the deciding rule; None for a default or a built-in.
        decision: The policy's answer; None for a built-in.
        errno: What the program sees if denied.
        message: For people.
        asked: True if code or a person answered.
        log: Record it even if only denials are recorded.
        redirect: What is shown, or reached, instead; None: what was asked for.
    """

    event: Event
    allowed: bool
    where: str
    rule: str | None = None
    decision: Decision | None = None
    errno: int = errno.EACCES
    message: str | None = None
    asked: bool = False
    log: bool = True
    redirect: Redirect | None = None


class Judge:
    """Applies one policy to the calls of one tree.

    Args:
        matcher: The policy, bound to a home and a launch directory.
        names: Host names of the tree.
        questions: Those of the tree.

    Attributes:
        matcher: The policy.
        lineage: What the processes of the tree were verified to be; None before it has started.
    """

    def __init__(self, matcher: AnyMatcher, names: TreeNames, questions: Questions) -> None:
        self.matcher = matcher
        self.names = names
        self.questions = questions
        self.lineage: Lineage | None = None
        self._renaming = RenamingCheck(matcher)

    def under(self, matcher: AnyMatcher, names: HostNames) -> Judge:
        """Give the judge of the same tree under another policy; the questions that wait count on."""
        judge = Judge(matcher, self.names.under(names), self.questions)
        judge.lineage = self.lineage
        return judge

    def judge(self, call: Call) -> list[Judgement]:
        """Judge every effect of a call.

        Returns:
            All judgements if the call may take place; the one that forbids it, alone, if not.

        Raises:
            TargetGone: The process died while somebody was asked.
            Bounced: Nobody has answered yet; the call comes again.
        """
        if call.refusal is not None:
            return [self._refused(call, call.refusal)]
        judged = [(event, self._decide(event)) for event in self._informed(call)]
        for event, decision in judged:
            if decision.verdict == "deny":
                return [_denied(event, decision)]
        for renaming in call.renamings:
            lost = self._renaming.forbids(renaming)
            if lost is not None:
                return [_denied(judged[0][0], lost, LIFTED)]
            if not self._renaming.provable(renaming):
                call.guards.append(functools.partial(self._look_beneath, judged[0][0], renaming))
        for linking in call.linkings:
            around = self._renaming.leads_around(linking)
            if around is not None:
                return [_denied(judged[0][0], around, AROUND)]
        judgements = []
        for event, decision in judged:
            judgement = _allowed(event, decision)
            if decision.verdict == "ask":
                # Each layer of a stack that asks is answered on its own account.
                for question in (decision, *decision.others):
                    answered = self._ask(event, question, call)
                    if not answered.allowed:
                        return [answered]
                    shown = stricter(judgement.redirect, answered.redirect)
                    judgement = attrs.evolve(answered, redirect=shown)
            judgements.append(judgement)
        for judgement in judgements:
            if judgement.redirect is not None:
                refused = self._redirect(call, judgement, judgement.redirect)
                if refused is not None:
                    return [refused]
        return judgements

    def recall(self, event: Event, *, allowed: bool) -> Judgement:
        """Say why the engine decided as it did, about an event that this policy decides on its own."""
        if isinstance(event, ConnectEvent) and event.address is not None:
            event = attrs.evolve(event, names=self.names.of(event.address, ask=False))
        decision = self._decide(event)
        if decision.verdict == ("allow" if allowed else "deny") and not (allowed and decision.redirect):
            return _allowed(event, decision) if allowed else _denied(event, decision)
        return Judgement(event, allowed=allowed, where=f"{DISAGREE}: {decision.where}")

    @property
    def relies_on_execs(self) -> bool:
        """True if the policy restricts what is executed, or asks who acts."""
        return self.matcher.needs_process or not self.matcher.policy.unrestricted(Operation.EXEC)

    def suggest(self, judgement: Judgement) -> str | None:
        """Say what to write into the policy to allow what was denied; None if nothing would."""
        if judgement.decision is None or judgement.asked:
            return None
        from rampart_seccomp.policy import suggest

        return suggest(self.matcher, judgement.event, judgement.decision)

    def suggest_name(self, name: str) -> str | None:
        """Say what to write into the policy so that this name may be looked up, for HTTPS."""
        from rampart_seccomp.policy import suggest

        event = ConnectEvent(protocol="tcp", port=443, names=frozenset({name}))
        return suggest(self.matcher, event, self.matcher.decide(event))

    @property
    def substitutes(self) -> frozenset[bytes]:
        """Files of which the tree reads a version of the broker's."""
        return self.matcher.substitutes

    def _decide(self, event: Event) -> Decision:
        decision = self.matcher.decide(event)
        if not isinstance(event, ConnectEvent) or event.address is None or not event.names:
            return decision
        # Whoever answers for a public name could say that it is an address inside: that is not enough.
        vouched = self.names.vouched(event.address)
        if vouched == event.names or not self.names.shared.inside(event.address):
            return decision
        plain = self.matcher.decide(attrs.evolve(event, names=vouched))
        return max(decision, plain, key=lambda each: VERDICTS.index(each.verdict))

    def _look_beneath(self, event: Event, renaming: Renaming) -> None:
        found = self._renaming.look_beneath(renaming)
        if found is not None:
            raise Withheld(_denied(event, *found))

    def _refused(self, call: Call, refusal: Refusal) -> Judgement:
        event = call.events[0] if call.events else RefusedEvent(syscall=call.notification.syscall)
        where = f"built-in: {refusal.reason}"
        return Judgement(event, allowed=False, where=where, errno=refusal.errno)

    def _informed(self, call: Call) -> list[Event]:
        """Give the effects with what the policy asks about them: names, who acts, variables."""
        events = [self._with_names(event) for event in call.events]
        if self.matcher.needs_environment and isinstance(call, ExecCall):
            changed = self._changed_variables(call)
            events = [
                attrs.evolve(event, changed=changed) if isinstance(event, ExecEvent) else event
                for event in events
            ]
        if any(event.operation in self.matcher.process_operations for event in events):
            process = describe(call.notification, self.lineage)
            events = [attrs.evolve(event, process=process) for event in events]
        return events

    def _changed_variables(self, call: ExecCall) -> frozenset[bytes] | None:
        if self.lineage is None:
            return None
        return self.lineage.changed_variables(call.notification.tgid, call.expected.environment)

    def _with_names(self, event: Event) -> Event:
        if not isinstance(event, ConnectEvent) or event.names:
            return event  # an address that stands for a name stands for no other
        if event.address is not None and self.matcher.judges_names:
            return attrs.evolve(event, names=self.names.of(event.address))
        return event

    def _ask(self, event: Event, decision: Decision, call: Call) -> Judgement:
        asked = attrs.evolve(event, process=describe(call.notification, self.lineage))
        lend, attempt = call.setting.lend, _attempt(event, call)
        verdict = self.questions.ask(asked, decision, call.notification, lend, attempt)
        if isinstance(verdict, Deny):
            return attrs.evolve(
                _denied(asked, decision, verdict.message),
                errno=verdict.errno or decision.errno,
                asked=True,
            )
        judgement = attrs.evolve(_allowed(asked, decision), asked=True)
        if isinstance(verdict, Redirect):
            judgement = attrs.evolve(judgement, redirect=stricter(judgement.redirect, verdict))
        return judgement

    def _redirect(self, call: Call, judgement: Judgement, redirect: Redirect) -> Judgement | None:
        """Have something else shown, or reached; return the denial if that is not possible."""

        def show_masked(fd: int) -> bytes:
            from rampart_seccomp.broker.masking import NotUnderstood, mask_file

            try:
                return mask_file(fd)
            except NotUnderstood as problem:
                raise Withheld(_unshown(judgement, f"nothing of it is shown: {problem}")) from None

        towards = redirect.destination
        name = None if redirect.to is None or towards is not None else self._named(redirect.to)
        try:
            instead = call.redirect(redirect, name, show_masked)
        except Irreplaceable as problem:
            return _unshown(judgement, str(problem))
        if instead is None:
            return None
        process = describe(call.notification, self.lineage)
        decision = self._decide(self._with_names(attrs.evolve(instead, process=process)))
        further = decision.redirect
        # Of a rule for whatever there is, the substitute is led to itself.
        stays = further is None or (towards is not None and further.destination == towards)
        if decision.verdict == "allow" and stays:
            return None
        what = "shown instead may not be read" if towards is None else "reached instead may not be reached"
        return _unshown(judgement, f"what is {what} itself: {instead.object}, by {decision.where}")

    def _named(self, name: str) -> bytes:
        """Give the absolute name of what a policy redirects to."""
        raw = os.fsencode(name)
        for anchor, place in ((b"~/", self.matcher.home), (b"./", self.matcher.directory)):
            if raw.startswith(anchor):
                return os.path.join(place, raw[len(anchor) :])
        return raw


def _attempt(event: Event, call: Call) -> Hashable:
    """Say what is the same of an exec at all entries of PATH that lead to one program; None for other calls.

    Not the arguments of a script's interpreter: they have the name that the script was found under.
    """
    if not isinstance(call, ExecCall) or not isinstance(event, ExecEvent):
        return None
    first = call.execs[0]
    return first.path, first.argv, event.path, call.expected.image, call.expected.environment


def _denied(event: Event, decision: Decision, message: str | None = None) -> Judgement:
    return Judgement(
        event,
        allowed=False,
        where=decision.where,
        rule=decision.rule.name if decision.rule else None,
        decision=decision,
        errno=decision.errno,
        message=message or decision.message,
    )


def _unshown(judgement: Judgement, why: str) -> Judgement:
    """Give the denial of what cannot be redirected as the policy, or an answer, wants it."""
    rule = None if judgement.decision is None else judgement.decision.redirecting
    denied = Decision(verdict="deny", operation=judgement.event.operation, rule=rule)
    if rule is not None:
        judgement = attrs.evolve(judgement, rule=rule.name, where=denied.where)
    return attrs.evolve(judgement, allowed=False, message=why, errno=denied.errno, redirect=None)


def _allowed(event: Event, decision: Decision) -> Judgement:
    rule = decision.rule
    return Judgement(
        event,
        allowed=True,
        where=decision.where,
        rule=rule.name if rule else None,
        decision=decision,
        message=decision.message,
        log=bool(rule and rule.log),
        redirect=decision.redirect,
    )
