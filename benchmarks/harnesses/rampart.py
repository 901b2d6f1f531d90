"""Runs commands behind one warm broker: with the profile `agent` as shipped, or with what the calls need."""

from __future__ import annotations

import argparse
import subprocess
import threading
from typing import BinaryIO

import rampart_seccomp as rampart
from benchmarks.harnesses import protocol

HOLD_SECONDS = 120.0


class Question:
    """An ask rule whose answer is never in time: it waits until the command has ended."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def decide(self, _: rampart.FileEvent) -> rampart.Verdict:
        """Deny, when nobody waits for it any more."""
        self._over.wait(HOLD_SECONDS)
        return rampart.Deny()

    def arm(self, waits: bool) -> None:
        """Let questions from now on wait, or end those that do."""
        if waits:
            self._over.clear()
        else:
            self._over.set()


def policy_for(options: argparse.Namespace, question: Question) -> rampart.Policy:
    """Return the policy: `shipped`, `calls`, `names` or `everything`."""
    if options.policy == "everything":
        operations = ["read", "write", "exec", "connect", "listen"]
        return rampart.Policy(rules=[rampart.allow(operations, name="everything")])
    agent = rampart.Policy.load("agent")
    if options.policy == "shipped":
        return agent
    if options.policy == "names":
        return agent.with_rules(rampart.allow("connect", hosts=["localhost"], name="loopback"))
    return agent.with_rules(
        rampart.allow("connect", hosts=["127.0.0.1"], name="loopback"),
        rampart.ask("read", paths=[f"{options.directory}/asked"], name="asked", decide=question.decide),
    )


def prepare(options: argparse.Namespace) -> protocol.Run:
    """Return what runs a command behind the policy."""
    question = Question()
    broker = rampart.Broker(policy_for(options, question))

    def run(argv: list[str], cwd: str, output: BinaryIO, timeout: float) -> protocol.Ran:
        question.arm(True)
        try:
            process: rampart.Popen[bytes]
            with rampart.Popen(
                argv, broker=broker, cwd=cwd, stdout=output, stderr=subprocess.STDOUT
            ) as process:
                try:
                    status = process.wait(timeout)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
        finally:
            question.arm(False)
        engine, python = process.session.counts
        return protocol.Ran(status, {"engine": engine, "Python": python})

    return run


if __name__ == "__main__":
    parser = protocol.arguments()
    parser.add_argument("--policy", choices=("shipped", "calls", "names", "everything"), default="shipped")
    protocol.serve(parser.parse_args(), prepare)
