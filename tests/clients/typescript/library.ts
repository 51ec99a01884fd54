// Calls every operation of the library, and provokes every problem that a client can provoke.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import { address, empty, header, type Json, ok, recorder, refused, report } from "./checks.js";
import type { components, paths } from "./library-types.js";

type Author = components["schemas"]["AuthorRead"];
type ProblemCode = components["schemas"]["ProblemCode"];

function client(token?: string) {
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  const made = createClient<paths, Json>({ baseUrl: address(), headers });
  made.use(recorder);
  return made;
}

const acme = client("acme.ann");
const other = client("other.bob");

// Authors: created once for each key, with their place and version.
const keyed = { params: { header: { "Idempotency-Key": "first" } } };
const created = await acme.POST("/authors", { ...keyed, body: { name: "Ada", born_on: "1815-12-10" } });
const ada: Author = ok(created, 201);
assert.equal(header(created, "Location"), `/authors/${ada.id}`);
assert.equal(header(created, "ETag"), `"${ada.version}"`);
assert.equal(ada.created_by, "ann");
assert.equal(ada.created_at.slice(0, 2), "20");
const repeated = await acme.POST("/authors", { ...keyed, body: { name: "Ada", born_on: "1815-12-10" } });
assert.equal(ok(repeated, 201).id, ada.id);
assert.equal(header(repeated, "Idempotency-Replayed"), "true");
const reused = refused(await acme.POST("/authors", { ...keyed, body: { name: "Eve" } }), 422, "invalid");
assert.deepEqual(reused.fields, ["Idempotency-Key"]);
refused(await acme.POST("/authors", { body: { name: "Ada" } }), 409, "duplicate");
ok(await other.POST("/authors", { body: { name: "Ada" } }), 201);

// Items: versions, conditions and absent rows. A fault has a place, which is typed.
const at = { path: { id: ada.id } };
const read = await acme.GET("/authors/{id}", { params: at });
assert.deepEqual(ok(read), ada);
const same = await acme.GET("/authors/{id}", { params: { ...at, header: { "If-None-Match": header(read, "ETag") } } });
empty(same, 304);
const changed = await acme.PATCH("/authors/{id}", {
  params: { ...at, header: { "If-Match": header(read, "ETag") } },
  body: { born_on: null },
});
assert.equal(ok(changed).born_on, null);
const late = { ...at, header: { "If-Match": header(read, "ETag") } };
refused(await acme.PATCH("/authors/{id}", { params: late, body: { name: "Eve" } }), 412, "stale");
refused(await acme.DELETE("/authors/{id}", { params: late }), 412, "stale");
const quiet = { ...at, header: { Prefer: "return=minimal" } };
empty(await acme.PATCH("/authors/{id}", { params: quiet, body: { born_on: "1815-12-10" } }));
refused(await other.GET("/authors/{id}", { params: at }), 404, "not_found");
refused(await acme.PATCH("/authors/{id}", { params: { path: { id: 999 } }, body: {} }), 404, "not_found");
refused(await acme.DELETE("/authors/{id}", { params: { path: { id: 999 } } }), 404, "not_found");
const faulty = refused(await acme.GET("/authors", { params: { query: { per_page: 0 } } }), 422, "invalid");
assert.deepEqual(faulty.errors?.[0]?.loc, ["query", "per_page"]);
refused(await acme.GET("/authors", { params: { query: { limit: 1, cursor: "x" } } }), 400, "invalid_cursor");
refused(await client().GET("/authors"), 401, "unauthorized");

// Books: enums are shared, and an unknown author is a conflict.
const book = { author_id: ada.id, title: "Notes", form: "paper", price: "12.50" } as const;
const notes = ok(await acme.POST("/books", { body: book }), 201);
assert.deepEqual([notes.form, notes.price], ["paper", "12.50"]);
const letters = ok(await acme.POST("/books", { body: { ...book, title: "Letters", form: "sound" } }), 201);
refused(await acme.POST("/books", { body: { ...book, author_id: 999 } }), 409, "constraint");
assert.equal(ok(await acme.GET("/books/{id}", { params: { path: { id: notes.id } } })).title, "Notes");
ok(await acme.PATCH("/books/{id}", { params: { path: { id: notes.id } }, body: { price: 9 } }));
empty(await acme.DELETE("/books/{id}", { params: { path: { id: letters.id } } }));
refused(await acme.GET("/books/{id}", { params: { path: { id: letters.id } } }), 404, "not_found");
ok(await acme.POST("/books/{id}/restore", { params: { path: { id: letters.id } } }));

// Numbered pages. A page is a union, so that "total" has to be looked for before it is read.
const paged = await acme.GET("/books", { params: { query: { per_page: 1, sort: ["-title"], form__in: ["paper", "sound"] } } });
const page = ok(paged);
assert("total" in page && page.total === 2);
assert.equal(page.items[0]?.title, "Notes");
assert.match(header(paged, "Link"), /rel="next"/);

// Cursor pages: the first has no cursor, and each names the next.
const titles: string[] = [];
let cursor: string | null | undefined = undefined;
do {
  const query: { limit: number; sort: ["title"]; cursor?: string } = { limit: 1, sort: ["title"] };
  if (cursor) query.cursor = cursor;
  const cut = ok(await acme.GET("/books", { params: { query } }));
  titles.push(...cut.items.map((each) => each.title));
  assert("next_cursor" in cut);
  cursor = cut.next_cursor;
} while (cursor);
assert.deepEqual(titles, ["Letters", "Notes"]);

// Reviews have no version, and thus no conditions.
const review = ok(await acme.POST("/reviews", { body: { book_id: notes.id, stars: 5 } }), 201);
const place = { path: { id: review.id } };
assert.equal(ok(await acme.GET("/reviews/{id}", { params: place })).words, null);
assert.equal(ok(await acme.PATCH("/reviews/{id}", { params: place, body: { words: "Long." } })).words, "Long.");
assert.equal(ok(await acme.GET("/reviews", { params: { query: { stars__gte: 5 } } })).items.length, 1);
assert.equal(ok(await other.GET("/reviews")).items.length, 0);
empty(await acme.DELETE("/reviews/{id}", { params: place }));

empty(await acme.DELETE("/authors/{id}", { params: at }));
ok(await acme.POST("/authors/{id}/restore", { params: at }));

// What the compiler must refuse.
export function wrong(code: ProblemCode): void {
  // @ts-expect-error: there is no such code
  assert.equal(code === "stael", false);
  // @ts-expect-error: there is no such parameter
  void acme.GET("/books", { params: { query: { titel: "x" } } });
  // @ts-expect-error: nothing can be sorted by this
  void acme.GET("/books", { params: { query: { sort: ["author"] } } });
  // @ts-expect-error: the title is missing
  void acme.POST("/books", { body: { author_id: 1, form: "paper", price: 1 } });
}

report();
