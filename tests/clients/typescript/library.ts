// Calls every operation of the app of docs/endpoints.md, with all that its requests can have.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import { address, empty, header, type Json, ok, recorder, refused, report } from "./checks.js";
import type { components, paths } from "./library-types.js";

type Author = components["schemas"]["AuthorRead"];
type Page = components["schemas"]["BookSelectionPage"];
type ProblemCode = components["schemas"]["ProblemCode"];

const client = createClient<paths, Json>({ baseUrl: address() });
const csv = createClient<paths, "text/csv">({ baseUrl: address(), headers: { Accept: "text/csv" } });
const lines = createClient<paths, "application/x-ndjson">({
  baseUrl: address(),
  headers: { Accept: "application/x-ndjson" },
});
for (const each of [client, csv, lines]) each.use(recorder);

const ann = { "X-Tenant-ID": "acme", "X-User": "ann" };
const librarian = { ...ann, "X-User": "librarian" };
const other = { ...ann, "X-Tenant-ID": "other" };
const acme = { header: ann };
const absent = { path: { id: "00000000-0000-4000-8000-000000000000" }, ...acme };

// An author and the author's books, in one request, which is carried out once for each key.
const body = { name: "Ada", books: [{ title: "Notes", pages: 9 }, { title: "Letters", status: "ready" }] };
const keyed = { header: { ...ann, "Idempotency-Key": "first" } };
const created = await client.POST("/authors", { params: keyed, body });
const ada: Author = ok(created, 201);
const [notes, letters] = ok(created, 201).books;
assert(notes && letters);
assert.deepEqual([notes.status, notes.pages, letters.status, letters.pages], ["draft", 9, "ready", null]);
assert.deepEqual([notes.author_id, notes.created_by], [ada.id, "ann"]);
assert.equal(notes.created_at.slice(0, 2), "20");
assert.equal(header(created, "Location"), `/authors/${ada.id}`);
assert.equal(header(created, "ETag"), `"${ada.version}"`);
const repeated = await client.POST("/authors", { params: keyed, body });
assert.deepEqual(ok(repeated, 201), created.data);
assert.equal(header(repeated, "Idempotency-Replayed"), "true");
const reused = refused(await client.POST("/authors", { params: keyed, body: { name: "Eve" } }), 422, "invalid");
assert.deepEqual(reused.fields, ["Idempotency-Key"]);
refused(await client.POST("/authors", { params: acme, body: { name: "x".repeat(81) } }), 422, "invalid");

// A list that has not changed, and its related rows.
const authors = await client.GET("/authors", { params: { ...acme, query: { include: ["books"] } } });
assert.deepEqual(ok(authors).items[0]?.books?.map((each) => each.title).sort(), ["Letters", "Notes"]);
const listed = await client.GET("/authors", { params: acme });
assert.equal(ok(listed).items[0]?.books, undefined);
empty(await client.GET("/authors", { params: { header: { ...ann, "If-None-Match": header(listed, "ETag") } } }), 304);
assert.equal(ok(await client.GET("/authors", { params: { header: other } })).total, 0);

// Versions, and rows that are absent or another tenant's.
const at = { path: { id: ada.id } };
const read = await client.GET("/authors/{id}", { params: { ...at, ...acme, query: { include: ["books"] } } });
assert.equal(ok(read).books?.length, 2);
const tagged = { ...at, header: { ...ann, "If-None-Match": header(created, "ETag") } };
empty(await client.GET("/authors/{id}", { params: tagged }), 304);
const matching = { ...at, header: { ...ann, "If-Match": header(created, "ETag") } };
const renamed = ok(await client.PATCH("/authors/{id}", { params: matching, body: { name: "Ada L." } }));
assert.deepEqual([renamed.name, renamed.version], ["Ada L.", ada.version + 1]);
refused(await client.PATCH("/authors/{id}", { params: matching, body: { name: "Eve" } }), 412, "stale");
refused(await client.DELETE("/authors/{id}", { params: matching }), 412, "stale");
const quiet = { ...at, header: { ...ann, Prefer: "return=minimal" } };
const unseen = await client.PATCH("/authors/{id}", { params: quiet, body: { name: "Ada" } });
empty(unseen);
assert.equal(header(unseen, "Preference-Applied"), "return=minimal");
refused(await client.GET("/authors/{id}", { params: { ...at, header: other } }), 404, "not_found");
refused(await client.PATCH("/authors/{id}", { params: absent, body: {} }), 404, "not_found");

// Tags: many at once.
const [old, young] = ok(await client.POST("/tags/bulk", { params: acme, body: [{ name: "old" }, { name: "new" }] }), 201);
assert(old && young);
const long = await client.POST("/tags/bulk", { params: acme, body: [{ name: "good" }, { name: "x".repeat(21) }] });
assert.deepEqual(refused(long, 422, "invalid").errors?.[0]?.loc, ["body", "1", "name"]);
const spare = ok(await client.POST("/tags", { params: acme, body: { name: "spare" } }), 201);
const tag = { path: { id: spare.id }, ...acme };
assert.deepEqual(ok(await client.GET("/tags/{id}", { params: tag })), spare);
assert.equal(ok(await client.PATCH("/tags/{id}", { params: tag, body: { name: "bare" } })).name, "bare");
empty(await client.DELETE("/tags/{id}", { params: tag }));
const tags = ok(await client.GET("/tags", { params: { ...acme, query: { name__in: ["old", "new", "bare"] } } }));
assert.equal(tags.total, 2);

// Books: one, and many at once. A hook strips their titles.
const book = ok(await client.POST("/books", { params: acme, body: { title: " Maps ", author_id: ada.id } }), 201);
assert.equal(book.title, "Maps");
refused(await client.POST("/books", { params: acme, body: { title: "?", author_id: spare.id } }), 409, "constraint");
const drafts = [{ title: "Tales" }, { title: "Songs", pages: 30 }];
const [tales, songs] = ok(await client.POST("/books/bulk", { params: acme, body: drafts }), 201);
assert(tales && songs);
const changes = [{ id: tales.id, status: "ready" }, { id: songs.id, pages: null }];
const changed = ok(await client.PATCH("/books/bulk", { params: acme, body: changes }));
assert.deepEqual(changed.map((each) => [each.title, each.status, each.pages]), [
  ["Tales", "ready", null],
  ["Songs", "draft", null],
]);
const unknown = [{ id: tales.id, pages: 1 }, { id: absent.path.id, pages: 1 }];
assert.equal(refused(await client.PATCH("/books/bulk", { params: acme, body: unknown }), 404, "not_found").index, 1);
const shelf = { params: { header: { ...ann, Prefer: "return=minimal" } }, body: [{ id: songs.id, pages: 31 }] };
empty(await client.PATCH("/books/bulk", shelf));

// Links, which can be made and removed again.
const link = { params: { path: { id: notes.id, tag_id: old.id }, ...acme } };
empty(await client.PUT("/books/{id}/tags/{tag_id}", link));
empty(await client.PUT("/books/{id}/tags/{tag_id}", link));
empty(await client.PUT("/books/{id}/tags/{tag_id}", { params: { path: { id: notes.id, tag_id: young.id }, ...acme } }));
empty(await client.DELETE("/books/{id}/tags/{tag_id}", link));
const foreign = { path: { id: notes.id, tag_id: old.id }, header: other };
refused(await client.PUT("/books/{id}/tags/{tag_id}", { params: foreign }), 404, "not_found");

// What a request selects: fields, relationships, facets, words.
const one = { path: { id: notes.id }, ...acme };
const selected = ok(await client.GET("/books/{id}", { params: { ...one, query: { include: ["author", "tags"] } } }));
assert.deepEqual([selected.author?.name, selected.tags?.map((each) => each.name)], ["Ada", ["new"]]);
const narrow = ok(await client.GET("/books/{id}", { params: { ...one, query: { fields: ["id", "title"] } } }));
assert.deepEqual(narrow, { id: notes.id, title: "Notes" });
const found = await client.GET("/books", { params: { ...acme, query: { facets: ["status"], q: "notes" } } });
assert.deepEqual(ok(found).facets, { status: [{ value: "draft", count: 1 }] });
assert.deepEqual([ok(found).total, ok(found).page, ok(found).pages], [1, 1, 1]);
assert.match(header(found, "Link"), /rel="first"/);
const wide: Page = ok(await client.GET("/books", { params: { ...acme, query: { facets: ["status"], per_page: 2 } } }));
assert.deepEqual([wide.total, wide.items.length, wide.has_next], [5, 2, true]);
assert.deepEqual(wide.facets?.status?.map((each) => [each.value, each.count]), [["draft", 3], ["ready", 2]]);

// Cursor pages: the first has no cursor, and each names the next.
const titles: (string | undefined)[] = [];
let cursor: string | null | undefined;
do {
  const place: { limit: number; sort: ["title"]; cursor?: string } = { limit: 2, sort: ["title"] };
  if (cursor) place.cursor = cursor;
  const page = ok(await client.GET("/books", { params: { ...acme, query: place } }));
  titles.push(...page.items.map((each) => each.title));
  cursor = page.next_cursor;
} while (cursor);
assert.deepEqual(titles, ["Letters", "Maps", "Notes", "Songs", "Tales"]);

// Exports: all rows in another form, whose type is a text.
const table: string = ok(await csv.GET("/books", { params: { ...acme, query: { sort: ["title"] } }, parseAs: "text" }));
assert.deepEqual(table.split(/\r?\n/).map((line) => line.split(",")[1]), ["title", ...titles, undefined]);
const json: string = ok(await lines.GET("/tags", { params: { ...acme, query: { sort: ["name"] } }, parseAs: "text" }));
assert.deepEqual(json.trim().split("\n").map((line) => JSON.parse(line).name), ["new", "old"]);

// Books are deleted softly, and only by a librarian.
const volume = { path: { id: letters.id } };
const current = ok(await client.PATCH("/books/{id}", { params: { ...volume, ...acme }, body: { pages: 12 } }));
refused(await client.DELETE("/books/{id}", { params: { ...volume, ...acme } }), 403, "forbidden");
const tagOf = { ...volume, header: { ...librarian, "If-Match": `"${current.version}"` } };
empty(await client.DELETE("/books/{id}", { params: tagOf }));
refused(await client.GET("/books/{id}", { params: { ...volume, ...acme } }), 404, "not_found");
assert.equal(ok(await client.POST("/books/{id}/restore", { params: { ...volume, ...acme } })).pages, 12);
refused(await client.DELETE("/authors/{id}", { params: { ...at, ...acme } }), 409, "constraint"); // she has books
const fay = ok(await client.POST("/authors", { params: acme, body: { name: "Fay" } }), 201);
empty(await client.DELETE("/authors/{id}", { params: { path: { id: fay.id }, ...acme } }));
assert.equal(ok(await client.GET("/books/{id}", { params: one })).author_id, ada.id);

// Faults have a place, which is typed.
const faulty = refused(await client.GET("/books", { params: { ...acme, query: { per_page: 0 } } }), 422, "invalid");
assert.deepEqual(faulty.errors?.[0]?.loc, ["query", "per_page"]);
refused(await client.GET("/books", { params: { ...acme, query: { limit: 1, cursor: "x" } } }), 400, "invalid_cursor");
// @ts-expect-error: the tenant's header is required
refused(await client.GET("/tags", { params: { header: { "X-User": "ann" } } }), 400, "tenant_required");

assert.equal(ok(await client.GET("/health/db")).status, "healthy");
assert.equal(ok(await client.GET("/health/db/live")).status, "alive");
assert.equal(ok(await client.GET("/health/db/ready")).status, "healthy");

// What the compiler must refuse.
export function wrong(code: ProblemCode): void {
  // @ts-expect-error: there is no such code
  assert.equal(code === "stael", false);
  // @ts-expect-error: there is no such parameter
  void client.GET("/books", { params: { ...acme, query: { titel: "x" } } });
  // @ts-expect-error: nothing can be sorted by this
  void client.GET("/books", { params: { ...acme, query: { sort: ["author"] } } });
  // @ts-expect-error: this can't be selected
  void client.GET("/books", { params: { ...acme, query: { fields: ["pages"] } } });
  // @ts-expect-error: authors have no such relationship
  void client.GET("/authors", { params: { ...acme, query: { include: ["tags"] } } });
  // @ts-expect-error: the title is missing
  void client.POST("/books", { params: acme, body: { pages: 1 } });
  // @ts-expect-error: the key of the row is missing
  void client.PATCH("/books/bulk", { params: acme, body: [{ pages: 1 }] });
}

report();
