"""Measure the built book as its readers meet it, and print the tables.

    make audit                          all pages, then all chapters in JupyterLab
    make audit ONLY=pages|lab           one of the two
    make audit PAGES="kernels lazy"     these only

Pages: Lighthouse on a phone and on a desk, the site served with compression, and what axe finds in
the light and the dark theme, of any severity. JupyterLab: each chapter is opened and run there, and
each explorer is asked for values that it has not drawn. Ends with 1 if a bar is missed.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from audit import axe, lab, lighthouse
from scripts.browse import OFFLINE, NoChromium, chromium, launched, visiting
from scripts.pdf import SITE, chapters

ANSWER = 0.5  # seconds for a value that was never asked before, once warm


def table(head: list[str], rows: Iterator[list[str]]) -> None:
    """Print the rows as they come, under their head."""
    print(f"\n{head[0]:16}" + "".join(f"{name:>13}" for name in head[1:]))
    for row in rows:
        print(f"{row[0]:16}" + "".join(f"{entry:>13}" for entry in row[1:]), flush=True)


def axe_finds(browser: Browser, address: str) -> list[str]:
    """What axe finds on the page in the light theme and in the dark."""
    with visiting(browser) as visit:
        page = visit(address, clock=True).page
        axe.unfold(page)
        return axe.all_findings(page)


def audit_pages(names: list[str], browser: Browser, path: str) -> list[str]:
    """Print a row a page; the bars that are missed."""
    missed: list[str] = []
    lighthouse.install()

    def rows() -> Iterator[list[str]]:
        with lighthouse.served(SITE) as site:
            for name in names:
                address = f"{site}/{name}.html"
                phone, desk = (
                    lighthouse.measure(address, form, path, OFFLINE)
                    for form in ("mobile", "desktop")
                )
                found = axe_finds(browser, address)
                for form, report in (("mobile", phone), ("desktop", desk)):
                    for score, value in lighthouse.misses(report, form).items():
                        missed.append(f"{name}, {form}: {score} {value}; {'; '.join(report.lost)}")
                missed.extend(f"{name}, {finding}" for finding in found)
                speeds = [f"{report.scores['performance']}" for report in (phone, desk)]
                others = [
                    str(min(report.scores[category] for report in (phone, desk)))
                    for category in lighthouse.CATEGORIES[1:]
                ]
                costs = [f"{phone.paint:.1f}", f"{phone.blocked:.0f}", f"{phone.shift:.3f}"]
                yield [name, *speeds, *others, *costs, f"{phone.weight:.0f}", str(len(found))]

    head = ["page", "phone", "desk", "access", "practices", "SEO"]
    table([*head, "paint, s", "blocked, ms", "shift", "KiB", "axe"], rows())
    return missed


def audit_lab(names: list[str], browser: Browser) -> list[str]:
    """Print a row a chapter; the bars that are missed."""
    missed: list[str] = []

    def rows() -> Iterator[list[str]]:
        with (
            tempfile.TemporaryDirectory() as folder,
            lab.serving(Path(folder), lab.REPO / "book") as address,
            visiting(browser) as visit,
        ):
            for name in names:
                seen = lab.measure(visit, address, name)
                if seen.worst > ANSWER:
                    missed.append(f"{name}: {seen.where} answers after {seen.worst:.2f} s")
                numbers = [f"{seen.run_all:.0f}", str(seen.explorers), str(seen.fields)]
                yield [name, *numbers, f"{seen.worst:.2f}", f"  {seen.where}"]

    table(["chapter", "run all, s", "explorers", "any value", "slowest, s", "which"], rows())
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["pages", "lab"])
    parser.add_argument("pages", nargs="*", help="names of pages; all if none is given")
    asked = parser.parse_args()
    if not (SITE / "index.html").exists():
        sys.exit(f"There is no built book in {SITE}: run `make book` first.")
    book = [chapter.name for chapter in chapters()]
    pages = asked.pages or [*book, "search"]
    notebooks = [n for n in pages if (SITE / "_sources" / f"{n}.ipynb").exists()]
    missed = []
    with sync_playwright() as playwright:
        try:
            browser, path = launched(playwright), chromium(playwright)
        except NoChromium as error:
            sys.exit(str(error))
        if asked.only != "lab":
            missed += audit_pages(pages, browser, path)
        if asked.only != "pages":
            missed += audit_lab(notebooks, browser)
        browser.close()
    print("\nEvery bar is reached." if not missed else "\nMissed:")
    for line in missed:
        print(f"  {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
