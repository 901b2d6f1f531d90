"""An open that is answered with something else: what a program sees, and that it gets at nothing more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart
from rampart_seccomp.broker.masking import masked

pytestmark = pytest.mark.core

SECRET = "hunter2-hunter2"
CONTENT = f"# the settings\nKEY={SECRET}\nURL='https://{SECRET}@x'\n"
SHOWN = masked(CONTENT.encode()).decode()
EVERYTHING = ["read", "write", "exec", "connect", "listen"]

Show = Callable[..., Any]


@pytest.fixture(params=["native", "python"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAMPART_SECCOMP_ENGINE", request.param)
    return str(request.param)


@pytest.fixture
def secret(project: Any) -> Path:
    project.write("other", "OTHER\n")
    path: Path = project.write(".env", CONTENT, 0o640)
    return path


def redirecting(redirect: rampart.Redirect, *more: rampart.Rule, paths: str = "./.env") -> rampart.Policy:
    rules = [rampart.allow(EVERYTHING, name="everything")]
    rules.append(rampart.allow("read", paths=[paths], name="env", redirect=redirect))
    return rampart.Policy(rules=[*rules, *more])


MASK = redirecting(rampart.Redirect(mask="values"))

ATTEMPT = """
import errno, fcntl, json, mmap, os, sys
def tried(function):
    try:
        return function()
    except OSError as error:
        return errno.errorcode[error.errno]
def read(path, flags=os.O_RDONLY, **options):
    fd = os.open(path, flags, **options)
    try:
        return os.read(fd, 1000).decode("latin-1")
    finally:
        os.close(fd)
def link(path, name):
    return os.link(path, name, src_dir_fd=os.open(".", os.O_RDONLY))  # so that links are followed
def out():
    return os.open("out", os.O_CREAT | os.O_RDWR)
said = {}
"""


@pytest.fixture
def attempt(project: Any, secret: Path, engine: str) -> Show:
    """Run lines of Python in the tree; gives what they put into ``said``, and the finished command."""

    def run(lines: str, policy: rampart.Policy = MASK, **options: Any) -> tuple[dict[str, Any], Any]:
        code = f"{ATTEMPT}{lines}\nprint(json.dumps(said))"
        done = project.run(["/usr/bin/env", "python3", "-I", "-S", "-c", code], policy, **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done

    return run


@pytest.mark.usefixtures("secret", "engine")
class TestShown:
    @pytest.mark.parametrize(
        ("redirect", "shown"),
        [
            (rampart.Redirect(mask="values"), SHOWN),
            (rampart.Redirect(to="/dev/null"), ""),
            (rampart.Redirect(to="./other"), "OTHER\n"),
            (rampart.Redirect(content=b"made up\n"), "made up\n"),
            (rampart.Redirect(content=b""), ""),
        ],
        ids=str,
    )
    def test_by_a_rule(self, project: Any, redirect: rampart.Redirect, shown: str) -> None:
        """A plain program reads the substitute and ends as it would bare; what happened is on record."""
        done = project.run(["cat", ".env"], redirecting(redirect))
        assert (done.stdout, done.stderr, done.returncode) == (shown, "", 0)
        (seen,) = [each for each in done.events if each.redirect is not None]
        assert (seen.verdict, seen.rule, seen.redirect) == ("allow", "env", redirect)
        (record,) = [each for each in project.records() if "redirect" in each]
        assert (record["verdict"], record["redirect"]) == ("allow", str(redirect))
        assert record["path"] == str(project.root / ".env")
        assert SECRET not in project.audit.read_text()

    def test_in_the_home(self, project: Any) -> None:
        """`~/` in a redirect is the home of the launching user."""
        (project.home / "fake").write_text("FAKE\n")
        done = project.run(["cat", ".env"], redirecting(rampart.Redirect(to="~/fake")))
        assert done.stdout == "FAKE\n"

    @pytest.mark.parametrize("by", ["decide", "on_ask"])
    def test_by_an_answer(self, project: Any, by: str) -> None:
        """A callable, and whoever is asked, can answer with a redirect."""
        answer = {by: lambda event: rampart.Redirect(content=b"answered\n")}
        rule = rampart.ask("read", paths=["./.env"], name="q", decide=answer.get("decide"))
        policy = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything"), rule])
        done = project.run(["cat", ".env"], policy, on_ask=answer.get("on_ask"))
        assert (done.stdout, done.denials) == ("answered\n", [])
        (seen,) = [each for each in done.events if each.redirect is not None]
        assert (seen.asked, seen.rule) == (True, "q")

    @pytest.mark.parametrize(
        ("answer", "shown"),
        [
            (rampart.Allow(), SHOWN),
            (rampart.Redirect(to="/dev/null"), ""),
            (rampart.Redirect(mask="values"), SHOWN),
        ],
        ids=str,
    )
    def test_no_answer_shows_more_than_the_policy(self, project: Any, answer: Any, shown: str) -> None:
        """A yes to a question does not lift a redirect; a redirect that hides more does hold."""
        policy = MASK.with_rules(rampart.ask("read", paths=["./.env"], name="q"))
        done = project.run(["cat", ".env"], policy, on_ask=lambda event: answer)
        assert (done.stdout, done.returncode) == (shown, 0)

    def test_an_answer_for_what_is_no_reading(self, project: Any) -> None:
        """A redirect in answer to anything else is a denial that says so."""
        rule = rampart.ask("modify", paths=["./.env"], name="q")
        policy = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything"), rule])
        done = project.run(
            ["sh", "-c", "echo x >> .env"], policy, on_ask=lambda event: rampart.Redirect(to="/dev/null")
        )
        assert "redirects what is no reading" in done.denials[0].message
        assert (project.root / ".env").read_text() == CONTENT

    def test_not_understood(self, project: Any) -> None:
        """Of a file that cannot be masked nothing is shown, and the record says why without quoting it."""
        project.write(".env", f"{SECRET}\n")
        done = project.run(["cat", ".env"], MASK)
        assert (done.stdout, "Permission denied" in done.stderr) == ("", True)
        (denial,) = done.denials
        assert (denial.rule, denial.operation) == ("env", "read")
        assert "line 1 is not understood" in denial.message
        assert SECRET not in project.audit.read_text() + denial.message

    def test_programs_that_read(self, project: Any) -> None:
        """grep, head, wc, sort, a shell's redirection and Python see the same as cat."""
        script = (
            "grep KEY .env; head -1 .env; wc -l < .env; sort .env; while read l; do echo $l; done < .env;"
            "python3 -c 'print(open(\".env\").read())'; cat < .env | cat; . ./.env; echo $KEY"
        )
        done = project.run(["sh", "-c", script], MASK)
        fake = project.root / ".real"
        fake.write_text(SHOWN)
        expected = project.bare(["sh", "-c", script.replace(".env", ".real")])
        assert (done.stdout, done.stderr, done.returncode) == (expected.stdout, "", 0)


class TestDescriptor:
    def test_is_a_file_for_reading(self, attempt: Show, secret: Path) -> None:
        """A regular file of the same mode, owner and time, opened as asked; its size is what is shown."""
        said, _ = attempt(
            """
fd = os.open(".env", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
st = os.fstat(fd)
said.update(mode=st.st_mode, uid=st.st_uid, mtime=st.st_mtime_ns, size=st.st_size,
            fl=fcntl.fcntl(fd, fcntl.F_GETFL), fd=fcntl.fcntl(fd, fcntl.F_GETFD),
            seek=os.lseek(fd, 2, 0), read=os.pread(fd, 5, 0).decode(),
            map=mmap.mmap(fd, 0, prot=mmap.PROT_READ)[:].decode(), write=tried(lambda: os.write(fd, b"x")),
            link=os.readlink(f"/proc/self/fd/{fd}"))
"""
        )
        st = secret.stat()
        assert (said["mode"], said["uid"], said["mtime"]) == (st.st_mode, st.st_uid, st.st_mtime_ns)
        assert (said["size"], said["map"]) == (len(SHOWN), SHOWN)
        assert said["fl"] & os.O_ACCMODE == os.O_RDONLY
        assert said["fl"] & os.O_NONBLOCK
        assert (said["fd"], said["seek"], said["read"], said["write"]) == (1, 2, SHOWN[:5], "EBADF")
        assert said["link"] == "/memfd:.env (deleted)"

    def test_cannot_be_changed(self, attempt: Show) -> None:
        """Opened anew by its descriptor it shows the same, and takes no writing, cutting, growing."""
        said, _ = attempt(
            """
fd = os.open(".env", os.O_RDONLY)
again = f"/proc/self/fd/{fd}"
said["again"] = read(again)
said["seals"] = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
rw = tried(lambda: os.open(again, os.O_RDWR))
if isinstance(rw, int):
    said["write"] = tried(lambda: os.write(rw, b"x"))
    said["cut"] = tried(lambda: os.ftruncate(rw, 1))
    said["grow"] = tried(lambda: os.ftruncate(rw, 9999))
    said["map"] = tried(lambda: mmap.mmap(rw, 10) and "mapped")
    said["unseal"] = tried(lambda: fcntl.fcntl(rw, fcntl.F_ADD_SEALS, 0))
"""
        )
        assert said["again"] == SHOWN
        seals = fcntl_seals()
        assert said["seals"] & seals == seals
        assert {said[key] for key in ("write", "cut", "grow", "map", "unseal")} == {"EPERM"}

    def test_each_open_has_its_own(self, attempt: Show) -> None:
        """The offset of one open is not another's."""
        said, _ = attempt(
            "one, two = os.open('.env', 0), os.open('.env', 0)\nos.read(one, 5)\n"
            "said['two'] = os.read(two, 5).decode()"
        )
        assert said["two"] == SHOWN[:5]

    def test_errors_stay(self, attempt: Show, project: Any) -> None:
        """What fails bare fails with the same error, before anything is shown."""
        project.write("gone/x", "")
        os.symlink(".env", project.root / "link")
        said, _ = attempt(
            """
said["missing"] = tried(lambda: read(".env.missing"))
said["directory"] = tried(lambda: read(".env", os.O_DIRECTORY))
said["slash"] = tried(lambda: read(".env/"))
said["link"] = tried(lambda: read("link", os.O_NOFOLLOW))
said["exclusive"] = tried(lambda: read(".env", os.O_CREAT | os.O_EXCL))
""",
            redirecting(rampart.Redirect(mask="values"), paths="./**"),
        )
        assert said == {
            "missing": "ENOENT",
            "directory": "ENOTDIR",
            "slash": "ENOTDIR",
            "link": "ELOOP",
            "exclusive": "EEXIST",
        }

    def test_rights_stay(self, attempt: Show, secret: Path) -> None:
        """Who may not open the file is not shown anything in its place, either."""
        if os.getuid() != 0:
            pytest.skip("needs root, to become somebody else")
        secret.chmod(0o600)
        said, done = attempt("os.setuid(65534)\nsaid['read'] = tried(lambda: read('.env'))")
        assert (said["read"], done.denials) == ("EACCES", [])
        secret.chmod(0o644)
        said, _ = attempt("os.setuid(65534)\nsaid['read'] = tried(lambda: read('.env'))")
        assert said["read"] == SHOWN


def fcntl_seals() -> int:
    import fcntl

    return fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


# Ways to the content. Each is tried with the name, and must end in what is shown, or an error.
WAYS = {
    "openat": "read('.env', dir_fd=os.open('.', os.O_RDONLY))",
    "absolute": "read(os.getcwd() + '/.env')",
    "dots": "read('../project/./.env')",
    "symlink": "os.symlink('.env', 'l') or read('l')",
    "chained symlink": "os.symlink('.env', 'l1') or os.symlink('l1', 'l2') or read('l2')",
    "symlinked directory": "os.symlink('.', 'd') or read('d/.env')",
    "proc cwd": "read('/proc/self/cwd/.env')",
    "proc root": "read('/proc/self/root' + os.getcwd() + '/.env')",
    "O_PATH opened anew": "read('/proc/self/fd/%d' % os.open('.env', os.O_PATH))",
    "O_PATH by thread-self": "read('/proc/thread-self/fd/%d' % os.open('.env', os.O_PATH))",
    "write-only opened anew": "read('/proc/self/fd/%d' % os.open('.env', os.O_WRONLY | os.O_APPEND))",
    "write-only by dev fd": "read('/dev/fd/%d' % os.open('.env', os.O_WRONLY | os.O_APPEND))",
    "reading and writing": "read('.env', os.O_RDWR)",
    "reading and appending": "read('.env', os.O_RDWR | os.O_APPEND)",
    "creating": "read('.env', os.O_RDWR | os.O_CREAT)",
    "creating, reading": "read('.env', os.O_RDONLY | os.O_CREAT)",
    "truncating": "read('.env', os.O_RDONLY | os.O_TRUNC)",
    "direct": "read('.env', os.O_RDONLY | os.O_DIRECT)",
    "renamed": "os.rename('.env', 'x') or read('x')",
    "exchanged": "os.replace('.env', 'other') or read('other')",
    "directory renamed": "os.rename('../project', '../p2') or read('../p2/.env')",
    "hard link": "link('.env', 'h') or read('h')",
    "hard link through a symlink": "os.symlink('.env', 's') or link('s', 'h') or read('h')",
    "hard link of an O_PATH": "link('/proc/self/fd/%d' % os.open('.env', os.O_PATH), 'h') or read('h')",
    "copied": "os.system('cp .env copy 2>/dev/null') and 'failed' or read('copy')",
    "cat to a copy": "os.system('cat .env > copy') or read('copy')",
    "sendfile": "os.sendfile(out(), os.open('.env', 0), 0, 999) and read('out')",
    "copy_file_range": "os.copy_file_range(os.open('.env', 0), out(), 999) and read('out')",
    "copy_file_range from write-only": "os.copy_file_range(os.open('.env', os.O_WRONLY),"
    " out(), 999) and read('out')",
    "clone": "fcntl.ioctl(out(), 0x40049409, os.open('.env', os.O_PATH)) or read('out')",
    "mapped": "mmap.mmap(os.open('.env', 0), 0, prot=mmap.PROT_READ)[:].decode()",
    "mapped from write-only": "mmap.mmap(os.open('.env', os.O_WRONLY), 0, prot=mmap.PROT_READ)[:].decode()",
    "attributes": "os.getxattr('.env', 'user.x').decode()",
    "attribute names": "str(os.listxattr('.env'))",
    "attributes of a descriptor": "os.getxattr(os.open('.env', 0), 'user.x').decode()",
    "unlinked while open": "(lambda fd: os.unlink('.env') or read('/proc/self/fd/%d' % fd))"
    "(os.open('.env', os.O_PATH))",
    "linked anew": "(lambda fd: os.unlink('.env') or link('/proc/self/fd/%d' % fd, 'n')"
    " or read('n'))(os.open('.env', os.O_PATH))",
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_to_the_content(way: str, attempt: Show, secret: Path) -> None:
    """Under whatever name and by whatever call, the content is not shown."""
    try:
        os.setxattr(secret, "user.x", SECRET.encode())
    except OSError:
        if "attribute" in way:
            pytest.skip("the file system has no extended attributes")
    said, _ = attempt(f"said['way'] = tried(lambda: {WAYS[way]})")
    assert SECRET not in str(said["way"])
    bare = {"reading and writing", "truncating", "creating"}
    if way in bare:
        assert said["way"] == "EACCES"
        assert secret.read_text() == CONTENT


def test_the_ways_are_real(project: Any, secret: Path, allow_all: rampart.Policy) -> None:
    """Control: without a redirect the ways that are no mistake by themselves show the content."""
    shown = []
    for way, code in WAYS.items():
        for name in ("l", "l1", "l2", "d", "s", "h", "x", "n", "copy", "out"):
            (project.root / name).unlink(missing_ok=True)
        secret.unlink(missing_ok=True)
        secret.write_text(CONTENT)
        project.write("other", "OTHER")
        code = f"{ATTEMPT}said['way'] = tried(lambda: {code})\nprint(json.dumps(said))"
        done = project.run(["/usr/bin/env", "python3", "-I", "-S", "-c", code], allow_all)
        if SECRET in done.stdout:
            shown.append(way)
        if way == "directory renamed":
            os.rename(project.base / "p2", project.root)
    impossible = {
        "truncating",
        "copy_file_range from write-only",
        "mapped from write-only",
        "clone",
        "attributes",
        "attribute names",
        "attributes of a descriptor",
        "linked anew",
        "direct",
    }
    assert set(shown) >= set(WAYS) - impossible


@pytest.mark.usefixtures("secret", "engine")
class TestSubstitute:
    """What is shown instead is itself read under the policy, by its real name, with the target's rights."""

    def test_denied(self, project: Any) -> None:
        """A redirect does not lead around a denial."""
        policy = redirecting(
            rampart.Redirect(to="./other"), rampart.deny("read", paths=["./other"], name="never")
        )
        done = project.run(["cat", ".env"], policy)
        assert (done.stdout, done.denials[0].rule) == ("", "env")
        assert "may not be read itself" in done.denials[0].message

    def test_a_link_in_its_place(self, project: Any) -> None:
        """The tree can put a link where the substitute is; what that leads to is judged."""
        project.write("vault", SECRET)
        policy = redirecting(
            rampart.Redirect(to="./other"), rampart.deny("read", paths=["./vault"], name="never")
        )
        done = project.run(["sh", "-c", "ln -sf vault other; cat .env"], policy)
        assert (done.stdout, done.returncode) == ("", 1)
        assert SECRET not in done.stdout

    def test_another_layer_denies_it(self, project: Any) -> None:
        """A lower layer cannot show what a higher one denies."""
        upper = rampart.Policy(
            rules=[
                rampart.allow(EVERYTHING, name="everything"),
                rampart.deny("read", paths=["./other"], name="never"),
            ]
        )
        done = project.run(
            ["cat", ".env"], rampart.Policy.stack(upper, redirecting(rampart.Redirect(to="./other")))
        )
        assert done.stdout == ""

    def test_itself_redirected(self, project: Any) -> None:
        """A redirect to what is redirected leads nowhere."""
        policy = redirecting(rampart.Redirect(to="./other"), paths="./*")
        done = project.run(["cat", ".env"], policy)
        assert "may not be read itself" in done.denials[0].message

    @pytest.mark.parametrize("name", ["missing", "directory", "fifo", "/dev/zero", "/proc/self/environ"])
    def test_no_plain_file(self, project: Any, name: str) -> None:
        """What is missing, would block, or is no plain file is a denial with its reason."""
        (project.root / "directory").mkdir()
        os.mkfifo(project.root / "fifo")
        to = name if name.startswith("/") else f"./{name}"
        done = project.run(["cat", ".env"], redirecting(rampart.Redirect(to=to)))
        assert (done.stdout, "Permission denied" in done.stderr) == ("", True)
        assert "what is shown instead" in done.denials[0].message

    def test_rights(self, project: Any) -> None:
        """The substitute is opened with the rights of the program."""
        if os.getuid() != 0:
            pytest.skip("needs root, to become somebody else")
        project.base.chmod(0o755)
        code = "import os; os.setuid(65534); print(open('.env').read())"
        (project.root / ".env").chmod(0o644)
        argv = ["/usr/bin/env", "python3", "-c", code]
        policy = redirecting(rampart.Redirect(to="./other"))
        assert project.run(argv, policy).stdout == "OTHER\n\n"
        (project.root / "other").chmod(0o600)
        done = project.run(argv, policy)
        assert (done.stdout, "PermissionError" in done.stderr) == ("", True)


@pytest.mark.usefixtures("secret", "engine")
class TestOthers:
    @pytest.mark.parametrize("what", ["directory", "fifo"])
    def test_only_regular_files(self, project: Any, what: str) -> None:
        """A directory or a FIFO that the rule covers is denied, not shown as it is."""
        project.write("vault/key", CONTENT)
        os.mkfifo(project.root / "vault" / "fifo")
        name = "vault" if what == "directory" else "vault/fifo"
        policy = redirecting(rampart.Redirect(mask="values"), paths="./vault/**")
        done = project.run(
            ["python3", "-c", f"import os; os.open({name!r}, os.O_RDONLY | os.O_NONBLOCK)"], policy
        )
        assert done.returncode == 1
        assert done.denials[0].message == "only regular files are redirected"
        assert project.run(["cat", "vault/key"], policy).stdout == SHOWN

    def test_writing_is_another_operation(self, project: Any) -> None:
        """Appending is judged as before, and nothing is redirected."""
        done = project.run(["sh", "-c", "echo MORE=x >> .env; cat .env"], MASK)
        assert done.stdout == SHOWN + "MORE=***\n"
        assert (project.root / ".env").read_text() == CONTENT + "MORE=x\n"

    def test_update(self, project: Any) -> None:
        """A policy that redirects takes effect at the next open, and may be needed in advance."""
        open_ = rampart.Policy(rules=[rampart.allow(EVERYTHING, name="everything")])
        script = "cat .env; read line; cat .env"
        with rampart.Broker(open_, may_restrict={"read"}) as broker:
            process = rampart.Popen(
                ["sh", "-c", script], broker=broker, cwd=project.root, stdin=-1, stdout=-1, text=True
            )
            assert [process.stdout.readline() for _ in CONTENT.splitlines()] == CONTENT.splitlines(True)
            broker.update(redirecting(rampart.Redirect(mask="values"), paths=f"{project.root}/.env"))
            assert process.communicate("\n")[0] == SHOWN
        with rampart.Broker(open_) as broker:
            process = rampart.Popen(["sleep", "9"], broker=broker, cwd=project.root)
            with pytest.raises(rampart.NotEnforceable, match="env"):
                broker.update(redirecting(rampart.Redirect(mask="values"), paths=f"{project.root}/.env"))
            process.kill()
            process.wait()
