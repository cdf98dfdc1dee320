/**
 * @symblai/symbl-web-sdk 1.0.10, unchanged, in a page of another origin: only here it meets preflights, and its encoder.
 * What it fetches from its vendor's site, which may be gone, comes from the package of the same name.
 */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

import { launch, tab, until } from "../lib/browser.js";
import { start, wav } from "../lib/server.js";
import { BECKETT, errors } from "../lib/sound.js";
import { serve } from "../lib/static.js";

const ENCODER = path.dirname(createRequire(import.meta.url).resolve("symbl-opus-encdec/package.json"));
const APP = { appId: "0a".repeat(32), appSecret: "1b".repeat(64) };

/** @type {Awaited<ReturnType<typeof start>>} */ let server;
/** @type {Awaited<ReturnType<typeof serve>>} */ let pages;
/** @type {import("playwright-core").Browser} */ let browser;

before(async () => {
  const folder = fileURLToPath(new URL("..", import.meta.url));
  const { outputFiles } = await build({
    stdin: { contents: 'export * from "@symblai/symbl-web-sdk"', resolveDir: folder },
    bundle: true,
    write: false,
    format: "iife",
    globalName: "Sdk",
    define: { global: "globalThis" },
  });
  const script = outputFiles[0].text.replaceAll("</script", "<\\/script");
  server = await start(["--app-id", APP.appId, "--app-secret", APP.appSecret]);
  pages = await serve({ "/": `<!doctype html><title>web-sdk</title><script>${script}</script>` });
  browser = await launch(wav("beckett.wav"));
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await server?.stop();
});

async function open() {
  const { page, context, complaints } = await tab(browser);
  await context.route("https://symbl-sdk-cdn-bucket.storage.googleapis.com/**", (route) => {
    const { pathname } = new URL(route.request().url());
    const [, file] = /\/symbl-opus-encdec\/[^/]+\/(.*)$/.exec(pathname) ?? [];
    const headers = { "access-control-allow-origin": "*" };
    return file ? route.fulfill({ path: path.join(ENCODER, file), headers }) : route.fulfill({ body: "", headers });
  });
  await page.goto(pages.url);
  assert.notEqual(new URL(page.url()).origin, server.url);
  return { page, complaints };
}

test("item 6: preflights of web-sdk's token call and of a page's REST call pass from another origin", async () => {
  const { page, complaints } = await open();
  /** @type {string[]} */ const preflights = [];
  const wire = await page.context().newCDPSession(page);
  await wire.send("Network.enable");
  wire.on("Network.requestWillBeSent", ({ request }) => {
    if (request.method === "OPTIONS") preflights.push(new URL(request.url).pathname);
  });
  const { id, token, messages } = await page.evaluate(
    async ({ app, basePath }) => {
      const { Symbl } = /** @type {any} */ (window).Sdk;
      const symbl = new Symbl({ ...app, basePath, logLevel: "error" });
      const connection = await symbl.createConnection("preflight-1");
      const created = new Promise((resolve) => connection.on("conversation_created", resolve));
      await connection.startProcessing({ config: { encoding: "LINEAR16" }, speaker: { userId: "sam@example.com", name: "Sam" } });
      const { data } = await created;
      const body = JSON.stringify({ type: "application", ...app });
      const answer = await fetch(`${basePath}/oauth2/token:generate`, { method: "POST", headers: { "content-type": "application/json" }, body });
      const { accessToken } = await answer.json();
      const read = await fetch(`${basePath}/v1/conversations/${data.conversationId}/messages`, { headers: { "x-api-key": accessToken } });
      const messages = (await read.json()).messages;
      await connection.stopProcessing();
      return { id: data.conversationId, token: accessToken, messages };
    },
    { app: APP, basePath: server.url },
  );
  assert.match(id, /^\d{16}$/);
  assert.equal(token.split(".").length, 3);
  assert.ok(Array.isArray(messages));
  await until("both preflights", async () => preflights, (all) => all.includes("/oauth2/token:generate") && all.includes(`/v1/conversations/${id}/messages`));
  assert.deepEqual(complaints.filter((text) => !/ScriptProcessorNode is deprecated/.test(text)), []);
});

test("item 23: the Opus packets of web-sdk's own encoder are decoded", async () => {
  const { page } = await open();
  /** @type {{ size: number, ogg: boolean }[]} */ const packets = [];
  page.on("websocket", (socket) =>
    socket.on("framesent", ({ payload }) => {
      if (typeof payload !== "string") packets.push({ size: payload.length, ogg: payload.subarray(0, 4).toString("latin1") === "OggS" });
    }),
  );
  await page.evaluate(
    async ({ accessToken, basePath }) => {
      const { Symbl, OpusAudioStream } = /** @type {any} */ (window).Sdk;
      const symbl = new Symbl({ accessToken, basePath, logLevel: "error" });
      const stream = new OpusAudioStream();
      const connection = await symbl.createConnection("opus-packets-1", stream);
      const said = /** @type {string[]} */ ([]);
      Object.assign(window, { said, connection });
      connection.on("message", (/** @type {any[]} */ messages) => said.push(...messages.map((message) => message.payload.content)));
      await connection.startProcessing({ config: { encoding: "OPUS", sampleRateHertz: 48_000 }, speaker: { userId: "sam@example.com", name: "Sam" } });
    },
    { accessToken: server.token, basePath: server.url },
  );
  const said = () => page.evaluate(() => /** @type {any} */ (window).said.join(" "));
  await until("the last words", said, (text) => /better/i.test(text));
  await page.evaluate(() => /** @type {any} */ (window).connection.stopProcessing());
  assert.ok(errors(BECKETT, await said()) <= 3, await said());
  assert.ok(packets.length > 100 && packets.every(({ size, ogg }) => size < 1_500 && !ogg), "one packet a message");
});
