"""machine.py DIRECTORY: open disks, memory and kernel files by many names, bare and behind a policy.

Makes nodes and mounts: to be run in mount and pid namespaces of its own. Prints JSON: bare and judged answers
by case, and the audit records of what was denied.
"""

import json
import os
import subprocess
import sys

import rampart_seccomp as rampart

# In the tree: argument triples NAME FLAGS DATA. Nothing that changes the machine is written: "" is no write.
OPENER = """
import errno, json, os, sys
answers = {}
for name, path, how in json.loads(sys.argv[1]):
    try:
        if how == "truncate":
            os.truncate(path, 0)
        elif how == "chmod":
            os.chmod(path, 0o600)
        elif how == "mkdir":
            os.mkdir(path)
            os.rmdir(path)
        elif how == "proc fd":
            pin = os.open(path, os.O_PATH)
            os.close(os.open(f"/proc/self/fd/{pin}", os.O_WRONLY))
        else:
            os.close(os.open(path, {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}[how]))
        answers[name] = "ok"
    except OSError as error:
        answers[name] = errno.errorcode[error.errno]
print(json.dumps(answers))
"""


def mount(*words):
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


base = sys.argv[1]
mount("-t", "tmpfs", "-o", "mode=755", "none", base)
os.chdir(base)
for node, kind, number in (
    ("disk", "b", (7, 0)),
    ("mem", "c", (1, 1)),
    ("kmem", "c", (1, 2)),
    ("port", "c", (1, 4)),
    ("kmsg", "c", (1, 11)),
    ("sg", "c", (21, 0)),
    ("msr", "c", (202, 0)),
    ("snapshot", "c", (10, 231)),
    ("null", "c", (1, 3)),
    ("zero", "c", (1, 5)),
):
    subprocess.run(["mknod", node, kind, *map(str, number)], check=True)
os.symlink("disk", "link")
os.link("disk", "hard")
for name in ("proc", "kernel", "cgroup", "misc", "sys"):
    os.mkdir(name)
open("file", "w").close()
cases = [
    (name, f"{base}/{name}", how)
    for name, how in (
        ("disk", "r"),
        ("mem", "r"),
        ("kmem", "r"),
        ("port", "rw"),
        ("kmsg", "r"),
        ("sg", "rw"),
        ("msr", "r"),
        ("snapshot", "r"),
        ("link", "r"),
        ("hard", "w"),
        ("null", "rw"),
        ("zero", "r"),
    )
]
cases += [
    ("disk by descriptor", f"{base}/disk", "proc fd"),
    ("/dev/loop0", "/dev/loop0", "r"),
    ("core_pattern", "/proc/sys/kernel/core_pattern", "w"),
    ("core_pattern by descriptor", "/proc/sys/kernel/core_pattern", "proc fd"),
    ("core_pattern, to read", "/proc/sys/kernel/core_pattern", "r"),
    ("truncate core_pattern", "/proc/sys/kernel/core_pattern", "truncate"),
    ("drop_caches", "/proc/sys/vm/drop_caches", "w"),
    ("own comm", "/proc/self/comm", "w"),
    ("own oom_score_adj", "/proc/self/oom_score_adj", "w"),
    ("meminfo", "/proc/meminfo", "r"),
    ("pm_freeze_timeout", "/sys/power/pm_freeze_timeout", "w"),
    ("profiling", "/sys/kernel/profiling", "w"),
    ("sys, to read", "/sys/kernel/notes", "r"),
]
cases += [("kcore", "/proc/kcore", "r")] if os.path.exists("/proc/kcore") else []
if mount("-t", "proc", "none", "proc"):
    cases += [
        ("second proc", f"{base}/proc/sys/kernel/core_pattern", "w"),
        ("second proc by descriptor", f"{base}/proc/sys/kernel/core_pattern", "proc fd"),
        ("second proc, own", f"{base}/proc/self/comm", "w"),
    ]
if mount("--bind", "/proc/sys/kernel", "kernel"):
    cases.append(("part of proc", f"{base}/kernel/core_pattern", "w"))
if mount("--bind", "/proc/sys/kernel/core_pattern", "file"):
    cases.append(("one file of proc", f"{base}/file", "w"))
if mount("-t", "binfmt_misc", "none", "misc"):
    cases.append(("binfmt_misc", f"{base}/misc/register", "w"))
if mount("-t", "sysfs", "none", "sys"):
    cases.append(("second sys", f"{base}/sys/power/pm_freeze_timeout", "w"))
for kind, options in (("cgroup", ["-o", "none,name=rampart"]), ("cgroup", ["-o", "pids"]), ("cgroup2", [])):
    if mount("-t", kind, *options, "none", "cgroup"):
        cases += [
            (f"{kind} procs", f"{base}/cgroup/cgroup.procs", "w"),
            (f"{kind} directory", f"{base}/cgroup/rampart-made", "mkdir"),
            (f"{kind} procs, to read", f"{base}/cgroup/cgroup.procs", "r"),
        ]
        if kind == "cgroup":
            cases.append(("release_agent", f"{base}/cgroup/release_agent", "w"))
        break
# A file beyond the root of procfs that says it were a process's.
with open("status", "w") as forged:
    forged.write(f"Name:\tx\nTgid:\t{os.getpid()}\n")

argv = [sys.executable, "-c", OPENER, json.dumps(cases)]
bare = subprocess.run(argv, capture_output=True, text=True, check=True)
everything = rampart.allow(["read", "write", "exec", "connect", "listen"], name="everything")
log = os.path.join(base, "audit.jsonl")
done = rampart.run(
    argv, policy=rampart.Policy(rules=[everything]), audit=log, capture_output=True, text=True, timeout=60
)
if done.returncode:
    sys.exit(done.stderr)
with open(log) as lines:
    records = [json.loads(line) for line in lines]
denied = [record["path"] for record in records if record.get("verdict") == "deny" and "path" in record]
print(json.dumps({"bare": json.loads(bare.stdout), "judged": json.loads(done.stdout), "denied": denied}))
