// Calls every operation of the small app: a bearer token, an enum, decimals and dates.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import { address, empty, type Json, ok, recorder, refused, report } from "./checks.js";
import type { components, paths } from "./tokens-types.js";

type Author = components["schemas"]["AuthorRead"];

function client(token?: string) {
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  const made = createClient<paths, Json>({ baseUrl: address(), headers });
  made.use(recorder);
  return made;
}

const acme = client("acme.ann");
const other = client("other.bob");

const body = { name: "Ada", born_on: "1815-12-10", genre: "poems", fee: "12.50" } as const;
const ada: Author = ok(await acme.POST("/authors", { body }), 201);
assert.deepEqual([ada.born_on, ada.genre, ada.fee], ["1815-12-10", "poems", "12.50"]);
const eve = ok(await acme.POST("/authors", { body: { name: "Eve", fee: 3 } }), 201);
assert.deepEqual([eve.born_on, eve.genre, eve.fee], [null, "prose", "3.00"]);
refused(await acme.POST("/authors", { body }), 409, "duplicate");
ok(await other.POST("/authors", { body }), 201);
refused(await client().GET("/authors"), 401, "unauthorized");

const at = { params: { path: { id: ada.id } } };
assert.deepEqual(ok(await acme.GET("/authors/{id}", at)), ada);
assert.equal(ok(await acme.PATCH("/authors/{id}", { ...at, body: { born_on: null, fee: 9 } })).fee, "9.00");
const page = ok(await acme.GET("/authors", { params: { query: { genre__in: ["poems"], fee__gte: 9 } } }));
assert.deepEqual([page.total, page.items[0]?.genre], [1, "poems"]);
refused(await other.DELETE("/authors/{id}", at), 404, "not_found");
empty(await acme.DELETE("/authors/{id}", at));

// What the compiler must refuse.
export function wrong(): void {
  // @ts-expect-error: there is no such genre
  void acme.POST("/authors", { body: { ...body, genre: "songs" } });
  // @ts-expect-error: the fee is missing
  void acme.POST("/authors", { body: { name: "Ada" } });
}

report();
