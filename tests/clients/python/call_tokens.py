"""Calls every operation of the small app: a bearer token, an enum, decimals and dates."""

from datetime import date

from checks import PATIENT, RECORDED, Answer, address, empty, ok, report
from tokens import AuthenticatedClient, Client
from tokens.api.authors import create_author, delete_author, get_author, list_authors, update_author
from tokens.models import AuthorCreate, AuthorPage, AuthorRead, AuthorUpdate, Genre, Problem, ProblemCode

acme = AuthenticatedClient(address(), token="acme.ann", httpx_args=RECORDED, timeout=PATIENT)
other = AuthenticatedClient(address(), token="other.bob", httpx_args=RECORDED, timeout=PATIENT)
stranger = Client(address(), httpx_args=RECORDED, timeout=PATIENT)


def refused(answer: Answer, status: int, code: ProblemCode) -> None:
    """Check an answer that must be a problem with this status and code."""
    problem = ok(answer, Problem, status)
    assert (problem.status, problem.code) == (status, code), problem


body = AuthorCreate(name="Ada", born_on=date(1815, 12, 10), genre=Genre.POEMS, fee="12.50")
ada = ok(create_author.sync_detailed(client=acme, body=body), AuthorRead, 201)
assert (ada.born_on, ada.genre, ada.fee) == (date(1815, 12, 10), Genre.POEMS, "12.50")
eve = ok(create_author.sync_detailed(client=acme, body=AuthorCreate(name="Eve", fee=3)), AuthorRead, 201)
assert (eve.born_on, eve.genre, eve.fee) == (None, Genre.PROSE, "3.00")
refused(create_author.sync_detailed(client=acme, body=body), 409, ProblemCode.DUPLICATE)
ok(create_author.sync_detailed(client=other, body=body), AuthorRead, 201)
# The types require a client with a token here.
refused(list_authors.sync_detailed(client=stranger), 401, ProblemCode.UNAUTHORIZED)  # type: ignore[arg-type]

assert ok(get_author.sync_detailed(ada.id, client=acme), AuthorRead) == ada
changed = update_author.sync_detailed(ada.id, client=acme, body=AuthorUpdate(born_on=None, fee=9))
assert ok(changed, AuthorRead).fee == "9.00"
page = ok(list_authors.sync_detailed(client=acme, genre_in=[Genre.POEMS], fee_gte=9), AuthorPage)
assert (page.total, [each.genre for each in page.items]) == (1, [Genre.POEMS])
refused(delete_author.sync_detailed(ada.id, client=other), 404, ProblemCode.NOT_FOUND)
empty(delete_author.sync_detailed(ada.id, client=acme))
report()
