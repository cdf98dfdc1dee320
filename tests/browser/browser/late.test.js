/** A gateway that cannot read its log: the page says that captions come late, and shows them when they come. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

import { connected, launch, lines, picture, tab, until } from "../lib/browser.js";
import { proxy } from "../lib/proxy.js";
import { start, wav } from "../lib/server.js";
import { cut } from "../lib/sound.js";

/** @type {import("node:child_process").ChildProcess} */ let redis;
/** @type {string} */ let folder;
/** @type {Awaited<ReturnType<typeof proxy>>} */ let link;
/** @type {Awaited<ReturnType<typeof start>>} */ let server;
/** @type {import("playwright-core").Browser} */ let browser;

async function free() {
  const held = net.createServer().listen(0, "127.0.0.1");
  await once(held, "listening");
  const { port } = /** @type {net.AddressInfo} */ (held.address());
  held.close();
  await once(held, "close");
  return port;
}

before(async () => {
  const port = await free();
  folder = await mkdtemp(path.join(tmpdir(), "hearsay-browser-redis-"));
  redis = spawn(process.env.HEARSAY_TEST_REDIS ?? "redis-server", ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder], { stdio: ["ignore", "pipe", "inherit"] });
  let log = "";
  redis.stdout?.setEncoding("utf8").on("data", (text) => (log += text));
  await until("Redis", async () => log, (text) => /Ready to accept connections/.test(text));
  link = await proxy(`http://127.0.0.1:${port}`);
  server = await start(["--redis", link.url.replace("http", "redis")]);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  // It ends in good order only with its log.
  await server?.stop();
  await link?.close();
  redis?.kill();
  await rm(folder, { recursive: true, force: true, maxRetries: 5 });
});

test("captions that come late are said to, and come", async () => {
  const { page } = await tab(browser, { viewport: { width: 1280, height: 860 }, colorScheme: "dark" });
  await page.goto(`${server.url}/?meeting=late&name=Ana#token=${server.token}`);
  await connected(page);
  await page.setInputFiles("#file", cut(wav("two_cities.wav"), 0, 24));
  await until("a line", () => lines(page), (all) => all.length > 0);
  link.cut(15_000);
  await connected(page, "late");
  assert.match((await page.textContent("#connection")) ?? "", /captions late/);
  await picture(page, "late-dark");
  const before = (await lines(page)).length;
  await connected(page);
  await until("what was said meanwhile", () => lines(page), (all) => all.length > before);
  await page.waitForSelector('.marker[data-kind="conversation"]');
});
