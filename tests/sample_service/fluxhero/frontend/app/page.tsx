import { exposure, loadSnapshot } from "../lib/backend.mjs";

export const dynamic = "force-dynamic";

export default async function Page() {
  const snapshot = await loadSnapshot(process.env.FLUXHERO_API_URL ?? "http://127.0.0.1:8000");
  if ("error" in snapshot) {
    return (
      <main>
        <h1>FluxHero</h1>
        <p role="alert">Backend unreachable: {snapshot.error}</p>
      </main>
    );
  }
  const { status, positions } = snapshot;
  return (
    <main>
      <h1>FluxHero</h1>
      <p>
        Status <strong id="status">{status.status}</strong>, trading <strong id="trading">{status.trading}</strong>,
        heartbeat <span id="heartbeat">{status.heartbeat}</span>, version {status.version}
      </p>
      <h2>Open positions</h2>
      <table>
        <thead>
          <tr>
            <th>Symbol</th>
            <th>Quantity</th>
            <th>Entry price</th>
          </tr>
        </thead>
        <tbody>
          {positions.map((position) => (
            <tr key={position.id}>
              <td>{position.symbol}</td>
              <td>{position.quantity}</td>
              <td>{position.entry_price.toFixed(2)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p>Exposure at entry prices: {exposure(positions).toFixed(2)}</p>
    </main>
  );
}
