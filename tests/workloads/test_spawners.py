"""Programs that start many others at once: none is denied wrongly, none waits for ever, all run as bare."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from rampart_seccomp import Policy

PIPELINES = """
i=0; while [ $i -lt {count} ]; do echo $i | cat | cat; i=$((i + 1)); done | cksum
"""

POOLS = """
import concurrent.futures, multiprocessing, os, subprocess

def work(number):
    return number * number, subprocess.check_output(["echo", str(number)])

if __name__ == "__main__":
    for turn in range({count}):
        for method in ("fork", "spawn", "forkserver"):
            context = multiprocessing.get_context(method)
            with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
                print(turn, method, list(pool.map(work, range(12))))
"""

THREADS = """
import os, threading
done = []
def work():
    for _ in range({count}):
        pid = os.posix_spawn("/bin/true", ["true"], {{}})
        done.append(os.waitpid(pid, 0)[1])
for turn in range({turns}):
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(len(done), set(done))
"""

GOROUTINES = """
package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
)

// The exit status; -1 if it was not started, or killed.
func status(err error) int {{
	var failed *exec.ExitError
	if errors.As(err, &failed) {{
		return failed.ExitCode()
	}}
	if err != nil {{
		return -1
	}}
	return 0
}}

func pipeline(text string) (string, error) {{
	first, second := exec.Command("cat"), exec.Command("tr", "a-z", "A-Z")
	into, _ := first.StdinPipe()
	second.Stdin, _ = first.StdoutPipe()
	out, _ := second.StdoutPipe()
	for _, command := range []*exec.Cmd{{first, second}} {{
		if err := command.Start(); err != nil {{
			return "", err
		}}
	}}
	io.WriteString(into, text)
	into.Close()
	said, _ := io.ReadAll(out)
	if err := first.Wait(); err != nil {{
		return "", err
	}}
	return string(said), second.Wait()
}}

func main() {{
	var group sync.WaitGroup
	results := make(chan string, {count}*16*4)
	check := func(found, expected string) {{
		if found != expected {{
			results <- fmt.Sprintf("%q is not %q", found, expected)
		}}
	}}
	for worker := 0; worker < 16; worker++ {{
		group.Add(1)
		go func(worker int) {{
			defer group.Done()
			for turn := 0; turn < {count}; turn++ {{
				check(fmt.Sprint(exec.Command("/bin/true").Run()), "<nil>")
				code := (worker + turn) % 200
				ended := exec.Command("sh", "-c", fmt.Sprint("exit ", code)).Run()
				check(fmt.Sprint(status(ended)), fmt.Sprint(code))
				check(fmt.Sprint(status(exec.Command("./missing").Run())), "-1")
				said, err := pipeline(fmt.Sprint("line ", worker, turn))
				check(fmt.Sprint(said, err), fmt.Sprint("LINE ", worker, turn, "<nil>"))
			}}
		}}(worker)
	}}
	group.Wait()
	close(results)
	for result := range results {{
		fmt.Println(result)
	}}
	fmt.Println("spawned by", 16*{count})
}}
"""

MAKEFILE = """
all: $(addprefix out/,$(shell seq {count}))
out/%:
	@mkdir -p out; echo $* | cat | sed 's/^/made /' > $@; sh -c '/bin/true'
"""


@attrs.frozen
class Spawner:
    """A spawner.

    Attributes:
        name: Its name.
        argv: What runs it.
        files: What it is made of; ``{count}`` is how often it spawns.
        quick, long: How often, in the quick suite and in the long one.
        tool: Program without which it is skipped.
        build: A command that makes it, bare.
    """

    name: str
    argv: tuple[str, ...]
    files: dict[str, str]
    quick: int
    long: int
    tool: str = "sh"
    build: tuple[str, ...] = ()


SPAWNERS = [
    Spawner("36 spawns from 6 threads", (sys.executable, "work.py"), {"work.py": THREADS}, 10, 100),
    Spawner(
        "goroutines",
        ("./work",),
        {"work.go": GOROUTINES},
        5,
        60,
        "go",
        ("go", "build", "-o", "work", "work.go"),
    ),
    Spawner("make -j8", ("make", "-s", "-j8"), {"Makefile": MAKEFILE}, 40, 1_000, "make"),
    Spawner("pipelines of dash", ("dash", "work.sh"), {"work.sh": PIPELINES}, 60, 1_000, "dash"),
    Spawner("process pools", (sys.executable, "work.py"), {"work.py": POOLS}, 1, 10),
]


@pytest.mark.core
@pytest.mark.parametrize("amount", ["quick", pytest.param("long", marks=pytest.mark.long)])
@pytest.mark.parametrize("restricted", [True, False], ids=["exec rules", "allow all"])
@pytest.mark.parametrize("spawner", SPAWNERS, ids=[spawner.name for spawner in SPAWNERS])
def test_spawner(
    spawner: Spawner, restricted: bool, amount: str, project: Any, allow_all: Any, deny_rule: Any
) -> None:
    """The same output and status as bare, and no denial, while each exec is verified."""
    if shutil.which(spawner.tool) is None:
        pytest.skip(f"{spawner.tool} is not installed")
    count = spawner.quick if amount == "quick" else spawner.long
    for name, content in spawner.files.items():
        project.write(name, content.format(count=6 if "36" in spawner.name else count, turns=count))
    if spawner.build:
        made = project.bare(
            spawner.build,
            timeout=300,
            env={
                "GOCACHE": str(project.base / "cache"),
                "GO111MODULE": "off",
                "GOFLAGS": "-p=2",
                "CGO_ENABLED": "0",
            },
        )
        assert made.returncode == 0, made.stderr
    policy: Policy = deny_rule("exec", paths=["./nothing"]) if restricted else allow_all
    bare = project.bare(spawner.argv, timeout=600)
    shutil.rmtree(Path(project.root) / "out", ignore_errors=True)

    done = project.run(spawner.argv, policy, timeout=900)

    assert (done.stdout, done.returncode) == (bare.stdout, 0), done.stderr
    assert done.denials == []
    execs = [record for record in project.records() if record["operation"] == "exec"]
    assert len(execs) > count
    assert {record["enforced"] for record in execs} == {"verified"}
