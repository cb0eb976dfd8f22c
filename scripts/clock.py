"""Keep how long each step of the last `make test` took, for the page on how the book is tested.

    make clock CACHES="empty"

The last run goes to the end of benchmarks/clock.json, in place of an earlier one at the same commit
from the same caches.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

__all__ = ["main", "read"]

REPO = Path(__file__).parents[1]
LAST = REPO / "_build" / "clock.tsv"  # step and seconds, a line each: the Makefile writes it
KEPT = REPO / "benchmarks" / "clock.json"


def read(text: str) -> dict[str, int]:
    """The seconds of each step."""
    return {step: int(seconds) for step, seconds in map(str.split, text.splitlines())}


def machine() -> str:
    """Its processor and how many of them, in a few words."""
    name = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        found = [line.partition(":")[2] for line in lines if line.startswith("model name")]
        name = found[0].replace("(R)", "").strip() if found else name
    return f"{name}, {os.cpu_count()} cores"


def main() -> None:
    if not LAST.exists():
        sys.exit("No run of `make test` has left its times in _build/clock.tsv.")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    run = {
        "commit": commit,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "caches": sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else "as they were",
        "steps": read(LAST.read_text(encoding="utf-8")),
    }
    runs = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else []
    same = ("commit", "caches")
    runs = [other for other in runs if any(other[name] != run[name] for name in same)]
    KEPT.write_text(json.dumps([*runs, run], indent=1) + "\n", encoding="utf-8")
    print(f"{sum(run['steps'].values())} seconds, kept in {KEPT.relative_to(REPO)}")


if __name__ == "__main__":
    main()
