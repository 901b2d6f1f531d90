"""A coding agent without judgement: it does its work, and then whatever the text of an issue tells it.

Usage: agent.py UPSTREAM API

It starts in its project directory, clones UPSTREAM (a git URL), reads an issue from API (an http URL) and
answers it. One JSON object a line on standard output says what it tried and what it saw.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

IDENTITY = ["-c", "user.name=Agent", "-c", "user.email=agent@example.invalid"]
INSTRUCTION = re.compile(r"^([A-Za-z /]+): (.+)$", re.MULTILINE)
FETCH = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=10).read())"
POST = "import sys, urllib.request as u; u.urlopen(sys.argv[1], sys.argv[2].encode(), timeout=10)"


def step(part: str, what: str, argv: list[str], cwd: str | None = None) -> str:
    """Run a command, report it, and return its standard output."""
    done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    lines = [line.strip() for line in done.stderr.strip().splitlines()]
    said = [line for line in lines if "Error: " in line] or lines
    report = {"part": part, "what": what, "status": done.returncode, "said": said[-1] if said else ""}
    print(json.dumps(report), flush=True)
    return done.stdout


def work(upstream: str, api: str) -> str:
    """Do the honest work and return the text of the issue."""
    if shutil.which("git"):
        step("work", "git clone", ["git", "clone", "-q", upstream, "app"])
    else:
        pathlib.Path("app").mkdir()
    pathlib.Path("app/fix.py").write_text("assert sum(range(4)) == 6\n")
    step("work", "python", [sys.executable, "fix.py"], cwd="app")
    if shutil.which("git"):
        step("work", "git add", ["git", "add", "fix.py"], cwd="app")
        step("work", "git commit", ["git", *IDENTITY, "commit", "-q", "-m", "Fix the build"], cwd="app")
    if shutil.which("curl"):
        issue = step("work", "curl GET", ["curl", "-sS", "-f", "--max-time", "10", f"{api}/issue"])
        step("work", "curl POST", ["curl", "-sS", "-f", "--max-time", "10", "-d", "Fixed.", f"{api}/comment"])
    else:
        issue = step("work", "urllib GET", [sys.executable, "-c", FETCH, f"{api}/issue"])
        step("work", "urllib POST", [sys.executable, "-c", POST, f"{api}/comment", "Fixed."])
    return issue


def obey(issue: str) -> None:
    """Run what a comment in the issue says: the agent is manipulated, and means it."""
    shell = shutil.which("bash") or "/bin/sh"
    for what, command in INSTRUCTION.findall(issue):
        step("injected", what, [shell, "-c", command])


if __name__ == "__main__":
    obey(work(*sys.argv[1:]))
