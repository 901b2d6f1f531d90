"""Honest work: what developers and agents run every day gives the same results as without Rampart.

Each piece of work is done bare, behind a policy that allows everything, and behind the ``agent`` profile, in
the same directory with a home of its own. Standard output, exit status and the tree left behind are equal.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

Listing = dict[str, tuple[str, str]]
# Files whose bytes depend on inode numbers, times or random numbers.
VARYING = ("/index", ".pyc", ".db", "/venv/bin/python")


@attrs.frozen
class Work:
    """A piece of work.

    Attributes:
        name: Its name.
        script: What bash runs in the project; ``$PORT`` is a loopback server that answers "hello".
        tools: Programs without which it is skipped.
        prepare: Makes its files.
        requires: A command that must succeed bare, else it is skipped.
        seconds: Time limit.
        long: Left to the long suite.
    """

    name: str
    script: str
    tools: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = None
    requires: tuple[str, ...] = ()
    seconds: float = 120
    long: bool = False


def c_project(root: Path) -> None:
    """A program of two sources, a header, a static library and a makefile."""
    files = {
        "greet.h": "const char *greeting(int n);\n",
        "greet.c": '#include "greet.h"\nconst char *greeting(int n) { return n ? "hello" : "bye"; }\n',
        "main.c": '#include <stdio.h>\n#include "greet.h"\nint main(void) { puts(greeting(1)); return 4; }\n',
        "Makefile": (
            "CFLAGS = -O2 -Wall\n"
            "hello: main.o libgreet.a\n\t$(CC) -o $@ main.o -L. -lgreet\n"
            "libgreet.a: greet.o\n\tar rcsD $@ $<\n"
            "%.o: %.c greet.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n"
            "clean:\n\trm -f *.o *.a hello\n"
        ),
    }
    for name, content in files.items():
        (root / name).write_text(content)


def wheel(root: Path) -> None:
    """A wheel with one module and one console script, made by hand."""
    directory = "demo_pkg-1.0.dist-info"
    tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
    files = {
        "demo_pkg.py": "def main():\n    print('from the wheel')\n",
        f"{directory}/METADATA": "Metadata-Version: 2.1\nName: demo-pkg\nVersion: 1.0\n",
        f"{directory}/WHEEL": f"Wheel-Version: 1.0\nGenerator: hand\n{tags}",
        f"{directory}/entry_points.txt": "[console_scripts]\ndemo-pkg = demo_pkg:main\n",
    }
    record = ""
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    files[f"{directory}/RECORD"] = record + f"{directory}/RECORD,,\n"
    with zipfile.ZipFile(root / "demo_pkg-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)


def sources(root: Path) -> None:
    """A small tree of text files."""
    for name in ("a.txt", "sub/b.txt", "sub/deeper/c.txt", "sub/name with space.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the old word in {name}\n" * 3)
        os.utime(path, (1_000_000_000, 1_000_000_000))


def program(name: str, content: str) -> Callable[[Path], None]:
    """Make one source file."""

    def make(root: Path) -> None:
        (root / name).write_text(content)

    return make


MULTIPROCESSING = """
import multiprocessing, sys

def square(number):
    return number * number

def put(queue, shared):
    queue.put("from a child")
    shared["key"] = "through the manager"

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(3) as pool:
            print(method, pool.map(square, range(10)))
        queue = context.Queue()
        with context.Manager() as manager:
            shared = manager.dict()
            child = context.Process(target=put, args=(queue, shared))
            child.start()
            print(queue.get(timeout=60), child.join(60), shared["key"], child.exitcode)
"""

ASYNCIO = """
import asyncio

async def main():
    async def one(number):
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"read line; echo {number} $line; exit {number}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate(b"input\\n")
        return out, process.returncode
    print(await asyncio.gather(*(one(number) for number in range(8))))
    server = await asyncio.start_unix_server(lambda r, w: (w.write(b"served"), w.close()), "service.sock")
    async with server:
        reader, writer = await asyncio.open_unix_connection("service.sock")
        print(await reader.read())
        writer.close()
    process = await asyncio.create_subprocess_exec("sleep", "60")
    process.terminate()
    print(await process.wait())

asyncio.run(main())
"""

THREADS = """
import pathlib, subprocess, tempfile, threading, os, shutil
results = []
def work(number):
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "file"
        for turn in range(20):
            path.write_text(f"{number} {turn}")
            assert path.read_text() == f"{number} {turn}"
            path.rename(path.with_name("other"))
            (path.parent / "other").unlink()
        results.append(subprocess.check_output(["echo", str(number)], text=True).strip())
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(results))
"""

NODE = """
const fs = require("fs"), path = require("path"), { execSync, spawn } = require("child_process");
fs.mkdirSync("out/deep", { recursive: true });
fs.writeFileSync("out/deep/file.txt", "from node\\n");
fs.copyFileSync("out/deep/file.txt", "out/copy.txt");
fs.renameSync("out/copy.txt", "out/moved.txt");
console.log(fs.readFileSync("out/moved.txt", "utf8").trim(), fs.readdirSync("out"));
console.log(execSync("echo from a child").toString().trim());
fs.promises.readFile("package.json").then((text) => {
  console.log(JSON.parse(text).version);
  spawn("sh", ["-c", "exit 3"]).on("exit", (code) => console.log("exit", code));
});
"""

GIT = """
git init -q -b main repo && cd repo
git config user.name Someone && git config user.email someone@example.com
echo one > file && mkdir dir && echo two > dir/other && git add . && git commit -q -m first
git status --short && echo more >> file && git status --short && git commit -q -am second
git mv dir/other moved && git commit -q -m third
git checkout -q -b topic HEAD~1 && echo topic > topic && git add topic && git commit -q -m topic
git merge -q main -m merge && git log --oneline --graph && git diff HEAD~1 --stat
git stash list; echo dirty > file; git stash -q; cat file; git stash pop -q; cat file; git checkout -q file
cd .. && git clone -q repo clone && cd clone && git log --format=%s && git status && git gc -q && git fsck
git tag v1 && git worktree add -q ../tree && ls ../tree && git -C ../tree status --short
"""

BASH = """
for i in 1 2 3; do echo $((i * i)); done
f() { local x=$1; echo ${x^^}; }
f text; a=(x y z); echo ${a[1]}
if [[ -e nothing ]]; then echo yes; else echo no; fi
(exit 3) || echo status $?
trap 'echo bye' EXIT
exit 9
"""

PIPELINES = """
seq 1000 | grep 7 | sort -rn | head -20 | tee kept | wc -l
cut -c1-2 kept | uniq -c
yes | head -3
cat < <(echo from) | tr a-z A-Z
echo $(ls | wc -l)
set -o pipefail
false | true; echo $?
"""

FILES = """
umask 027; mkdir -p a/b/c; touch a/b/c/f; cp -a a copy; mv copy/b moved; ln -s a/b link; ln a/b/c/f hard
chmod 640 hard; stat -c '%a %h %n' hard moved a; rm -r copy; find . | sort; ls -l link | tail -c 9
mktemp -d ./tmp.XXXXXX > /dev/null && rmdir tmp.*; install -m 711 hard installed; truncate -s 100 big
dd if=/dev/zero of=zero bs=1k count=4 status=none; sync zero; realpath --relative-to=. link; du -b zero
"""

VENV = """
python3 -m venv --without-pip venv && venv/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'
python3 -m zipfile -e *.whl "$(venv/bin/python -c 'import site; print(site.getsitepackages()[0])')"
venv/bin/python -c 'import demo_pkg; demo_pkg.main(); print(demo_pkg.__file__)'
"""

PIP = """
python3 -m venv venv && venv/bin/pip install -q --no-index --no-compile *.whl 2>&1 && venv/bin/demo-pkg
venv/bin/python -c 'import demo_pkg; print(demo_pkg.__file__)'
venv/bin/pip list --format=freeze | grep demo
"""

TAR = """
tar --sort=name --mtime=@0 --owner=0 --group=0 -cf all.tar a.txt sub && tar -tf all.tar && mkdir out
tar -C out -xf all.tar && diff -r sub out/sub && gzip -n all.tar && tar -tzf all.tar.gz | wc -l
zcat all.tar.gz | md5sum && cmp a.txt out/a.txt && echo same
"""

FIND = r"""
find . -name '*.txt' -exec sed -i s/old/new/ {} +
find . -name '*.txt' -exec grep -c new {} \;
find . -name '*.txt' -print0 | xargs -0 -n1 -P4 sed -i.bak 's/word/thing/'
find . -name '*.bak' | sort; grep -rh thing . | sort | uniq -c; find . -name '*.bak' -delete
awk '{print $2}' a.txt; perl -pi -e s/the/a/ a.txt
"""

SQLITE = """
sqlite3 x.db 'pragma journal_mode=wal; create table t(a); insert into t values (1),(2); select sum(a) from t;'
python3 - <<'END'
import sqlite3
connection = sqlite3.connect("y.db")
connection.execute("create table t(a)")
connection.executemany("insert into t values (?)", [(i,) for i in range(100)])
connection.commit()
print(connection.execute("select count(*), sum(a) from t").fetchall())
END
sqlite3 y.db .schema
"""

CURL = """
curl -sS http://127.0.0.1:$PORT/x && curl -sS -o saved http://127.0.0.1:$PORT/y && cat saved
curl -s -w '%{http_code}\\n' -o /dev/null http://127.0.0.1:$PORT/missing
"""

NPM = """
npm init -y > /dev/null && cat package.json && node main.js && npm test 2>&1 | grep -i specified
"""

MAKE = "make -s && ./hello; echo $?; touch -d 2001-01-01 *.h; make; make -s clean; make -s -j4 && ./hello"

ENSUREPIP = ("python3", "-c", "import ensurepip, venv")

WORK = [
    Work("bash", BASH),
    Work("pipelines", PIPELINES),
    Work("hundred pipelines", "for i in $(seq 100); do echo $i | cat | cat; done | md5sum"),
    Work("files", FILES),
    Work("git", GIT, ("git",)),
    Work("gcc and make", MAKE, ("cc", "make", "ar"), c_project),
    Work("venv", VENV, ("python3",), wheel, ("python3", "-c", "import venv")),
    Work("venv and pip", PIP, ("python3",), wheel, ENSUREPIP, 400, long=True),
    Work("npm and node", NPM, ("npm", "node"), program("main.js", NODE), seconds=240),
    Work("curl", CURL, ("curl",)),
    Work("tar", TAR, ("tar", "gzip"), sources),
    Work("find -exec and sed -i", FIND, ("find", "sed", "xargs", "perl"), sources),
    Work(
        "python multiprocessing",
        "python3 work.py",
        ("python3",),
        program("work.py", MULTIPROCESSING),
        seconds=240,
    ),
    Work("python asyncio", "python3 work.py", ("python3",), program("work.py", ASYNCIO)),
    Work("python threads", "python3 work.py", ("python3",), program("work.py", THREADS)),
    Work("sqlite", SQLITE, ("sqlite3", "python3")),
]


class Hello(http.server.BaseHTTPRequestHandler):
    """Answers "hello" and the path; /missing is missing."""

    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/missing" else 200)
        self.end_headers()
        self.wfile.write(f"hello {self.path}\n".encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server on loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def listing(root: Path) -> Listing:
    """Mode and content of everything below a directory; "varies" for what is never twice the same."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = "/" + str(path.relative_to(root))
        mode = f"{path.lstat().st_mode:o}"
        if path.is_symlink():
            content = os.readlink(path)
        elif not path.is_file():
            content = ""
        elif any(part in name for part in VARYING):
            content = "varies"
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = (mode, content)
    return found


def fresh(project: Any, work: Work) -> None:
    """Empty the project and the home, and make the files of the work."""
    for directory in (project.root, project.home):
        shutil.rmtree(directory)
        directory.mkdir()
    if work.prepare is not None:
        work.prepare(project.root)


@pytest.mark.core
@pytest.mark.parametrize(
    "work",
    [pytest.param(each, id=each.name, marks=[pytest.mark.long] if each.long else []) for each in WORK],
)
def test_same_as_bare(work: Work, project: Any, port: int, allow_all: Any) -> None:
    """Output, status and the tree left behind do not depend on Rampart being there."""
    import rampart_seccomp as rampart

    for tool in work.tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if work.requires and project.bare(work.requires).returncode != 0:
        pytest.skip(f"{' '.join(work.requires)} fails on this machine")
    agent = rampart.Policy.load("agent").with_rules(
        rampart.allow("connect", hosts=[f"127.0.0.1:{port}"], name="local-server")
    )
    project.environment |= {
        "PORT": str(port),
        "TMPDIR": "/tmp",
        "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
        "npm_config_update_notifier": "false",
        "npm_config_cache": str(project.home / ".npm"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    command = ["bash", "-c", work.script]

    fresh(project, work)
    bare = project.bare(command, timeout=work.seconds)
    expected = listing(project.root)
    assert bare.stdout
    for name, policy in (("allow-all", allow_all), ("agent", agent)):
        fresh(project, work)
        done = project.run(command, policy, timeout=work.seconds)

        context = f"bare: {bare.stderr}\nbehind {name}: {done.stderr}\n{done.denials}"
        assert done.stdout == bare.stdout, context
        assert done.returncode == bare.returncode, context
        assert listing(project.root) == expected, context
