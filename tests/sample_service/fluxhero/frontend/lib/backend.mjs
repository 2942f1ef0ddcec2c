/**
 * @typedef {{status: string, trading: string, version: string, heartbeat: number, database_connected: boolean}} Status
 * @typedef {{id: number, symbol: string, quantity: number, entry_price: number}} Position
 * @typedef {{status: Status, positions: Position[]} | {error: string}} Snapshot
 */

const TIMEOUT_MS = 3000;

/**
 * Fetch what the page shows. A backend that is down or answers nonsense is a result, not an exception.
 *
 * @param {string} baseUrl
 * @param {typeof fetch} request
 * @returns {Promise<Snapshot>}
 */
export async function loadSnapshot(baseUrl, request = fetch) {
  try {
    const [status, positions] = await Promise.all([
      getJson(request, `${baseUrl}/api/status`),
      getJson(request, `${baseUrl}/api/positions`),
    ]);
    return { status, positions };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * @param {typeof fetch} request
 * @param {string} url
 */
async function getJson(request, url) {
  const response = await request(url, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) {
    throw new Error(`${new URL(url).pathname} answered ${response.status}`);
  }
  return response.json();
}

/**
 * Value of the open positions at their entry prices, in currency.
 *
 * @param {Position[]} positions
 */
export function exposure(positions) {
  return positions.reduce((sum, position) => sum + position.quantity * position.entry_price, 0);
}
