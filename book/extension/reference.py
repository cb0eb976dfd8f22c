"""The reference of the library, made of its docstrings, and links to it from the code of chapters.

The page ``reference.md`` names groups of modules and names under ``library``; each public name
becomes a section with the anchor ``ntk_lib.MODULE.NAME``. On the pages of notebooks a name of the
library in a cell of code leads there: which name it is says the notebook's own imports.
"""

import ast
import html
import importlib
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import doors
import nbformat
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import ntk_lib

BOOK = doors.REPO / "book"
LONGEST = 80  # of a signature on one line; the column has room for it
REFERENCE = "reference"

# ---------------------------------------------------------------- what there is to say of a name


class Parts(NamedTuple):
    """A docstring: its first sentence, the rest of the text, what it raises, where it is from."""

    summary: str
    text: str
    raises: str
    source: str


def parts(docstring: str) -> Parts:
    """Take a docstring apart. Errors and source stand at the end, each from its word on."""
    summary, _, rest = docstring.strip().partition("\n\n")
    if "\n" in summary:  # what raises may follow a summary without an empty line
        first, rest = summary.split("\n", 1)[0], summary.split("\n", 1)[1] + f"\n\n{rest}"
        summary = first
    start = r"(?:(?<=\n)|(?<=\. )|^)"
    found = {"text": [], "Raises": [], "Source:": []}
    kind = "text"
    for piece in re.split(rf"{start}(?=Raises\b|Source:)", rest.strip()):
        for word in ("Raises", "Source:"):
            if piece.startswith(word):
                kind, piece = word, piece.removeprefix(word)
        found[kind].append(piece)
    # a paragraph after them belongs to the text
    for word in ("Raises", "Source:"):
        for i, piece in enumerate(found[word]):
            piece, _, after = piece.partition("\n\n")
            found[word][i] = piece
            found["text"].append(f"\n\n{after}" if after else "")
    text, raises, source = (" ".join(found[key]).strip() for key in found)
    text = re.sub(r"[ ]+\n", "\n", text)
    return Parts(summary.strip(), text, " ".join(raises.split()), " ".join(source.split()))


@cache
def definitions(module: str) -> tuple[str, dict[str, ast.AST]]:
    """The source of a module of the library, and what it defines at its top."""
    source = file_of(module).read_text(encoding="utf-8")
    kinds = ast.FunctionDef | ast.ClassDef
    return source, {node.name: node for node in ast.parse(source).body if isinstance(node, kinds)}


def file_of(module: str) -> Path:
    return doors.REPO.joinpath(*module.split(".")).with_suffix(".py")


class Entry(NamedTuple):
    """A public function or class."""

    module: str
    name: str
    chapter: str | None = None  # which builds it

    @property
    def anchor(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def node(self) -> ast.FunctionDef | ast.ClassDef:
        return definitions(self.module)[1][self.name]

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @property
    def parts(self) -> Parts:
        return parts(ast.get_docstring(self.node) or "")

    @property
    def handed_on(self) -> bool:
        return self.name in handed_on() and handed_on()[self.name] == self.anchor

    @property
    def signature(self) -> str:
        """How it is imported and called, as code."""
        home = "ntk_lib" if self.handed_on else self.module
        source, _ = definitions(self.module)
        made = method_of(self.node, "__init__") if self.is_class else self.node
        if made is None:
            shown = fields(self.node, source)
        else:
            shown = call(made, source, name=self.name, bound=self.is_class)
        return f"from {home} import {self.name}\n\n{shown}"

    @property
    def methods(self) -> Iterator[tuple[str, str]]:
        """The public methods of a class, as they are called, and properties; what each says."""
        source, _ = definitions(self.module)
        for node in self.node.body if self.is_class else ():
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                attribute = any(ast.unparse(d).endswith("property") for d in node.decorator_list)
                shown = node.name if attribute else brief(node, source)
                yield shown, ast.get_docstring(node) or ""


def method_of(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    """The method of that name in the body of a class."""
    found = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == name)
    return next(found, None)


def brief(node: ast.FunctionDef, source: str) -> str:
    """How a method is called, without annotations: ``predict(X, return_std=False)``."""
    bare = ast.parse(ast.get_source_segment(source, node).strip()).body[0]
    bare.returns, bare.args.args = None, bare.args.args[1:]
    for arg in ast.walk(bare.args):
        if isinstance(arg, ast.arg):
            arg.annotation = None
    return f"{node.name}({ast.unparse(bare.args)})"


def call(
    node: ast.FunctionDef, source: str, *, name: str | None = None, bound: bool = False
) -> str:
    """The head of a function, with its annotations as they are written.

    Of ``__init__``, which is ``bound``, without ``self`` and by the ``name`` of its class.
    """
    name = name or node.name

    def written(part: ast.AST) -> str:
        return " ".join(ast.get_source_segment(source, part).split())

    def argument(arg: ast.arg, default: ast.AST | None = None) -> str:
        shown = f"{arg.arg}: {written(arg.annotation)}" if arg.annotation else arg.arg
        if default is None:
            return shown
        return f"{shown}{' = ' if arg.annotation else '='}{written(default)}"

    args, shown = node.args, []
    plain = [*args.posonlyargs, *args.args]
    plain = plain[1:] if bound else plain
    missing = [None] * (len(plain) - len(args.defaults))
    shown += [argument(*pair) for pair in zip(plain, [*missing, *args.defaults], strict=True)]
    if args.vararg:
        shown.append(f"*{argument(args.vararg)}")
    elif args.kwonlyargs:
        shown.append("*")
    shown += [argument(*pair) for pair in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    if args.kwarg:
        shown.append(f"**{argument(args.kwarg)}")
    end = f") -> {written(node.returns)}" if node.returns and not bound else ")"
    line = f"{name}({', '.join(shown)}{end}"
    if len(line) <= LONGEST:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in shown), end])


def fields(node: ast.ClassDef, source: str) -> str:
    """The fields of a class with their comments, as they are written."""
    lines = source.splitlines()
    parts = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    own = [part for part in parts if not part.target.id.startswith("_")]
    shown = [line for part in own for line in lines[part.lineno - 1 : part.end_lineno]]
    return "\n".join([f"class {node.name}:", *(shown or ["    ..."])])


@cache
def handed_on() -> dict[str, str]:
    """The names that ``import ntk_lib`` hands on, and where each is defined."""
    things = {name: getattr(ntk_lib, name) for name in getattr(ntk_lib, "__all__", ())}
    found = {name: anchor_of(thing) for name, thing in things.items()}
    return {name: anchor for name, anchor in found.items() if anchor}


def anchor_of(thing: object) -> str:
    """Where a function or class is defined, as its dotted name; nothing for what is neither."""
    name, module = getattr(thing, "__name__", ""), getattr(thing, "__module__", "") or ""
    return f"{module}.{name}" if name and module.startswith("ntk_lib.") else ""


# ---------------------------------------------------------------- the plan of the page


def served(module: str) -> str | None:
    """The chapter that a module serves: of its own name, or the first that its docstring names."""
    pages = {path.stem for path in BOOK.glob("*.ipynb")}
    name = module.rsplit(".", 1)[1]
    if name in pages:
        return name
    told = re.search(r"Serves (.*?)\.\s", importlib.import_module(module).__doc__ or "", re.DOTALL)
    named = re.findall(r"``(\w+)``", told[1]) if told else []
    return next((word for word in named if word in pages), None)


def public(module: str) -> list[str]:
    """The functions and classes in ``__all__``, in the order in which they are defined."""
    wanted = importlib.import_module(module).__all__
    return [name for name in definitions(module)[1] if name in wanted]


class Group(NamedTuple):
    """What stands under one ``library``: lines ``MODULE`` or ``MODULE NAME …``, with ``(chapter)``.

    The line ``others`` is all modules of chapters that no line names, so that a new chapter is in.
    """

    lines: list[str]
    without: list[str]

    @property
    def named(self) -> list[tuple[str, list[str], str | None]]:
        """(module, names or none, chapter) of each line."""
        found = []
        for line in self.lines:
            bare, _, chapter = line.partition("(")
            module, *names = bare.split()
            found.append((f"ntk_lib.{module}", names, chapter.strip(" )") or None))
        return found


def groups(page: str) -> list[Group]:
    """The groups of the page, from its text."""
    found = []
    for body in re.findall(r"^`{3}\{library\}\n(.*?)^`{3}$", page, re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in body.splitlines() if line.strip()]
        without = [x for line in lines if line.startswith(":without:") for x in line.split()[1:]]
        found.append(Group([line for line in lines if not line.startswith(":")], without))
    return found


def entries(group: Group, everywhere: list[Group]) -> list[Entry]:
    """The entries of a group; a module's line takes what no line names. Handed on comes first."""
    taken = {(m, name) for g in everywhere for m, names, _ in g.named for name in names}
    taken |= {("", name) for g in everywhere for name in g.without}
    listed = {module for g in everywhere for module, *_ in g.named}
    chapters = [
        f"ntk_lib.{path.stem}" for path in sorted((doors.REPO / "ntk_lib").glob("[!_]*.py"))
    ]
    others = [(module, [], None) for module in chapters if module not in listed]
    found = []
    lines = ([line] if line[0] != "ntk_lib.others" else others for line in group.named)
    for module, names, chapter in itertools.chain.from_iterable(lines):
        left = [n for n in public(module) if not {(module, n), ("", n)} & taken]
        chapter = chapter or served(module)
        found += [Entry(module, name, chapter) for name in names or left]
    return sorted(found, key=lambda entry: not entry.handed_on)


def plan() -> list[list[Entry]]:
    """All groups of the page."""
    everywhere = groups((BOOK / f"{REFERENCE}.md").read_text(encoding="utf-8"))
    return [entries(group, everywhere) for group in everywhere]


# ---------------------------------------------------------------- the page


class HandedOn(SphinxDirective):
    """A table of what ``import ntk_lib`` hands on: each name with its first sentence."""

    def run(self) -> list[nodes.Node]:
        known = {entry.anchor: entry for group in plan() for entry in group}
        rows = [["name", "what it gives"], ["---", "---"]]
        for name, anchor in handed_on().items():
            if anchor in known:
                said = known[anchor].parts.summary.replace("|", r"\|")
                rows.append([f"[`{name}`](#{anchor})", said])
        text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return parsed(self, text) if len(rows) > 2 else []


class Library(SphinxDirective):
    """The entries of a group."""

    has_content = True
    option_spec: ClassVar = {"without": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        for file in sorted((doors.REPO / "ntk_lib").rglob("*.py")):
            self.env.note_dependency(str(file))
        definitions.cache_clear()
        here = Group([line.strip() for line in self.content if line.strip()], [])
        everywhere = groups((BOOK / f"{REFERENCE}.md").read_text(encoding="utf-8"))
        return [self.section(entry) for entry in entries(here, everywhere)]

    def section(self, entry: Entry) -> nodes.section:
        made = nodes.section(
            "", nodes.title("", entry.name), ids=[entry.anchor], names=[entry.anchor]
        )
        said = entry.parts
        made["classes"].append("library-entry")
        made += parsed(self, said.summary)
        made.append(nodes.literal_block(entry.signature, entry.signature, language="python"))
        made += parsed(self, said.text)
        for method, text in entry.methods:
            made += parsed(self, f"``.{method}``: {text}")
        terms = {"Raises": said.raises, "Source": said.source, "Built in": self.home(entry)}
        facts = nodes.definition_list(classes=["simple", "library-facts"])
        for term, text in terms.items():
            if text:
                definition = nodes.definition("", *parsed(self, text))
                facts += nodes.definition_list_item("", nodes.term("", term), definition)
        made.append(facts)
        domain = self.env.get_domain("py")
        kind = "class" if entry.is_class else "function"
        domain.note_object(entry.anchor, kind, entry.anchor, location=made)
        return made

    def home(self, entry: Entry) -> str:
        file = f"``{file_of(entry.module).relative_to(doors.REPO).as_posix()}``"
        if entry.chapter is None:
            engine = entry.module.startswith("ntk_lib.engine.")
            return f"{'the engine' if engine else 'no chapter yet'}; the code is {file}"
        return f"[](/{entry.chapter}.ipynb); the code is {file}"


WORD = re.compile(r'("[a-z_]+")')
PRIME = re.compile(r"(?<=[Α-Ωα-ω])'|(?<=\b[a-zA-Z])'(?!\w)")


def parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """Markdown as nodes: docstrings keep to what Markdown and reStructuredText share."""
    box = nodes.Element()
    # neither σ' and x' nor a word that is an argument is a quotation, and is not to become one
    pieces = re.split(r"(``.*?``)", text, flags=re.DOTALL)
    prose = (p if p.startswith("``") else PRIME.sub("′", p) for p in pieces)
    text = "".join(p if p.startswith("``") else WORD.sub(r"``\1``", p) for p in prose)
    lines = StringList(text.splitlines(), source=directive.get_source_info()[0])
    directive.state.nested_parse(lines, directive.content_offset, box)
    return box.children


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """On the page of the reference, make the names in the text of entries links to one another."""
    if app.env.docname != REFERENCE:
        return
    known = [entry for group in plan() for entry in group]
    for literal in list(doctree.findall(nodes.literal)):
        section = literal.parent
        while section is not None and "library-entry" not in section.get("classes", []):
            section = section.parent
        if section is None or isinstance(literal.parent, nodes.title | nodes.reference):
            continue
        here = section["ids"][0]
        word = literal.astext()
        same = here.rsplit(".", 1)[0]
        found = [e.anchor for e in known if e.anchor.endswith(f".{word}")]
        found = [a for a in found if a == f"{same}.{word}"] or found
        if len(found) == 1 and found != [here]:
            link = nodes.reference("", "", internal=True, refuri=f"#{found[0]}")
            literal.replace_self(link)
            link += literal


# ---------------------------------------------------------------- links from the code of chapters


class Names(ast.NodeVisitor):
    """The places in cells where a name of the library stands, as the notebook has imported it."""

    def __init__(self) -> None:
        self.known: dict[str, object] = {}  # what a name is bound to
        self.hidden: list[set[str]] = []  # names that the functions around a place bind themselves
        self.places: list[tuple[int, int, str, str]] = []  # line, column, word, anchor

    def cell(self, code: str) -> list[tuple[int, int, str, str]]:
        self.places = []
        try:
            tree = ast.parse(code)
        except SyntaxError:  # a magic
            return []
        self.lines = code.splitlines()
        self.visit(tree)
        return self.places

    def add(self, line: int, column: int, word: str, thing: object) -> None:
        anchor = anchor_of(thing)
        if anchor:
            column = len(self.lines[line - 1].encode()[:column].decode())
            self.places.append((line, column, word, anchor))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == "ntk_lib":
                module = importlib.import_module(alias.name)
                self.known[alias.asname or "ntk_lib"] = module if alias.asname else ntk_lib

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        inside = (node.module or "").split(".")[0] == "ntk_lib"
        for alias in node.names:
            bound = alias.asname or alias.name
            self.known.pop(bound, None)
            if inside:
                self.known[bound] = attribute(importlib.import_module(node.module), alias.name)
                self.add(alias.lineno, alias.col_offset, alias.name, self.known[bound])

    def thing(self, node: ast.AST) -> object:
        if isinstance(node, ast.Name):
            hidden = any(node.id in names for names in self.hidden)
            return None if hidden else self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.thing(node.value)
            return attribute(owner, node.attr) if isinstance(owner, type(ast)) else None
        return None

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.add(node.lineno, node.col_offset, node.id, self.thing(node))
        elif not self.hidden:
            self.known.pop(node.id, None)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        column = node.end_col_offset - len(node.attr.encode())
        self.add(node.end_lineno, column, node.attr, self.thing(node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for part in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self.visit(part)
        if not self.hidden:
            self.known.pop(node.name, None)
        self.inside(node, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in (*node.args.defaults, *node.args.kw_defaults):
            if part is not None:
                self.visit(part)
        self.inside(node, [node.body])

    def inside(self, node: ast.FunctionDef | ast.Lambda, body: list[ast.AST]) -> None:
        bound = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        for part in (inner for statement in body for inner in ast.walk(statement)):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                bound.add(part.id)
            elif isinstance(part, ast.FunctionDef):
                bound.add(part.name)
        self.hidden.append(bound)
        for part in body:
            self.visit(part)
        self.hidden.pop()


def attribute(owner: object, name: str) -> object:
    """An attribute of a module, a module inside a package too; nothing where there is none."""
    try:
        return getattr(owner, name)
    except AttributeError:
        pass
    try:
        return importlib.import_module(f"{owner.__name__}.{name}")
    except ImportError:
        return None


TAG = re.compile(r"(<[^>]*>)")
MARKED = re.compile(r'<span class="n">(<a class="library-name"[^>]*>[^<]*</a>)</span>')
PRE = re.compile(r"(<pre[^>]*>)(.*?)(</pre>)", re.DOTALL)


def linked(code: str, places: list[tuple[int, int, str, str]], known: dict[str, str]) -> str:
    """Highlighted code in which the words at these places are links; ``known`` has addresses."""
    wanted = {(line, column): (word, anchor) for line, column, word, anchor in places}
    line, column, made = 1, 0, []
    for piece in TAG.split(code):
        if piece.startswith("<") or not piece:
            made.append(piece)
            continue
        text = html.unescape(piece)
        at = wanted.get((line, column))
        if at and text == at[0] and at[1] in known:
            # no stop on the way of the keyboard: the same words lead there from the reference
            link = f'<a class="library-name" tabindex="-1" href="{known[at[1]]}">'
            piece = f"{link}{piece}</a>"
        made.append(piece)
        rows = text.split("\n")
        line += len(rows) - 1
        column = len(rows[-1]) + (column if len(rows) == 1 else 0)
    # a name has the colour of text, and needs no second mark (PLAIN in light_page.py)
    return MARKED.sub(r"\1", "".join(made))


def link_code(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Make the names of the library in a notebook's code links to the reference."""
    source = BOOK / f"{pagename}.ipynb"
    if app.builder.format != "html" or "body" not in context or not source.is_file():
        return
    objects = app.env.get_domain("py").objects
    known = {
        name: f"{app.builder.get_relative_uri(pagename, found.docname)}#{found.node_id}"
        for name, found in objects.items()
    }
    names = Names()
    cells = [c.source for c in nbformat.read(source, as_version=4).cells if c.cell_type == "code"]
    places = {cell.strip("\n"): names.cell(cell.strip("\n")) for cell in cells}

    def with_links(match: re.Match) -> str:
        before, code, after = match.groups()
        found = places.get(html.unescape(TAG.sub("", code)).strip("\n"))
        return f"{before}{linked(code, found, known)}{after}" if found else match[0]

    context["body"] = PRE.sub(with_links, context["body"])


def setup(app: Sphinx) -> dict:
    app.add_directive("library", Library)
    app.add_directive("handed-on", HandedOn)
    app.connect("doctree-read", link_names)
    app.connect("html-page-context", link_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
