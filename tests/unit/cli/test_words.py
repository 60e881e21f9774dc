from __future__ import annotations

import argparse

import pytest

from fastindex.cli.main import find_command
from fastindex.cli.words import (
    COMMANDS,
    OPTIONS_WITH_VALUE,
    find_first,
    find_values,
    read_unfinished,
    split,
)

NOT_YET = {"--alias", "--allow-links"}
"""Options that are about to come."""


def options_of(command: str) -> list[argparse.Action]:
    make_parser, _ = find_command(command)
    return [action for action in make_parser()._actions if action.option_strings]


@pytest.mark.parametrize(
    ("line", "command", "words"),
    [
        ("", "", ""),
        ("/srv", "", "/srv"),
        ("list /srv", "list", "/srv"),
        ("build list", "build", "list"),
        ("list list", "list", "list"),
        ("-q list /srv", "list", "-q /srv"),
        ("-q /srv list", "", "-q /srv list"),
        ("--jobs 4 verify /srv", "verify", "--jobs=4 /srv"),
        ("--jobs=4 verify /srv", "verify", "--jobs=4 /srv"),
        ("-j 4 verify", "verify", "-j 4"),
        ("-j4 verify", "verify", "-j4"),
        ("-qj 4 verify", "verify", "-qj 4"),
        ("-qj4 verify", "verify", "-qj4"),
        ("-qn verify", "verify", "-qn"),
        ("-i list /srv", "", "-i list /srv"),
        ("--output list /srv", "", "--output=list /srv"),
        ("--output", "", "--output"),
        ("--output -q list", "list", "--output -q"),
        ("-- list", "", "-- list"),
        ("-q -- list", "", "-q -- list"),
        ("list -- --wait 5", "list", "-- --wait 5"),
        ("- list", "", "- list"),
        ("--wait", "", "--wait=inf"),
        ("--wait /srv", "", "--wait=inf /srv"),
        ("--wait prune /srv", "prune", "--wait=inf /srv"),
        ("--wait 5 prune /srv", "prune", "--wait=5 /srv"),
        ("--wait 5x /srv", "", "--wait=5x /srv"),
        ("--wait -5 /srv", "", "--wait=-5 /srv"),
        ("--wait -q /srv", "", "--wait=inf -q /srv"),
        ("--wait --wait 5 /srv", "", "--wait=inf --wait=5 /srv"),
        ("--wait -- 5", "", "--wait=inf -- 5"),
        ("--settle -5m", "", "--settle=-5m"),
        ("--settle .5 /srv", "", "--settle=.5 /srv"),
        ("--keep 3 min", "", "--keep=3 min"),
    ],
)
def test_the_command_is_the_first_word_that_is_no_option(
    line: str, command: str, words: str
) -> None:
    found = split(line.split())
    assert (found.command, " ".join(found.words)) == (command, words)
    before, _ = find_first(found.words)
    assert found.words[: len(before)] == before  # what has been put in order stays as it is


@pytest.mark.parametrize(
    ("line", "joined"),
    [
        ("--settle 5 minutes /srv", "--settle=5 minutes|/srv"),
        ("--grace 2h 30m /srv", "--grace=2h 30m|/srv"),
        ("--wait 5 Min", "--wait=5 Min"),
        ("--seconds 1 hour 5 sec", "--seconds=1 hour|5|sec"),
        ("--settle 5 m", "--settle=5|m"),  # more likely a directory
        ("--settle 5 2024", "--settle=5|2024"),
    ],
)
def test_what_looks_like_the_rest_of_a_time_belongs_to_it(line: str, joined: str) -> None:
    assert "|".join(split(line.split()).words) == joined


def test_an_empty_word_is_a_time_but_no_command() -> None:
    assert split(["--wait", "", "/srv"]) == ("", ["--wait=", "/srv"])
    assert split(["", "list"]) == ("", ["", "list"])


def test_the_first_word_and_what_stands_before_it() -> None:
    assert find_first(["-q", "--jobs", "4", "a", "-v"]) == (["-q", "--jobs=4"], "a")
    assert find_first(["-q"]) == (["-q"], None)


@pytest.mark.parametrize(
    ("line", "command", "arguments", "option"),
    [
        ("", "", "", ""),
        ("-q", "", "", ""),
        ("list", "list", "", ""),
        ("-q list /srv", "list", "/srv", ""),
        ("/srv list", "", "/srv list", ""),
        ("--output", "", "", "--output"),
        ("--output list", "", "", ""),
        ("list --output", "list", "", "--output"),
        ("-qj", "", "", "-qj"),
        ("-j4", "", "", ""),
        ("--wait", "", "", ""),
        ("-- list", "", "list", ""),
        ("list -- --output", "list", "--output", ""),
    ],
)
def test_what_is_typed_so_far_says_what_the_next_word_is(
    line: str, command: str, arguments: str, option: str
) -> None:
    found = read_unfinished(line.split())
    assert (found.command, " ".join(found.arguments), found.option) == (command, arguments, option)
    assert found.are_options_over is ("--" in line.split())


def test_the_last_value_of_an_option_comes_first() -> None:
    words = ["list", "--output", "a", "--output=b", "--output-x=c", "--", "--output=d"]
    assert find_values(words, "--output") == ["b", "a"]


def test_the_options_with_a_value_are_those_of_the_parsers() -> None:
    """A new option belongs into one list or the other, and means the same in every command."""
    with_value: set[str] = set()
    without: set[str] = set()
    for action in (action for command in COMMANDS for action in options_of(command)):
        names = set(action.option_strings)
        if names == {"--wait"}:
            continue
        if action.nargs == 0:
            without |= names
        else:
            with_value |= names
    assert with_value <= OPTIONS_WITH_VALUE
    assert OPTIONS_WITH_VALUE - with_value <= NOT_YET
    assert not OPTIONS_WITH_VALUE & without
