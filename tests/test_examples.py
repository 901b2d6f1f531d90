"""The examples do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import rampart_seccomp

PACKAGE_PATH = str(Path(rampart_seccomp.__file__).parent.parent)
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_minimal_broker(tmp_path: Path) -> None:
    """The broker in forty lines denies what lies in ~/.ssh by any name, and leaves the rest alone."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "key").write_text("secret")
    (home / "link").symlink_to(".ssh/key")
    (home / "open").write_text("public")
    script = "cat ~/.ssh/key; cat ~/link; cd ~/.ssh && cat key; mv ~/.ssh ~/x; cat ~/open; exit 7"

    done = subprocess.run(
        [sys.executable, EXAMPLES / "minimal_broker.py", "sh", "-c", script],
        env={**os.environ, "HOME": str(home), "PYTHONPATH": PACKAGE_PATH},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == "public"
    assert done.stderr.count("denied: ") == 4
    assert done.returncode == 7
    assert (home / ".ssh" / "key").exists()


def test_minimal_broker_is_minimal() -> None:
    """It stays a broker in about forty lines."""
    assert len((EXAMPLES / "minimal_broker.py").read_text().splitlines()) <= 45
