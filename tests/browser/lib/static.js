/** Pages from elsewhere: another origin than the gateway's. */

import { once } from "node:events";
import http from "node:http";

/** @param {Record<string, string>} pages Bodies by path. */
export async function serve(pages) {
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://x");
    // Browsers ask for an icon unasked.
    if (pathname === "/favicon.ico") return response.writeHead(204).end();
    const body = pages[pathname];
    response.writeHead(body === undefined ? 404 : 200, { "content-type": "text/html; charset=utf-8" });
    response.end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://localhost:${port}`,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
