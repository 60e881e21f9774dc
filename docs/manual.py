"""Writes the manual pages: ``python docs/manual.py DIRECTORY`` writes fastindex.1 and others.

Each command has a page. What it says comes from the command's page in ``docs/commands/`` and from
its parser, so a new command and a new option appear by themselves. The build of a wheel runs this.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.deflist import deflist_plugin

COMMAND_PAGES = Path(__file__).parent / "commands"
sys.path.insert(0, str(COMMAND_PAGES.parents[1]))  # the checkout, of which the wheel is made

from fastindex import __version__  # noqa: E402
from fastindex.cli.main import find_command  # noqa: E402
from fastindex.cli.words import COMMANDS  # noqa: E402

_OPTIONS = "OPTIONS"
_MAIN = "build"
"""The command without a name: its page is that of the program, and lists the others."""


def main(directory: str) -> None:
    """Write all pages into ``directory``, which need not exist."""
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in make_pages().items():
        (target / name).write_text(text, encoding="ascii")


def make_pages() -> dict[str, str]:
    """Return the text of each page, by the name of its file."""
    pages = {f"fastindex-{name}.1": _make_page(name) for name in COMMANDS}
    pages["fastindex.1"] = pages[f"fastindex-{_MAIN}.1"]
    return pages | {f"fastindex-{_MAIN}.1": ".so man1/fastindex.1\n"}


def _make_page(command: str) -> str:
    make_parser, _ = find_command(command)
    parser = make_parser()
    description = _join(parser.description or "")
    page = COMMAND_PAGES / f"{command}.md"
    sections = _read_sections(page) if page.exists() else {"DESCRIPTION": _paragraph(description)}
    sections[_OPTIONS] = [line for action in parser._actions for line in _option(parser, action)]
    if command == _MAIN:
        sections["COMMANDS"] = [line for name in COMMANDS for line in _reference(name)]
    for title, lines in _epilog(parser.epilog or ""):
        sections.setdefault(title, lines)
    others = [_title(name) for name in COMMANDS if _title(name) != _title(command)]
    sections["SEE ALSO"] = [", ".join(f"{_bold(other)}(1)" for other in others)]
    lines = [
        f'.TH "{_title(command).upper()}" "1" "" "fastindex {__version__}" "User Commands"',
        ".SH NAME",
        f"{_text(_title(command))} \\- {_text(_summarize(description))}",
        ".SH SYNOPSIS",
        f"{_bold(parser.prog)} [{_italic('OPTION')}]... {_arguments(parser)}".rstrip(),
    ]
    for title, body in sections.items():
        lines += [f".SH {_text(title)}", *body]
    return "\n".join([*_drop_needless_breaks(lines), ""])


def _drop_needless_breaks(lines: list[str]) -> Iterator[str]:
    """Yield the lines without a new paragraph where one begins anyway."""
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ".SH"], strict=False):
        is_needless = before[:3] in (".SH", ".SS") or after[:3] in (".SH", ".SS", ".TP", ".PP")
        if line != ".PP" or not is_needless:
            yield line


def _title(command: str) -> str:
    return "fastindex" if command == _MAIN else f"fastindex-{command}"


def _summarize(description: str) -> str:
    """Return the first sentence, as the line by which ``apropos`` finds a page."""
    sentence = description.partition(". ")[0].removesuffix(".")
    return sentence[:1].lower() + sentence[1:]


def _reference(command: str) -> Iterator[str]:
    """Yield what the page of the program says about a command."""
    make_parser, _ = find_command(command)
    yield ".TP"
    yield f"{_bold(_title(command))}(1)"
    yield _line(_summarize(_join(make_parser().description or "")))


# From the parsers


def _arguments(parser: argparse.ArgumentParser) -> str:
    named = [action for action in parser._actions if not action.option_strings]
    forms = {None: "{}", "?": "[{}]", "+": "{}...", "*": "[{}]..."}
    return " ".join(forms[_count(action)].format(_italic(_value(action))) for action in named)


def _count(action: argparse.Action) -> str | None:
    return str(action.nargs) if action.nargs is not None else None


def _value(action: argparse.Action) -> str:
    if action.metavar is None and action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    """Yield what is said about an option or an argument."""
    if action.help == argparse.SUPPRESS:
        return
    takes_value = action.nargs != 0
    value = f" {_italic(_value(action))}" if takes_value else ""
    names = ", ".join(map(_bold, action.option_strings))
    yield ".TP"
    yield f"{names}{value}" if names else _italic(_value(action))
    yield _line(_join(parser._get_formatter()._expand_help(action)))


def _epilog(epilog: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the lines of each part of the end of a help text."""
    for block in filter(None, (part.strip("\n") for part in epilog.split("\n\n"))):
        title, _, rest = block.partition("\n")
        if title.endswith(":") and rest.startswith("  "):
            yield title[:-1].upper(), _example(rest.replace("\n  ", "\n").removeprefix("  "))
        else:
            yield "NOTES", _paragraph(_join(block))


# From the pages


def _read_sections(page: Path) -> dict[str, list[str]]:
    """Return the lines of each section of a page, by its title; OPTIONS is empty."""
    markdown = MarkdownIt("commonmark").enable("table").use(deflist_plugin)
    sections: dict[str, list[str]] = {}
    body = sections.setdefault("DESCRIPTION", [])
    for node in SyntaxTreeNode(markdown.parse(page.read_text(encoding="utf-8"))).children:
        if node.type != "heading":
            body += _render(node)
        elif node.tag == "h2":
            body = sections.setdefault(_plain(node).upper(), [])
        elif node.tag != "h1":  # that is the name of the command
            body += [f".SS {_inline(node)}"]
    return sections


def _render(node: SyntaxTreeNode) -> list[str]:
    """Return the lines of a block; raises KeyError for one that no page had so far."""
    return _BLOCKS[node.type](node)


def _fence(node: SyntaxTreeNode) -> list[str]:
    return [] if node.info.startswith("{") else _example(node.content)


def _list(node: SyntaxTreeNode) -> list[str]:
    lines = []
    for number, item in enumerate(node.children, start=1):
        mark = r"\(bu 2" if node.type == "bullet_list" else f"{number}. 4"
        first, *rest = item.children
        lines += [f".IP {mark}", _inline(first)]
        lines += [line for block in rest for line in (".IP", *_render(block)[1:])]
    return [*lines, ".PP"]


def _definitions(node: SyntaxTreeNode) -> list[str]:
    lines = []
    for part in node.children:
        if part.type == "dt":
            lines += [".TP", _inline(part)]
        else:
            lines += [_inline(block) for block in part.children]
    return [*lines, ".PP"]


def _table(node: SyntaxTreeNode) -> list[str]:
    """Return a list: a row is its first cell, and below it the others."""
    _, body = node.children
    lines = []
    for row in body.children:
        first, *others = map(_inline, row.children)
        lines += [".TP", first or r"\ ", "; ".join(others)]
    return [*lines, ".PP"]


_BLOCKS: dict[str, Callable[[SyntaxTreeNode], list[str]]] = {
    "paragraph": lambda node: [".PP", _inline(node)],
    "fence": _fence,
    "bullet_list": _list,
    "ordered_list": _list,
    "dl": _definitions,
    "table": _table,
}


def _inline(node: SyntaxTreeNode) -> str:
    """Return what stands in a block, in one line or more."""
    return _begin("".join(_span(child) for child in node.children))


def _span(node: SyntaxTreeNode) -> str:
    inside = "".join(_span(child) for child in node.children)
    match node.type:
        case "text":
            return _text(node.content)
        case "code_inline":
            return _bold(node.content)
        case "softbreak":
            return "\n"
        case "em":
            return rf"\fI{inside}\fR"
        case "link" if "://" in str(node.attrs["href"]):
            return rf"{inside} <{_text(str(node.attrs['href']))}>"
        case "inline" | "link" | "strong":
            return inside
    raise ValueError(f"manual pages have no {node.type}: {node.content!r}")


def _plain(node: SyntaxTreeNode) -> str:
    return "".join(child.content for child in node.walk() if not child.children)


# To roff


def _paragraph(text: str) -> list[str]:
    return [".PP", _line(text)]


def _example(code: str) -> list[str]:
    return [".PP", ".EX", *(_line(line) for line in code.rstrip().splitlines()), ".EE"]


def _line(text: str) -> str:
    return _begin(_text(text))


def _begin(text: str) -> str:
    """Return lines of which none is taken for a request."""
    return "\n".join(rf"\&{line}" if line[:1] in (".", "'") else line for line in text.split("\n"))


def _join(text: str) -> str:
    return " ".join(text.split())


def _bold(text: str) -> str:
    return rf"\fB{_text(text)}\fR"


def _italic(text: str) -> str:
    return rf"\fI{_text(text)}\fR"


_ESCAPES = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}


def _text(text: str) -> str:
    """Return ``text`` as roff prints it: every sign as it is, so that it can be copied."""
    return "".join(
        _ESCAPES.get(sign) or (sign if sign.isascii() else rf"\[u{ord(sign):04X}]") for sign in text
    )


if __name__ == "__main__":
    main(sys.argv[1])
