"""`make audit`: what it makes of pip-audit's answers."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

HOLE = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"], "description": "bad"}


@pytest.fixture
def audit(tmp_path):
    """Run .ci/audit over a pip-audit that answers with `packages` (None: with an error, as without a network)."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/audit", tmp_path / ".ci")

    def audit(packages, exceptions=""):
        (tmp_path / ".ci/audit-exceptions.toml").write_text(exceptions)
        (tmp_path / "answer.json").write_text(json.dumps({"dependencies": packages}))
        write = "" if packages is None else f"import shutil; shutil.copy({str(tmp_path / 'answer.json')!r}, sys.argv[-1])"
        fake = tmp_path / "pip-audit"
        fake.write_text(f"#!{sys.executable}\nimport sys\n{write}\nsys.exit('no such host')\n")
        fake.chmod(0o755)
        environment = os.environ | {"PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]])}
        done = subprocess.run([sys.executable, ".ci/audit"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return audit


def package(*holes):
    return {"name": "example", "version": "1.0", "vulns": list(holes)}


def test_a_hole_fails_and_says_which_version_is_without_it(audit):
    status, said = audit([package(HOLE)])
    assert status == 1 and "example 1.0 has PYSEC-1 (fixed in 2.0)" in said


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
def test_an_explained_hole_passes_under_any_of_its_names(audit, name):
    status, said = audit([package(HOLE)], f'[[exception]]\nid = "{name}"\npackage = "example"\nreason = "never called"')
    assert status == 0 and "1 holes explained, 0 not" in said


def test_an_exception_for_another_hole_does_not_help_and_is_named(audit):
    status, said = audit([package(HOLE)], '[[exception]]\nid = "CVE-2"\npackage = "example"\nreason = "never called"')
    assert status == 1 and "CVE-2 is not found any more" in said


def test_without_a_network_the_audit_passes_and_says_that_it_was_not_done(audit):
    status, said = audit(None)
    assert status == 0 and "NOT DONE" in said and "no such host" in said


def test_a_service_that_knows_no_package_is_not_taken_for_a_clean_bill(audit):
    status, said = audit([{"name": "example", "skip_reason": "not found"}])
    assert status == 0 and "NOT DONE" in said and "checked" not in said


def test_a_package_that_the_service_does_not_know_is_named(audit):
    status, said = audit([package(), {"name": "ours", "skip_reason": "not found"}])
    assert status == 0 and "not checked: ours" in said
