"""Calls every operation of the app of `docs/endpoints.md` by the generated client, with all that requests can have."""

from datetime import UTC
from typing import TypedDict
from uuid import UUID, uuid4

from checks import PATIENT, RECORDED, Answer, address, empty, ok, report
from library import Client
from library.api.authors import create_author, delete_author, get_author, list_authors, update_author
from library.api.books import (
    bulk_create_books,
    bulk_update_books,
    create_book,
    delete_book,
    get_book,
    link_book_tag,
    list_books,
    restore_book,
    unlink_book_tag,
    update_book,
)
from library.api.health import get_database_health, is_alive, is_database_ready
from library.api.tags import bulk_create_tags, create_tag, delete_tag, get_tag, list_tags, update_tag
from library.models import (
    AuthorCreateWithBooks,
    AuthorIncludeValue,
    AuthorRead,
    AuthorReadWithBooks,
    AuthorSelection,
    AuthorSelectionPage,
    AuthorUpdate,
    BookCreate,
    BookCreateInAuthor,
    BookFacets,
    BookFieldsValue,
    BookIncludeValue,
    BookRead,
    BookSelection,
    BookSelectionPage,
    BookUpdate,
    BookUpdateWithKey,
    DatabaseHealth,
    DatabaseHealthStatus,
    ListBooksFacetsItem,
    ListBooksSortItem,
    Problem,
    ProblemCode,
    ProblemError,
    ProcessHealth,
    TagCreate,
    TagPage,
    TagRead,
    TagUpdate,
)
from library.types import UNSET, Unset


class Caller(TypedDict):
    """Who calls: what all operations need."""

    client: Client
    x_tenant_id: str
    x_user: str


client = Client(address(), httpx_args=RECORDED, timeout=PATIENT)
ann = Caller(client=client, x_tenant_id="acme", x_user="ann")
librarian = Caller(client=client, x_tenant_id="acme", x_user="librarian")
other = Caller(client=client, x_tenant_id="other", x_user="ann")


def refused(answer: Answer, status: int, code: ProblemCode) -> Problem:
    """The problem of an answer, which must have this status and code."""
    problem = ok(answer, Problem, status)
    assert (problem.status, problem.code) == (status, code), problem
    return problem


def faults(problem: Problem) -> list[list[str]]:
    """The places of the faults in a request."""
    assert not isinstance(problem.errors, Unset)
    return [each.loc for each in problem.errors if isinstance(each, ProblemError)]


def authors() -> AuthorReadWithBooks:
    """An author and the author's books, in one request, which is carried out once for each key."""
    books = [BookCreateInAuthor(title="Notes", pages=9), BookCreateInAuthor(title="Letters", status="ready")]
    body = AuthorCreateWithBooks(name="Ada", books=books)
    created = create_author.sync_detailed(**ann, body=body, idempotency_key="first")
    ada = ok(created, AuthorReadWithBooks, 201)
    assert [(each.title, each.status, each.pages) for each in ada.books] == [
        ("Notes", "draft", 9),
        ("Letters", "ready", None),
    ]
    assert {(each.author_id, each.created_by) for each in ada.books} == {(ada.id, "ann")}
    assert ada.books[0].created_at.tzinfo is not None
    assert created.headers["location"] == f"/authors/{ada.id}"
    assert created.headers["etag"] == f'"{ada.version}"'
    repeated = create_author.sync_detailed(**ann, body=body, idempotency_key="first")
    assert ok(repeated, AuthorReadWithBooks, 201) == ada
    assert repeated.headers["idempotency-replayed"] == "true"
    eve = AuthorCreateWithBooks(name="Eve")
    reused = create_author.sync_detailed(**ann, body=eve, idempotency_key="first")
    assert refused(reused, 422, ProblemCode.INVALID).fields == ["Idempotency-Key"]
    return ada


def conditions(ada: AuthorReadWithBooks) -> None:
    """Lists and rows that have not changed, versions, and rows that are absent or another tenant's."""
    page = ok(list_authors.sync_detailed(**ann, include=[AuthorIncludeValue.BOOKS]), AuthorSelectionPage)
    assert not isinstance(page.items[0].books, Unset)
    assert {each.title for each in page.items[0].books} == {"Notes", "Letters"}
    listed = list_authors.sync_detailed(**ann)
    assert ok(listed, AuthorSelectionPage).items[0].books is UNSET
    empty(list_authors.sync_detailed(**ann, if_none_match=listed.headers["etag"]), 304)
    assert ok(list_authors.sync_detailed(**other), AuthorSelectionPage).total == 0

    read = get_author.sync_detailed(ada.id, **ann, include=[AuthorIncludeValue.BOOKS])
    assert ok(read, AuthorSelection).version == ada.version
    tag = f'"{ada.version}"'
    empty(get_author.sync_detailed(ada.id, **ann, if_none_match=tag), 304)
    renamed = update_author.sync_detailed(ada.id, **ann, body=AuthorUpdate(name="Ada L."), if_match=tag)
    assert ok(renamed, AuthorRead).version == ada.version + 1
    late = update_author.sync_detailed(ada.id, **ann, body=AuthorUpdate(name="Eve"), if_match=tag)
    refused(late, 412, ProblemCode.STALE)
    refused(delete_author.sync_detailed(ada.id, **ann, if_match=tag), 412, ProblemCode.STALE)
    quiet = update_author.sync_detailed(ada.id, **ann, body=AuthorUpdate(name="Ada"), prefer="return=minimal")
    empty(quiet)
    assert quiet.headers["preference-applied"] == "return=minimal"
    refused(get_author.sync_detailed(ada.id, **other), 404, ProblemCode.NOT_FOUND)
    refused(update_author.sync_detailed(uuid4(), **ann, body=AuthorUpdate()), 404, ProblemCode.NOT_FOUND)


def tags() -> list[UUID]:
    """Tags, many at once. Returns the keys of two of them."""
    made = ok(bulk_create_tags.sync_detailed(**ann, body=[TagCreate(name="old"), TagCreate(name="new")]), list, 201)
    long = bulk_create_tags.sync_detailed(**ann, body=[TagCreate(name="good"), TagCreate(name="x" * 21)])
    assert faults(refused(long, 422, ProblemCode.INVALID)) == [["body", "1", "name"]]
    spare = ok(create_tag.sync_detailed(**ann, body=TagCreate(name="spare")), TagRead, 201)
    assert ok(get_tag.sync_detailed(spare.id, **ann), TagRead) == spare
    assert ok(update_tag.sync_detailed(spare.id, **ann, body=TagUpdate(name="bare")), TagRead).name == "bare"
    empty(delete_tag.sync_detailed(spare.id, **ann))
    assert ok(list_tags.sync_detailed(**ann, name_in=["old", "new", "bare"]), TagPage).total == 2
    return [each.id for each in made]


def books(author: UUID) -> None:
    """Books: one, and many at once. A hook strips their titles."""
    book = ok(create_book.sync_detailed(**ann, body=BookCreate(title=" Maps ", author_id=author)), BookRead, 201)
    assert book.title == "Maps"
    unknown = BookCreate(title="?", author_id=uuid4())
    refused(create_book.sync_detailed(**ann, body=unknown), 409, ProblemCode.CONSTRAINT)
    drafts = [BookCreate(title="Tales"), BookCreate(title="Songs", pages=30)]
    tales, songs = ok(bulk_create_books.sync_detailed(**ann, body=drafts), list, 201)
    changes = [BookUpdateWithKey(id=tales.id, status="ready"), BookUpdateWithKey(id=songs.id, pages=None)]
    changed = ok(bulk_update_books.sync_detailed(**ann, body=changes), list)
    assert [(each.title, each.status, each.pages) for each in changed] == [
        ("Tales", "ready", None),
        ("Songs", "draft", None),
    ]
    absent = [BookUpdateWithKey(id=tales.id, pages=1), BookUpdateWithKey(id=uuid4(), pages=1)]
    problem = refused(bulk_update_books.sync_detailed(**ann, body=absent), 404, ProblemCode.NOT_FOUND)
    assert problem.index == 1
    quiet = [BookUpdateWithKey(id=songs.id, pages=31)]
    empty(bulk_update_books.sync_detailed(**ann, body=quiet, prefer="return=minimal"))


def selections(book: UUID, old: UUID, new: UUID) -> None:
    """Links, and what a request selects: fields, relationships, facets and words."""
    for tag in (old, old, new):
        empty(link_book_tag.sync_detailed(book, tag, **ann))
    empty(unlink_book_tag.sync_detailed(book, old, **ann))
    refused(link_book_tag.sync_detailed(book, old, **other), 404, ProblemCode.NOT_FOUND)

    related = [BookIncludeValue.AUTHOR, BookIncludeValue.TAGS]
    selected = ok(get_book.sync_detailed(book, **ann, include=related), BookSelection)
    assert isinstance(selected.author, AuthorRead)
    assert not isinstance(selected.tags, Unset)
    assert (selected.author.name, [each.name for each in selected.tags]) == ("Ada", ["new"])
    fields = [BookFieldsValue.ID, BookFieldsValue.TITLE]
    narrow = ok(get_book.sync_detailed(book, **ann, fields=fields), BookSelection)
    assert narrow.to_dict() == {"id": str(book), "title": "Notes"}
    assert ok(list_books.sync_detailed(**ann, q="notes"), BookSelectionPage).total == 1
    counted = list_books.sync_detailed(**ann, facets=[ListBooksFacetsItem.STATUS], per_page=2)
    page = ok(counted, BookSelectionPage)
    assert (page.total, page.page, page.pages, len(page.items), page.has_next) == (5, 1, 3, 2, True)
    assert isinstance(page.facets, BookFacets)
    assert not isinstance(page.facets.status, Unset)
    assert [(each.value, each.count) for each in page.facets.status] == [("draft", 3), ("ready", 2)]
    assert 'rel="next"' in counted.headers["link"]


def pages() -> None:
    """Pages by their cursors, and exports, whose text the generated functions do not read."""
    titles: list[object] = []
    cursor: str | Unset | None = UNSET
    while cursor is not None:
        answer = list_books.sync_detailed(**ann, limit=2, sort=[ListBooksSortItem.TITLE], cursor=cursor)
        page = ok(answer, BookSelectionPage)
        titles += [each.title for each in page.items]
        assert not isinstance(page.next_cursor, Unset)
        cursor = page.next_cursor
    assert titles == ["Letters", "Maps", "Notes", "Songs", "Tales"]
    headers = {"X-Tenant-ID": "acme", "X-User": "ann"}
    http = client.get_httpx_client()
    table = http.get("/books?sort=title", headers={**headers, "Accept": "text/csv"}).text
    assert [line.split(",")[1] for line in table.splitlines()] == ["title", *titles]
    lines = http.get("/tags?sort=name", headers={**headers, "Accept": "application/x-ndjson"})
    assert len(lines.text.splitlines()) == 2


def deletions(book: UUID, author: UUID) -> None:
    """Books are deleted softly, and only by a librarian."""
    current = ok(update_book.sync_detailed(book, **ann, body=BookUpdate(pages=12)), BookRead)
    refused(delete_book.sync_detailed(book, **ann), 403, ProblemCode.FORBIDDEN)
    empty(delete_book.sync_detailed(book, **librarian, if_match=f'"{current.version}"'))
    refused(get_book.sync_detailed(book, **ann), 404, ProblemCode.NOT_FOUND)
    restored = ok(restore_book.sync_detailed(book, **ann), BookRead)
    assert restored.pages == 12
    assert restored.updated_at.astimezone(UTC) >= restored.created_at
    refused(delete_author.sync_detailed(author, **ann), 409, ProblemCode.CONSTRAINT)  # she has books
    fay = ok(create_author.sync_detailed(**ann, body=AuthorCreateWithBooks(name="Fay")), AuthorReadWithBooks, 201)
    empty(delete_author.sync_detailed(fay.id, **ann))


def problems() -> None:
    """Faults have a place, which is typed."""
    faulty = refused(list_books.sync_detailed(**ann, per_page=0), 422, ProblemCode.INVALID)
    assert faults(faulty) == [["query", "per_page"]]
    refused(list_books.sync_detailed(**ann, limit=1, cursor="x"), 400, ProblemCode.INVALID_CURSOR)
    nobody = list_tags.sync_detailed(client=client, x_tenant_id="!", x_user="ann")
    refused(nobody, 400, ProblemCode.TENANT_REQUIRED)


ada = authors()
conditions(ada)
old_tag, new_tag = tags()
books(ada.id)
notes, letters = ada.books
selections(notes.id, old_tag, new_tag)
pages()
deletions(letters.id, ada.id)
problems()
assert ok(get_database_health.sync_detailed(client=client), DatabaseHealth).status is DatabaseHealthStatus.HEALTHY
assert ok(is_alive.sync_detailed(client=client), ProcessHealth).status == "alive"
assert ok(is_database_ready.sync_detailed(client=client), DatabaseHealth).status is DatabaseHealthStatus.HEALTHY
report()
