"""What `make test-latest` says: which versions moved, and what the logs complain of."""

import pytest

from scripts import latest

PINS = """\
jax==0.10.2               # via ntk-lib
colorama==0.4.6 ; sys_platform == 'win32'  # via pytest
Jupyter_Core==5.9.1
uvicorn[standard]==0.30
-e .
"""


def test_pins_are_read_with_names_as_installers_compare_them():
    assert latest.pins(PINS) == {
        "jax": "0.10.2",
        "colorama": "0.4.6",
        "jupyter-core": "5.9.1",
        "uvicorn": "0.30",
    }


def test_only_packages_that_moved_are_named():
    installed = {"jax": "0.12", "jupyter-core": "5.9.1", "new-one": "1.0"}
    assert latest.moved(latest.pins(PINS), installed) == ["jax 0.10.2 → 0.12"]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "x.py:3: DeprecationWarning: old\nFAILED a.py::b - c\nFAILED a.py::b - c\nERROR d.py\n",
            ["FAILED a.py::b - c", "ERROR d.py"],
        ),
        ("fine\n\x1b[91mWARNING: label x\x1b[39;49;00m\n", ["WARNING: label x"]),
        ("one\n\ntwo\nmake: *** [book] 2\n", ["one", "two", "make: *** [book] 2"]),
        ("", []),
    ],
)
def test_complaints_are_the_failed_tests_else_the_errors_else_the_end(log, said):
    assert latest.complaints(log) == said


def test_the_summary_names_what_broke_what_passed_and_what_is_new():
    broken = {"lint": [], "unit": [f"FAILED {i}" for i in range(20)]}
    text = latest.summary(["jax 1 → 2"], broken, ["lint", "unit"])
    assert "- **lint**: passed" in text
    assert "- **unit**: broke\n  - `FAILED 0`" in text
    assert "`FAILED 14`\n  - and 5 more" in text
    assert "Newer than the pins: jax 1 → 2" in text


@pytest.mark.parametrize("code", [0, 3])
def test_a_step_that_fails_is_never_said_to_pass(code, monkeypatch, tmp_path):
    fake = tmp_path / "make"
    fake.write_text(f"#!/bin/sh\nexit {code}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(latest, "FOLDER", tmp_path)
    monkeypatch.setattr(latest, "REPO", tmp_path)
    monkeypatch.setattr(latest.sys, "prefix", str(tmp_path / "venv"))
    assert latest.run("lint") == ([] if code == 0 else ["exit 3"])


def test_an_unknown_step_is_refused(monkeypatch):
    monkeypatch.setattr(latest.sys, "argv", ["latest.py", "lint", "all"])
    with pytest.raises(SystemExit, match=r"STEPS needs names out of lint, unit, .* got all"):
        latest.main()
