// Calls every operation of the example app.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { paths } from "./airports-types.js";
import { address, empty, header, type Json, ok, recorder, refused, report } from "./checks.js";

const client = createClient<paths, Json>({ baseUrl: address() });
client.use(recorder);

const tenant = { "X-Tenant-ID": "IS" };
const iceland = { header: tenant };

// Countries belong to nobody. All else belongs to a country, which the types require.
const countries = ok(await client.GET("/api/countries", { params: { query: { name__ilike: "icel" } } }));
assert.deepEqual(countries.items.map((each) => each.code), ["IS"]);
// @ts-expect-error: the tenant's header is required
refused(await client.GET("/api/airports"), 400, "tenant_required");
refused(await client.GET("/api/airports", { params: { header: { "X-Tenant-ID": "!" } } }), 400, "tenant_required");

const summary = ok(await client.GET("/api/summary", { params: iceland }));
assert(summary.airports > 0);
const airports = await client.GET("/api/airports", { params: { ...iceland, query: { per_page: 2, sort: ["icao"] } } });
const page = ok(airports);
assert.equal(page.total, summary.airports);
assert.match(header(airports, "Link"), /rel="next"/);
const first = page.items[0];
assert(first);
const map = ok(await client.GET("/api/airports/map", { params: { ...iceland, query: { icao__in: [first.icao] } } }));
assert.deepEqual(map.points.map(([icao]) => icao), [first.icao]);
const log = { path: { token: header(airports, "X-Statements") } };
assert(ok(await client.GET("/api/statements/{token}", { params: log })).statements?.some((each) => each.startsWith("SELECT")));
assert(ok(await client.GET("/api/airports/regions", { params: iceland })).length > 0);
const one = { path: { icao: first.icao }, ...iceland };
assert.equal(ok(await client.GET("/api/airports/{icao}", { params: one })).name, first.name);
const none = { path: { icao: "ZZZZ" }, ...iceland };
refused(await client.GET("/api/airports/{icao}", { params: none }), 404, "not_found");

const named = { name: "Jon", email: "jon@example.org", role: "lead" } as const;
const created = await client.POST("/api/users", { params: { header: { ...tenant, "x-user": "test" } }, body: named });
const jon = ok(created, 201);
assert.deepEqual([jon.role, jon.created_by], ["lead", "test"]);
assert.equal(header(created, "Location"), `/api/users/${jon.id}`);
refused(await client.POST("/api/users", { params: iceland, body: named }), 409, "duplicate");
const user = { path: { id: jon.id }, ...iceland };
assert.equal(ok(await client.GET("/api/users/{id}", { params: user })).email, named.email);
assert.equal(ok(await client.PATCH("/api/users/{id}", { params: user, body: { role: "analyst" } })).role, "analyst");
const users = ok(await client.GET("/api/users", { params: { ...iceland, query: { role__in: ["analyst"], limit: 1 } } }));
assert(users.next_cursor);
refused(await client.GET("/api/users/{id}", { params: { ...user, header: { "X-Tenant-ID": "NO" } } }), 404, "not_found");

const body = { airport_icao: first.icao, inspector_id: jon.id, topic: "runway", due_on: "2026-05-01" } as const;
const made = await client.POST("/api/inspections", { params: iceland, body });
const inspection = ok(made, 201);
assert.deepEqual([inspection.inspector.name, inspection.status], ["Jon", "open"]);
refused(await client.POST("/api/inspections", { params: iceland, body: { ...body, airport_icao: "ZZZZ" } }), 409, "constraint");
const place = { path: { id: inspection.id } };
const held = { ...place, header: { ...tenant, "If-Match": header(made, "ETag") } };
const closed = ok(await client.PATCH("/api/inspections/{id}", { params: held, body: { status: "closed" } }));
assert.equal(closed.version, inspection.version + 1);
refused(await client.PATCH("/api/inspections/{id}", { params: held, body: { note: "late" } }), 412, "stale");
const open = { ...iceland, query: { status: "closed", due_on: "2026-05-01" } } as const;
assert.equal(ok(await client.GET("/api/inspections", { params: open })).items.length, 1);
empty(await client.DELETE("/api/inspections/{id}", { params: { ...place, ...iceland } }));
refused(await client.GET("/api/inspections/{id}", { params: { ...place, ...iceland } }), 404, "not_found");
ok(await client.POST("/api/inspections/{id}/restore", { params: { ...place, ...iceland } }));
refused(await client.DELETE("/api/users/{id}", { params: user }), 409, "constraint");
const spare = ok(await client.POST("/api/users", { params: iceland, body: { ...named, email: "x@example.org" } }), 201);
empty(await client.DELETE("/api/users/{id}", { params: { path: { id: spare.id }, ...iceland } }));

assert.equal(ok(await client.GET("/health/db")).status, "healthy");
assert.equal(ok(await client.GET("/health/db/live")).status, "alive");
assert.equal(ok(await client.GET("/health/db/ready")).status, "healthy");

report();
