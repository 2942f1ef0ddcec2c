import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { exposure, loadSnapshot } from "../lib/backend.mjs";

const STATUS = { status: "ACTIVE", trading: "active", version: "1.0.0", heartbeat: 7, database_connected: true };
const POSITIONS = [
  { id: 1, symbol: "SPY", quantity: 2, entry_price: 500.5 },
  { id: 2, symbol: "AAPL", quantity: 1, entry_price: 187 },
];

/** Serve `answers` (path to [status, body]) and hand the base URL to `use`. */
async function withBackend(answers, use) {
  const server = createServer((request, response) => {
    const [status, body] = answers[request.url] ?? [404, "{}"];
    response.writeHead(status, { "content-type": "application/json" }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await use(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

test("status and positions come from the backend", async () => {
  const answers = {
    "/api/status": [200, JSON.stringify(STATUS)],
    "/api/positions": [200, JSON.stringify(POSITIONS)],
  };
  const snapshot = await withBackend(answers, loadSnapshot);
  assert.deepEqual(snapshot, { status: STATUS, positions: POSITIONS });
});

test("an error of the backend is named", async () => {
  const answers = { "/api/status": [200, JSON.stringify(STATUS)], "/api/positions": [503, "{}"] };
  assert.deepEqual(await withBackend(answers, loadSnapshot), { error: "/api/positions answered 503" });
});

test("a backend that is down is a result", async () => {
  const url = await withBackend({}, async (base) => base);
  assert.ok("error" in (await loadSnapshot(url)));
});

test("exposure adds quantity times entry price", () => {
  assert.equal(exposure(POSITIONS), 1188);
  assert.equal(exposure([]), 0);
});
