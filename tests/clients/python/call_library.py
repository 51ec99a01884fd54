"""Calls every operation of the library by the generated client, and provokes every problem that a client can."""

from datetime import date

from checks import PATIENT, RECORDED, Answer, address, empty, ok, report
from library import AuthenticatedClient, Client
from library.api.authors import create_author, delete_author, get_author, list_authors, restore_author, update_author
from library.api.books import create_book, delete_book, get_book, list_books, restore_book, update_book
from library.api.reviews import create_review, delete_review, get_review, list_reviews, update_review
from library.models import (
    AuthorCreate,
    AuthorRead,
    AuthorUpdate,
    BookCreate,
    BookRead,
    BookUpdate,
    Form,
    ListBooksSortItem,
    Problem,
    ProblemCode,
    ProblemError,
    ReviewCreate,
    ReviewRead,
    ReviewUpdate,
)
from library.types import Unset

acme = AuthenticatedClient(address(), token="acme.ann", httpx_args=RECORDED, timeout=PATIENT)
other = AuthenticatedClient(address(), token="other.bob", httpx_args=RECORDED, timeout=PATIENT)
stranger = Client(address(), httpx_args=RECORDED, timeout=PATIENT)


def refused(answer: Answer, status: int, code: ProblemCode) -> Problem:
    """The problem of an answer, which must have this status and code."""
    problem = ok(answer, Problem, status)
    assert (problem.status, problem.code) == (status, code), problem
    return problem


def authors() -> int:
    """Authors: created once for each key, with their place and version. Returns the id of one."""
    body = AuthorCreate(name="Ada", born_on=date(1815, 12, 10))
    created = create_author.sync_detailed(client=acme, body=body, idempotency_key="first")
    ada = ok(created, AuthorRead, 201)
    assert created.headers["location"] == f"/authors/{ada.id}"
    assert created.headers["etag"] == f'"{ada.version}"'
    assert (ada.created_by, ada.born_on) == ("ann", date(1815, 12, 10))
    assert ada.created_at.tzinfo is not None
    repeated = create_author.sync_detailed(client=acme, body=body, idempotency_key="first")
    assert ok(repeated, AuthorRead, 201).id == ada.id
    assert repeated.headers["idempotency-replayed"] == "true"
    reused = create_author.sync_detailed(client=acme, body=AuthorCreate(name="Eve"), idempotency_key="first")
    assert refused(reused, 422, ProblemCode.INVALID).fields == ["Idempotency-Key"]
    refused(create_author.sync_detailed(client=acme, body=body), 409, ProblemCode.DUPLICATE)
    ok(create_author.sync_detailed(client=other, body=body), AuthorRead, 201)
    conditions(ada.id)
    return ada.id


def conditions(id_: int) -> None:
    """Versions, and rows that are absent. A fault has a place, which is typed."""
    read = get_author.sync_detailed(id_, client=acme)
    ok(read, AuthorRead)
    tag = read.headers["etag"]
    empty(get_author.sync_detailed(id_, client=acme, if_none_match=tag), 304)
    changed = update_author.sync_detailed(id_, client=acme, body=AuthorUpdate(born_on=None), if_match=tag)
    assert ok(changed, AuthorRead).born_on is None
    late = update_author.sync_detailed(id_, client=acme, body=AuthorUpdate(name="Eve"), if_match=tag)
    refused(late, 412, ProblemCode.STALE)
    refused(delete_author.sync_detailed(id_, client=acme, if_match=tag), 412, ProblemCode.STALE)
    empty(update_author.sync_detailed(id_, client=acme, body=AuthorUpdate(name="Ada"), prefer="return=minimal"))
    refused(get_author.sync_detailed(id_, client=other), 404, ProblemCode.NOT_FOUND)
    refused(update_author.sync_detailed(999, client=acme, body=AuthorUpdate()), 404, ProblemCode.NOT_FOUND)
    refused(delete_author.sync_detailed(999, client=acme), 404, ProblemCode.NOT_FOUND)
    faults = refused(list_authors.sync_detailed(client=acme, per_page=0), 422, ProblemCode.INVALID).errors
    assert not isinstance(faults, Unset)
    assert isinstance(faults[0], ProblemError)
    assert faults[0].loc == ["query", "per_page"]
    refused(list_authors.sync_detailed(client=acme, limit=1, cursor="x"), 400, ProblemCode.INVALID_CURSOR)
    # The types require a client with a token here.
    refused(list_authors.sync_detailed(client=stranger), 401, ProblemCode.UNAUTHORIZED)  # type: ignore[arg-type]


def books(author: int) -> int:
    """Books: enums are shared, and an unknown author is a conflict. Returns the id of one."""
    body = BookCreate(author_id=author, title="Notes", form=Form.PAPER, price="12.50")
    notes = ok(create_book.sync_detailed(client=acme, body=body), BookRead, 201)
    assert (notes.form, notes.price) == (Form.PAPER, "12.50")
    other_book = BookCreate(author_id=author, title="Letters", form=Form.SOUND, price=3)
    letters = ok(create_book.sync_detailed(client=acme, body=other_book), BookRead, 201)
    unknown = BookCreate(author_id=999, title="None", price=1)
    refused(create_book.sync_detailed(client=acme, body=unknown), 409, ProblemCode.CONSTRAINT)
    assert ok(get_book.sync_detailed(notes.id, client=acme), BookRead).title == "Notes"
    ok(update_book.sync_detailed(notes.id, client=acme, body=BookUpdate(price=9)), BookRead)
    empty(delete_book.sync_detailed(letters.id, client=acme))
    refused(get_book.sync_detailed(letters.id, client=acme), 404, ProblemCode.NOT_FOUND)
    ok(restore_book.sync_detailed(letters.id, client=acme), BookRead)
    pages()
    return notes.id


def pages() -> None:
    """Numbered pages, and pages by their cursors."""
    numbered = list_books.sync_detailed(
        client=acme, per_page=1, sort=[ListBooksSortItem.TITLE_DESC], form_in=[Form.PAPER, Form.SOUND]
    )
    page = numbered.parsed
    assert page is not None
    assert not isinstance(page, Problem)
    # A page is a union: what only one kind has is read from its dict.
    assert ([each.title for each in page.items], page.to_dict()["total"]) == (["Notes"], 2)
    assert 'rel="next"' in numbered.headers["link"]
    first = list_books.sync(client=acme, limit=1, sort=[ListBooksSortItem.TITLE])
    assert first is not None
    assert not isinstance(first, Problem)
    cursor = first.to_dict()["next_cursor"]
    second = list_books.sync(client=acme, limit=1, sort=[ListBooksSortItem.TITLE], cursor=cursor)
    assert second is not None
    assert not isinstance(second, Problem)
    assert [each.title for each in (*first.items, *second.items)] == ["Letters", "Notes"]
    assert second.to_dict()["next_cursor"] is None


def reviews(book: int) -> None:
    """Reviews have no version, and thus no conditions."""
    body = ReviewCreate(book_id=book, stars=5)
    review = ok(create_review.sync_detailed(client=acme, body=body), ReviewRead, 201)
    assert ok(get_review.sync_detailed(review.id, client=acme), ReviewRead).words is None
    changed = update_review.sync_detailed(review.id, client=acme, body=ReviewUpdate(words="Long."))
    assert ok(changed, ReviewRead).words == "Long."
    for client, number in ((acme, 1), (other, 0)):
        page = list_reviews.sync(client=client, stars_gte=5)
        assert page is not None
        assert not isinstance(page, Problem)
        assert len(page.items) == number
    empty(delete_review.sync_detailed(review.id, client=acme))


ada = authors()
reviews(books(ada))
empty(delete_author.sync_detailed(ada, client=acme))
ok(restore_author.sync_detailed(ada, client=acme), AuthorRead)
report()
