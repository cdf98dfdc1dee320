/** Published browser code, unmodified but for the host; and the same with one line changed, on a bad network. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { launch, tab, until } from "../lib/browser.js";
import { proxy } from "../lib/proxy.js";
import { start, wav } from "../lib/server.js";
import { BECKETT, errors } from "../lib/sound.js";
import { serve } from "../lib/static.js";

const SNIPPET = readFileSync(new URL("../../../examples/browser-snippet.html", import.meta.url), "utf8");

/** @type {Awaited<ReturnType<typeof start>>} */ let server;
/** @type {Awaited<ReturnType<typeof proxy>>} */ let network;
/** @type {Awaited<ReturnType<typeof serve>>} */ let pages;
/** @type {import("playwright-core").Browser[]} */ const browsers = [];

before(async () => {
  server = await start();
  network = await proxy(server.url);
  const line = "const ws = new WebSocket(symblEndpoint);";
  assert.equal(SNIPPET.split(line).length, 2, "the line that changes is there once");
  const changed = SNIPPET.replace("<script>", '<script type="module">').replace(
    line,
    `const { HearsaySocket } = await import(\`http://\${host}/hearsay.js\`); ${line.replace("WebSocket", "HearsaySocket")}`,
  );
  pages = await serve({ "/snippet.html": SNIPPET, "/changed.html": changed });
});
after(async () => {
  for (const browser of browsers) await browser.close();
  await pages.close();
  await network.close();
  await server.stop();
});

/** Runs a page with the recording as microphone. @param {string} page @param {string} host @param {string} user @param {number} rate */
async function run(page, host, user, rate) {
  const browser = await launch(wav("beckett.wav"));
  browsers.push(browser);
  const { page: one, complaints } = await tab(browser);
  /** @type {string[]} */ const printed = [];
  /** @type {number[]} */ const sizes = [];
  /** @type {string[]} */ const urls = [];
  one.on("console", (message) => printed.push(message.text()));
  one.on("websocket", (socket) => {
    urls.push(socket.url());
    socket.on("framesent", ({ payload }) => {
      if (typeof payload !== "string") sizes.push(payload.length);
    });
  });
  const parameters = new URLSearchParams({ host, user, rate: String(rate) });
  await one.goto(`${pages.url}/${page}?${parameters}#${server.token}`);
  await one.click("#start");
  const sentences = () => printed.filter((line) => line.startsWith("Transcript (more accurate):")).map((line) => line.split(": ").slice(1).join(" ").trim());
  return { one, printed, sizes, urls, sentences, complaints };
}

for (const rate of [44_100, 48_000]) {
  test(`the snippet runs unmodified at ${rate} Hz`, async () => {
    const { one, printed, sizes, urls, sentences, complaints } = await run("snippet.html", server.url.slice(7), `user@example.com${"!".repeat(rate === 44_100 ? 0 : 3)}`, rate);
    await until("the sentences", async () => sentences().join(" "), (text) => /better/i.test(text));
    await one.evaluate(() => /** @type {any} */ (window).ws.send(JSON.stringify({ type: "stop_request" })));
    await until("the close", async () => printed, (all) => all.some((line) => line.startsWith("Connection to websocket closed")));
    assert.match(urls[0], /\/v1\/realtime\/insights\/[A-Za-z0-9+/]+=+\?access_token=/, "a padded id, as btoa gives it");
    assert.deepEqual([...new Set(sizes)], [2_048]);
    const ids = printed.filter((line) => line.startsWith("conversationId"));
    assert.ok(ids.length >= 2 && ids.every((line) => /^conversationId \d{16}$/.test(line)), `${ids}`);
    assert.ok(printed.some((line) => line.startsWith("Live transcript (less accurate):")), "live captions");
    const wrong = errors(BECKETT, sentences().join(" "));
    assert.ok(wrong <= 3, `${wrong} of 12 words are wrong: ${sentences()}`);
    assert.equal(printed.at(-1), "Connection to websocket closed 1000");
    // The browser says that ScriptProcessor is old; nothing else.
    assert.deepEqual(complaints.filter((text) => !/ScriptProcessorNode is deprecated/.test(text)), []);
    const conversation = await fetch(`${server.url}/v1/conversations/${ids[0].split(" ")[1]}`, { headers: { "x-api-key": server.token } });
    assert.equal((await conversation.json()).name, "Websockets How-to", "the title at the top level counts");
  });
}

test("with one line changed it outlives a broken connection", async () => {
  const { one, printed, urls, sentences } = await run("changed.html", network.url.slice(7), "other@example.com", 48_000);
  await until("a sentence", async () => sentences(), (all) => all.length > 0);
  network.cut(1_500);
  await until("the return", async () => urls.length, (count) => count > 1);
  await until("the sentences", async () => sentences().join(" "), (text) => /better/i.test(text));
  await one.evaluate(() => /** @type {any} */ (window).ws.send(JSON.stringify({ type: "stop_request" })));
  await until("the close", async () => printed, (all) => all.some((line) => line.startsWith("Connection to websocket closed")));
  const wrong = errors(BECKETT, sentences().join(" "));
  assert.ok(wrong <= 3, `${wrong} of 12 words are wrong: ${sentences()}`);
  assert.ok(printed.some((line) => line === "Connection to websocket closed 1000"));
  assert.equal(printed.filter((line) => line.startsWith("Connection to websocket closed")).length, 1, "one end, not two");
});
