// What both clients need: a record of the operations that are called, and checks of typed answers.

import assert from "node:assert/strict";
import type { Middleware } from "openapi-fetch";

const answers: [method: string, path: string, status: number][] = [];

/** The media types that the clients read. A list can have others, such as CSV, whose data would be a text. */
export type Json = "application/json" | "application/problem+json";

/** Records the method, the path of the document, and the status of each answer. */
export const recorder: Middleware = {
  onResponse({ request, response, schemaPath }) {
    answers.push([request.method.toLowerCase(), schemaPath, response.status]);
  },
};

/** The address of the app, the program's only argument. */
export function address(): string {
  const url = process.argv[2];
  assert(url, "the address of the app is needed");
  return url;
}

/** Print the record for the test that has started the program. */
export function report(): void {
  process.stdout.write(JSON.stringify(answers));
}

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The data of an answer that must be a success with this status. */
export function ok<T>(answer: Answer<T>, status = 200): NonNullable<T> {
  assert.equal(answer.response.status, status, JSON.stringify(answer.error));
  assert(answer.data !== undefined && answer.data !== null);
  return answer.data;
}

/** An answer that must be a success without a body. */
export function empty(answer: Answer<unknown>, status = 204): void {
  assert.equal(answer.response.status, status, JSON.stringify(answer.error));
  assert(!answer.data);
}

/** The problem of an answer, which must have this status and code. The compiler knows the codes. */
export function refused<P extends { code: string; status: number }>(
  answer: { error?: P; response: Response },
  status: number,
  code: P["code"],
): P {
  const problem = answer.error;
  assert(problem, `${answer.response.status} is no problem`);
  assert.deepEqual([problem.status, problem.code], [status, code], JSON.stringify(problem));
  assert.equal(answer.response.status, status);
  return problem;
}

/** A response header that must be there. */
export function header(answer: { response: Response }, name: string): string {
  const value = answer.response.headers.get(name);
  assert(value, `the response has no ${name}`);
  return value;
}
