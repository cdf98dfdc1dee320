/** A TCP proxy on loopback whose connections a test can cut, and whose door it can shut. */

import { once } from "node:events";
import net from "node:net";

/** @param {string} url Of the server behind it. */
export async function proxy(url) {
  const { hostname, port } = new URL(url);
  /** @type {Set<net.Socket>} */
  const open = new Set();
  /** Those of clients, and what is behind each. @type {Map<net.Socket, net.Socket>} */
  const clients = new Map();
  let shut = false;
  let taken = 0;
  const server = net.createServer((client) => {
    if (shut) return client.destroy();
    taken += 1;
    const upstream = net.connect(Number(port), hostname);
    clients.set(client, upstream);
    client.once("close", () => clients.delete(client));
    for (const [one, other] of [[client, upstream], [upstream, client]]) {
      open.add(one);
      one.setNoDelay(true);
      one.on("error", () => {});
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = /** @type {net.AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${address.port}`,
    /** Connections so far. */
    taken: () => taken,
    /** Breaks every connection without a word; none is let in for so long. @param {number} ms */
    cut(ms) {
      shut = true;
      for (const socket of open) socket.resetAndDestroy();
      setTimeout(() => (shut = false), ms);
    },
    /**
     * Closes every WebSocket with the empty close frame, as a server does that drains: what its client answers, it has no ear
     * for any more. Nothing else may be on its way.
     */
    goodbye() {
      for (const [client, upstream] of clients) {
        client.unpipe(upstream);
        upstream.unpipe(client);
        upstream.removeAllListeners("close");
        open.delete(upstream);
        upstream.resetAndDestroy();
        client.write(Buffer.of(0x88, 0));
        client.once("data", () => client.end());
        client.resume();
      }
    },
    /** Ends every WebSocket as a server does with one that reads too slowly. Nothing else may be on its way. */
    evict() {
      const error = { type: "message", message: { type: "error", code: "slow_reader", details: "this connection reads too slowly" } };
      const told = Buffer.from(JSON.stringify(error));
      const reason = Buffer.concat([Buffer.of(0x03, 0xf0), Buffer.from("slow_reader since=00000000:0")]);
      for (const [client, upstream] of clients) {
        client.unpipe(upstream);
        upstream.unpipe(client);
        upstream.removeAllListeners("close");
        open.delete(upstream);
        upstream.resetAndDestroy();
        client.write(Buffer.concat([Buffer.of(0x81, 126, told.length >> 8, told.length & 0xff), told, Buffer.of(0x88, reason.length), reason]));
        client.once("data", () => client.end());
        client.resume();
      }
    },
    /** Nothing passes any more, and nobody is told: what a lost network looks like. */
    freeze() {
      for (const socket of open) {
        socket.unpipe();
        socket.pause();
      }
    },
    async close() {
      shut = true;
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
