"""What the repository says about itself is true: documents, examples, docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rampart_seccomp as rampart

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "rampart_seccomp"
DOCUMENTS = [path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if path.is_file()]
FACES = ("rampart_seccomp", "rampart_seccomp.lowlevel")
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(rampart.__path__, "rampart_seccomp.")
    if not info.name.endswith(("_shim", "__main__")) and ".demo_project" not in info.name
)


def blocks(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


SNIPPETS = [
    pytest.param(document, block, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(blocks(document, "python"))
]


def public_names(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield the classes and functions that a module exports; of the package's faces their members, too."""
    for name in getattr(module, "__all__", ()):
        exported = getattr(module, name)
        if inspect.isclass(exported) or inspect.isroutine(exported):
            yield name, exported
        if inspect.isclass(exported) and module.__name__ in FACES:
            for member, value in vars(exported).items():
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    yield f"{name}.{member}", getattr(exported, member)


def in_readme(language: str) -> str:
    """Return the only block of one language in the README."""
    (block,) = blocks(ROOT / "README.md", language)
    return block


def test_every_public_name_of_the_package_exists() -> None:
    """`from rampart_seccomp import *` works, and the faces of the documents are among the names."""
    faces = {"Policy", "run", "Popen", "create_subprocess_exec", "Broker", "allow", "deny", "ask"}

    assert faces <= set(rampart.__all__)
    assert [name for name in rampart.__all__ if not hasattr(rampart, name)] == []


@pytest.mark.parametrize("name", ["rampart_seccomp", *MODULES])
def test_every_public_name_has_a_docstring(name: str) -> None:
    """Whatever a module exports says what it is."""
    module = importlib.import_module(name)

    assert module.__doc__
    assert [member for member, value in public_names(module) if not inspect.getdoc(value)] == []


def test_the_architecture_names_every_module() -> None:
    """A module that is added without a line in the module map fails here."""
    table = (ROOT / "docs" / "architecture.md").read_text()
    modules = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix in (".py", ".pyi") or (path.is_dir() and any(path.glob("*.py")))
    }

    assert "kernel" in modules
    assert set() == {name for name in modules - {"__init__", "__main__"} if f"`{name}" not in table}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Relative links of the documents name files that are there."""
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())

    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (document.parent / target).exists()] == []


@pytest.mark.parametrize(("document", "code"), SNIPPETS)
def test_snippets_are_python(document: Path, code: str) -> None:
    """Every Python block of the documents compiles, and uses only names that the package has."""
    tree = compile(code, document.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rampart"
    }

    assert set() == {name for name in used if not hasattr(rampart, name)}


def test_the_snippet_of_the_readme_does_what_it_says(project: Any) -> None:
    """It runs as it stands: the two things it denies are denied, by the rules it names."""
    project.write(".env", "TOKEN=made-up\n")
    database = project.write("app.db", "rows\n")
    command = [sys.executable, "-c", in_readme("python")]
    environment = project.environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    done = subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.stderr == ""
    assert database.exists()
    expected = [f"read {project.root}/.env env-files", f"delete {database} databases"]
    assert expected == done.stdout.splitlines()


def test_the_policy_of_the_readme_loads() -> None:
    """The YAML block is a policy whose own tests pass."""
    policy = rampart.Policy.loads(in_readme("yaml"), source="README.md")

    assert [rule.name for rule in policy.rules] == ["credentials", "project", "endpoints", "publishing"]


def test_documented_commands_exist() -> None:
    """Every `rampart-seccomp COMMAND` of the documents answers --help."""
    pattern = re.compile(r"rampart-seccomp ([a-z]+)")
    named = {command for document in DOCUMENTS for command in pattern.findall(document.read_text())}
    code = "from rampart_seccomp.cli import main; raise SystemExit(main())"

    assert "run" in named
    for command in sorted(named):
        done = subprocess.run([sys.executable, "-c", code, command, "--help"], capture_output=True, text=True)
        assert (command, 0) == (command, done.returncode), done.stderr


def test_the_changelog_knows_the_version() -> None:
    """The newest entry is the version of the distribution."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert version is not None
    assert newest is not None
    assert version[1] == newest[1]


def test_the_two_commands_say_how_they_are_used() -> None:
    """`./dev` without a command names each of them and fails."""
    done = subprocess.run([ROOT / "dev"], capture_output=True, text=True)

    assert done.returncode == 2
    for command in ("./dev demo", "./dev test", "./dev lint"):
        assert command in done.stderr
