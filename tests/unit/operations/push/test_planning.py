"""What a push has to do: pure functions of what is wanted, noted and listed."""

from __future__ import annotations

from fastindex.formats.object_stores import (
    CATALOGUE,
    COMPANION,
    Manifest,
    PushedObject,
    decode_manifest,
    encode_manifest,
)
from fastindex.mirror.state.withdrawals import Withdrawal
from fastindex.operations.push.planning import (
    Plan,
    adopt,
    conclude,
    list_unknown,
    make_plan,
    match,
    measure_loss,
    order_documents,
)
from fastindex.remote.stores import Stored

ONE, TWO = "1" * 64, "2" * 64
INDEX = "streams/v1/index.json"


def plan(
    wanted: dict[str, PushedObject],
    noted: dict[str, PushedObject],
    listing: dict[str, Stored],
    now: float = 1_000,
    grace: float = 100,
) -> Plan:
    manifest = Manifest(objects=noted)
    known = match(manifest, listing)
    order = [path for path, one in wanted.items() if one.kind != "image"]
    return make_plan(wanted, order, manifest, known, listing, now=now, grace_seconds=grace)


def test_what_is_listed_as_it_is_noted_is_left_alone() -> None:
    noted = {"a": PushedObject(1, ONE, etag="x")}
    assert plan({"a": PushedObject(1, ONE)}, noted, {"a": Stored(1, "x")}).is_done


def test_what_differs_is_put_there_again() -> None:
    noted = {"a": PushedObject(1, ONE, etag="x")}
    wanted = {"a": PushedObject(1, ONE), "b": PushedObject(1, TWO)}
    assert plan(wanted, noted, {"a": Stored(1, "y")}).replace == ("a",)
    assert plan(wanted, noted, {"a": Stored(2, "x")}).replace == ("a",)
    assert plan(wanted, noted, {}).upload == ("a", "b")
    assert plan({"a": PushedObject(1, TWO)}, noted, {"a": Stored(1, "x")}).replace == ("a",)


def test_only_what_may_be_the_same_is_asked_for() -> None:
    wanted = {"a": PushedObject(1, ONE), "b": PushedObject(1, TWO)}
    manifest = Manifest(objects={"c": PushedObject(1, ONE), "d": PushedObject(1, ONE, etag="x")})
    listing = {"a": Stored(1, "x"), "b": Stored(2, "x"), "c": Stored(1, "x"), "d": Stored(1, "x")}
    known = match(manifest, listing)
    assert list_unknown(wanted, manifest, listing, known) == ("a", "c")
    asked = {"a": Stored(1, "x", sha256=ONE), "c": Stored(1, "x", sha256=TWO), "b": None}
    assert adopt(wanted, manifest, asked) == {"a": PushedObject(1, ONE, etag="x")}


def test_what_had_its_grace_is_deleted_and_nothing_else() -> None:
    noted = {
        "due": PushedObject(1, ONE, etag="x", unnamed_at=900),
        "young": PushedObject(1, ONE, etag="x", unnamed_at=901),
        "future": PushedObject(1, ONE, etag="x", unnamed_at=5_000),
        "named": PushedObject(1, ONE, etag="x"),
        "pending": PushedObject(1, ONE),
        "replaced": PushedObject(1, ONE, etag="x", unnamed_at=1),
        "page.html": PushedObject(1, ONE, COMPANION, "x"),
    }
    listing = {path: Stored(1, "x") for path in noted} | {"replaced": Stored(1, "y")}
    found = plan({}, noted, listing | {"foreign": Stored(1, "x")})
    assert found.delete == ("due",)
    assert found.unname == ("named",)
    assert found.discard == ("page.html",)
    assert found.forget == ("pending", "replaced")
    after = conclude(match(Manifest(objects=noted), listing), {}, ["due", "page.html"], 1_000)
    assert {path: one.unnamed_at for path, one in after.items()} == {
        "young": 901,
        "future": 1_000,
        "named": 1_000,
    }


def test_what_leads_to_other_companions_is_discarded_first() -> None:
    names = ("streams/v1/images.sjson", "streams/v1/index.sjson", "streams/page/a.html", "a.html")
    noted = {path: PushedObject(1, ONE, COMPANION, "x") for path in names}
    found = plan({}, noted, {path: Stored(1, "x") for path in noted})
    assert found.discard == (names[1], names[3], names[2], names[0])


def test_without_a_grace_it_goes_with_the_catalogue() -> None:
    noted = {"a": PushedObject(1, ONE, etag="x")}
    assert plan({}, noted, {"a": Stored(1, "x")}, grace=0).delete == ("a",)


def test_each_companion_follows_what_it_describes_and_the_index_comes_last() -> None:
    of = {"i.gz": INDEX, "a.gz": "a", "page": "", "page/a": "", "b.sjson": "b", "lost": "gone"}
    assert order_documents(["a", "b"], of) == (
        *("a", "a.gz", "b", "b.sjson"),
        *("page/a", "lost", "page", INDEX, "i.gz"),
    )


def test_what_was_withdrawn_is_no_loss() -> None:
    known = {
        "v/a": PushedObject(1, ONE, etag="x"),
        "w/a": PushedObject(1, ONE, etag="x"),
        "w/b": PushedObject(1, ONE, etag="x"),
        "old/a": PushedObject(1, ONE, etag="x", unnamed_at=1),
        INDEX: PushedObject(1, ONE, CATALOGUE, "x"),
    }
    withdrawn = {"v": Withdrawal(), "w": Withdrawal(files=("a",))}
    assert measure_loss(known, {}, withdrawn) == (1, 3)


def test_a_manifest_survives() -> None:
    manifest = Manifest(run="r", objects={"a": PushedObject(1, ONE, CATALOGUE, "x", 7.5)})
    assert decode_manifest(encode_manifest(manifest)) == manifest
