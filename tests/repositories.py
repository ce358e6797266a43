"""Git in test repositories."""

import subprocess
from pathlib import Path

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def git(root: Path, *arguments: str) -> str:
    """Run git in `root`; return its output."""
    return subprocess.run(["git", *IDENTITY, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout
