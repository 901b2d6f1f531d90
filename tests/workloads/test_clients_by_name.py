"""Clients behind a policy that names one site: what they fetch from it by name, and nothing from others.

The site is on loopback and known to the test's name server alone, so nothing works by chance. The policy has
no rule about addresses.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import sites

SITE = "127.200.0.1"  # stands for an address of the internet: tests/naming.py


@attrs.frozen
class Client:
    """A client.

    Attributes:
        name: Its name.
        script: What bash runs: fetches from ``$NAME:$PORT``, and prints "hello" if that worked.
        tools: Programs without which it is skipped.
        modules: Modules of Python without which it is skipped.
        prepare: Makes what the site serves, given its directory and port.
        serve: Serves something else than HTTP, given address, list of requests and directory; gives the port.
        slow: It compiles a whole library: in the long suite only.
    """

    name: str
    script: str
    tools: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    prepare: Callable[[Path, int], None] | None = None
    serve: Callable[[str, list[str], Path], contextlib.AbstractContextManager[int]] | None = None
    slow: bool = False


def bash(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def repository(site: Path, port: int) -> None:
    """A bare repository that can be read through plain HTTP."""
    work = site.parent / "work"
    git = ["git", "-C", str(work), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    bash("git", "init", "-q", "-b", "main", str(work))
    (work / "file").write_text("hello\n")
    bash(*git, "add", ".")
    bash(*git, "commit", "-qm", "first")
    bash("git", "clone", "-q", "--bare", str(work), str(site / "repo.git"))
    bash("git", "-C", str(site / "repo.git"), "update-server-info")


def index(site: Path, port: int) -> None:
    """A package index (PEP 503) with one wheel."""
    files = {
        "demo_pkg.py": "print('hello')\n",
        "demo_pkg-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo-pkg\nVersion: 1.0\n",
        "demo_pkg-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()},\n"
        for name, text in files.items()
    )
    files["demo_pkg-1.0.dist-info/RECORD"] = f"{listed}demo_pkg-1.0.dist-info/RECORD,,\n"
    directory = site / "simple" / "demo-pkg"
    directory.mkdir(parents=True)
    wheel = "demo_pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(directory / wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    (directory / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel}">{wheel}</a>')


def registry(site: Path, port: int) -> None:
    """A registry of npm with one package."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as packed:
        for name, text in {
            "package.json": json.dumps({"name": "demo", "version": "1.0.0", "main": "index.js"}),
            "index.js": "console.log('hello')\n",
        }.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text.encode()))
    (site / "demo-1.0.0.tgz").write_bytes(archive.getvalue())
    dist = {
        "tarball": f"http://site.example:{port}/demo-1.0.0.tgz",
        "shasum": hashlib.sha1(archive.getvalue()).hexdigest(),
    }
    version = {"name": "demo", "version": "1.0.0", "main": "index.js", "dist": dist}
    about = {"name": "demo", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (site / "demo").write_text(json.dumps(about))


def python(lines: str, program: str = "python3") -> str:
    prelude = "import os\nname, port = os.environ['NAME'], int(os.environ['PORT'])"
    return f"{program} - <<'END'\n{prelude}\n{lines}\nEND"


OURS = '"$PYTHON"'
"""The interpreter of the tests, which has the modules that pyproject.toml names."""


GO = """
mkdir go && cat > go/main.go <<'END'
package main
import ("context"; "fmt"; "io"; "net"; "net/http"; "os")
func main() {
	address, err := net.DefaultResolver.LookupHost(context.Background(), os.Getenv("NAME"))
	if err != nil { fmt.Println(err); os.Exit(1) }
	reply, err := http.Get("http://" + os.Getenv("NAME") + ":" + os.Getenv("PORT") + "/hello")
	if err != nil { fmt.Println(err, address); os.Exit(1) }
	io.Copy(os.Stdout, reply.Body)
}
END
cd go && CGO_ENABLED=0 GOCACHE=$PWD GO111MODULE=off GOFLAGS= go build -o get main.go && ./get
"""
JAVA = """
cat > Get.java <<'END'
import java.net.URI; import java.net.http.*;
class Get { public static void main(String[] a) throws Exception {
  URI uri = URI.create("http://" + System.getenv("NAME") + ":" + System.getenv("PORT") + "/hello");
  System.out.print(HttpClient.newHttpClient().send(
    HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString()).body());
} }
END
java Get.java
"""
MUSL = """
cat > get.c <<'END'
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
  struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
  if (getaddrinfo(getenv("NAME"), getenv("PORT"), &hints, &found)) return 1;
  int fd = socket(found->ai_family, SOCK_STREAM, 0);
  char text[4096];
  if (connect(fd, found->ai_addr, found->ai_addrlen)) return 2;
  dprintf(fd, "GET /hello HTTP/1.0\\r\\n\\r\\n");
  for (ssize_t got; (got = read(fd, text, sizeof text)) > 0;) write(1, text, got);
  return 0;
}
END
set -o pipefail
musl-gcc -static -o get get.c && ./get | tail -1
"""
DNS_OF_NODE = """
node -e '
const { NAME, PORT } = process.env, dns = require("dns").promises;
dns.resolve4(NAME).then(([address]) => fetch(`http://${address}:${PORT}/hello`))
  .then((reply) => reply.text()).then(console.log, (e) => { console.error(e.code); process.exit(1); });
'
"""
PIP = """
python3 -m venv --without-pip venv
"$PIP" --python venv/bin/python install -q --disable-pip-version-check --no-compile \
  --retries 0 --timeout 10 --trusted-host $NAME -i http://$NAME:$PORT/simple demo-pkg
venv/bin/python -m demo_pkg
"""

SSH = """
echo "site $(cat $SITE/site)" >known
ssh -F none -i $SITE/key -p $PORT -o BatchMode=yes -o IdentitiesOnly=yes -o ConnectTimeout=20 \\
  -o HostKeyAlias=site -o UserKnownHostsFile=known -o StrictHostKeyChecking=yes $ACCOUNT@$NAME echo hello
"""

CLIENTS = [
    Client("curl", "curl -sS -m 20 http://$NAME:$PORT/hello", ("curl",)),
    Client("wget", "wget -q -T 20 -t 1 -O- http://$NAME:$PORT/hello", ("wget",)),
    Client("busybox", "busybox wget -q -O- http://$NAME:$PORT/hello", ("busybox",)),
    Client(
        "git",
        "git clone -q http://$NAME:$PORT/repo.git clone && cat clone/file",
        ("git",),
        prepare=repository,
    ),
    Client("pip", PIP, prepare=index),
    Client(
        "npm",
        "npm install --silent --no-audit --no-fund --fetch-retries 0 --registry http://$NAME:$PORT/ demo"
        " && node -e 'require(\"demo\")'",
        ("npm", "node"),
        prepare=registry,
    ),
    Client(
        "node fetch",
        "node -e 'fetch(`http://${process.env.NAME}:${process.env.PORT}/hello`).then((r) => r.text())"
        ".then(console.log, (e) => { console.error(e.cause.code); process.exit(1); })'",
        ("node",),
    ),
    Client("node dns.resolve", DNS_OF_NODE, ("node",)),
    Client(
        "urllib",
        python(
            "from urllib.request import urlopen\nprint(urlopen(f'http://{name}:{port}/hello').read().decode())"
        ),
    ),
    Client(
        "asyncio",
        python(
            "import asyncio\nasync def main():\n"
            "    reader, writer = await asyncio.open_connection(name, port)\n"
            "    writer.write(b'GET /hello HTTP/1.0\\r\\n\\r\\n')\n"
            "    print((await reader.read()).decode().splitlines()[-1])\n"
            "    writer.close()\nasyncio.run(main())"
        ),
    ),
    Client(
        "requests",
        python("import requests\nprint(requests.get(f'http://{name}:{port}/hello').text)", OURS),
        modules=("requests",),
    ),
    Client(
        "httpx",
        python("import httpx\nprint(httpx.get(f'http://{name}:{port}/hello').text)", OURS),
        modules=("httpx",),
    ),
    Client("redis-cli", "redis-cli -h $NAME -p $PORT GET greeting", ("redis-cli",), serve=sites.redis),
    Client("ssh", SSH, ("ssh", "ssh-keygen", str(sites.SSHD)), serve=sites.ssh),
    Client("Go", GO, ("go",), slow=True),
    Client("Java", JAVA, ("java",)),
    Client("musl", MUSL, ("musl-gcc",)),
    Client(
        "dig",
        "curl -sS -m 20 http://$(dig +short +tries=1 $NAME A | head -1):$PORT/hello",
        ("dig", "curl"),
    ),
    Client(
        "dig TCP",
        "curl -sS -m 20 http://$(dig +tcp +short +tries=1 @192.0.2.1 $NAME A | head -1):$PORT/hello",
        ("dig", "curl"),
    ),
]


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(client, id=client.name, marks=[pytest.mark.long] if client.slow else [])
        for client in CLIENTS
    ],
)
@pytest.mark.parametrize("names", ["resolved", pytest.param("synthetic", marks=pytest.mark.long)])
def test_clients(client: Client, names: str, by_name: Any, project: Any) -> None:
    """A client works by the name that the policy has, and fails with an error of the network by any other."""
    missing = [tool for tool in client.tools if shutil.which(tool) is None]
    missing += [module for module in client.modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}")
    directory = project.base / "site"
    directory.mkdir()
    (directory / "hello").write_text("hello\n")
    with contextlib.ExitStack() as serving:
        if client.serve is None:
            port = by_name.site(SITE, directory)
        else:
            port = serving.enter_context(client.serve(SITE, by_name.requests, directory))
        if client.prepare is not None:
            client.prepare(directory, port)
        policy = attrs.evolve(by_name.policy(f"site.example:{port}"), names=names)
        reach(client, by_name, project, policy, port, directory)


def reach(client: Client, by_name: Any, project: Any, policy: Any, port: int, directory: Path) -> None:
    """Run the client by a name that the policy has and by another one of the same address, and compare."""
    by_name.server.zone |= {"site.example": [("A", SITE)], "evil.example": [("A", SITE)]}
    results = {}
    for name in ("evil.example", "site.example"):
        work = project.root / name
        work.mkdir()
        env = {
            "NAME": name,
            "PORT": str(port),
            "SITE": str(directory),
            "ACCOUNT": getpass.getuser(),
            "PYTHON": sys.executable,
            "PIP": str(Path(sys.executable).with_name("pip")),
        }
        script = f"cd {name}\n{client.script}"
        results[name] = by_name.run(["bash", "-c", script], policy, env=env, timeout=180)
        if name == "evil.example":
            assert by_name.requests == []

    assert results["site.example"].stdout.strip() == "hello", results["site.example"].stderr
    assert results["site.example"].returncode == 0
    assert "hello" not in results["evil.example"].stdout
    assert results["evil.example"].returncode != 0
    assert by_name.requests
    assert {name for name, _ in by_name.server.asked} == {"site.example"}
    assert any(denial.object.startswith("evil.example (DNS") for denial in results["evil.example"].denials)
