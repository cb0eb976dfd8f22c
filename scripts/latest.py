"""The book with the newest versions of everything: what changed, and what that broke.

    make test-latest                     all steps of make test
    make test-latest STEPS="lint book"   these only

The versions go into an environment of their own. Every step runs, whatever failed before it. The
summary is printed, kept in _build/latest/summary.md, and shown on the page of the weekly job.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]
FOLDER = REPO / "_build" / "latest"
REPORTS = REPO / "_build" / "html" / "reports"
STEPS = ["lint", "unit", "nbval", "book", "browser"]
# lines of a log that say what is wrong, first those of pytest's summary
COMPLAINTS = [
    re.compile(r"^(?:FAILED|ERROR) .*"),
    re.compile(r"^.*(?:WARNING: |ERROR: |Error: |error: |Warning: ).*"),
]
SHOWN = 15  # lines a step


def pins(text: str) -> dict[str, str]:
    """Package and version of every pinned line of a requirements file."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s;]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def moved(pinned: dict[str, str], installed: dict[str, str]) -> list[str]:
    """One line a package whose version is not the pinned one."""
    both = sorted(pinned.keys() & installed.keys())
    return [f"{n} {pinned[n]} → {installed[n]}" for n in both if installed[n] != pinned[n]]


def complaints(log: str) -> list[str]:
    """What a log says is wrong: the tests that failed, else lines that speak of an error."""
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in log.splitlines()]
    for pattern in COMPLAINTS:
        found = list(dict.fromkeys(line.strip() for line in lines if pattern.match(line)))
        if found:
            return found
    return [line.strip() for line in lines if line.strip()][-5:]


def installed() -> dict[str, str]:
    """Package and version of everything in this environment."""
    return {
        re.sub(r"[-_.]+", "-", found.name).lower(): found.version
        for found in importlib.metadata.distributions()
    }


def run(step: str) -> list[str]:
    """Run one step of make with this environment; what it complains of, nothing if it passed."""
    environment = str(Path(sys.prefix).relative_to(REPO))
    command = ["make", step, f"VENV={environment}", f"READY={environment}/pyvenv.cfg"]
    command.append("QUICKLY=")  # flags of the pinned compiler, which a newer one may not know
    shutil.rmtree(REPORTS, ignore_errors=True)  # an earlier build's
    log = FOLDER / f"{step}.log"
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=REPO, stdout=file, stderr=subprocess.STDOUT).returncode
    if not code:
        return []
    found = complaints(log.read_text(encoding="utf-8", errors="replace")) or [f"exit {code}"]
    return found + (notebooks_that_failed() if step == "book" else [])


def notebooks_that_failed() -> list[str]:
    """The notebooks that the build could not run, each with its exception."""
    reports = sorted(REPORTS.glob("*.err.log"))
    return [f"{r.name.split('.')[0]}: {complaints(r.read_text('utf-8'))[-1]}" for r in reports]


def summary(changes: list[str], broken: dict[str, list[str]], steps: list[str]) -> str:
    """What is new and what it broke, in Markdown."""
    version = ".".join(map(str, sys.version_info[:3]))
    lines = [f"# The newest versions, on Python {version}", ""]
    for step in steps:
        lines.append(f"- **{step}**: {'broke' if broken.get(step) else 'passed'}")
        lines += [f"  - `{line[:300]}`" for line in broken.get(step, [])[:SHOWN]]
        if len(broken.get(step, [])) > SHOWN:
            lines.append(f"  - and {len(broken[step]) - SHOWN} more")
    news = ", ".join(changes) or "nothing: the pins are the newest"
    return "\n".join([*lines, "", f"Newer than the pins: {news}", ""])


def main() -> int:
    steps = sys.argv[1:] or STEPS
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        sys.exit(f"STEPS needs names out of {', '.join(STEPS)}; got {', '.join(unknown)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    changes = moved(pins((REPO / "requirements.txt").read_text(encoding="utf-8")), installed())
    broken = {}
    for step in steps:
        print(f"{step} …", flush=True)
        broken[step] = run(step)
        print(f"{step}: {'broke' if broken[step] else 'passed'}", flush=True)
    text = summary(changes, broken, steps)
    (FOLDER / "summary.md").write_text(text, encoding="utf-8")
    print(f"\n{text}")
    if "GITHUB_STEP_SUMMARY" in os.environ:
        with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as file:
            file.write(text)
    return 1 if any(broken.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
