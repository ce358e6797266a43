"""`make audit`: how it reacts to the output of pip-audit."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

VULNERABILITY = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"], "description": "bad"}


@pytest.fixture
def audit(tmp_path):
    """Run .ci/audit with a pip-audit that reports `packages` (None: an error, as without a network)."""
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
        result = subprocess.run([sys.executable, ".ci/audit"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout + result.stderr

    return audit


def package(*vulnerabilities):
    return {"name": "example", "version": "1.0", "vulns": list(vulnerabilities)}


def test_a_vulnerability_fails_the_audit_and_names_the_fixed_version(audit):
    status, output = audit([package(VULNERABILITY)])
    assert status == 1 and "example 1.0 has PYSEC-1 (fixed in 2.0)" in output


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-1"])
def test_an_excepted_vulnerability_passes_under_any_alias(audit, name):
    status, output = audit([package(VULNERABILITY)], f'[[exception]]\nid = "{name}"\npackage = "example"\nreason = "never called"')
    assert status == 0 and "1 holes explained, 0 not" in output


def test_an_exception_for_another_vulnerability_fails_and_is_reported(audit):
    status, output = audit([package(VULNERABILITY)], '[[exception]]\nid = "CVE-2"\npackage = "example"\nreason = "never called"')
    assert status == 1 and "CVE-2 is not found any more" in output


def test_without_a_network_the_audit_passes_and_reports_not_done(audit):
    status, output = audit(None)
    assert status == 0 and "NOT DONE" in output and "no such host" in output


def test_a_service_that_knows_no_package_counts_as_no_audit(audit):
    status, output = audit([{"name": "example", "skip_reason": "not found"}])
    assert status == 0 and "NOT DONE" in output and "checked" not in output


def test_packages_unknown_to_the_service_are_listed(audit):
    status, output = audit([package(), {"name": "ours", "skip_reason": "not found"}])
    assert status == 0 and "not checked: ours" in output
