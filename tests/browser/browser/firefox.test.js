/** The same page in Firefox: another engine's sockets, worklets, decoders and styles. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { until } from "../lib/browser.js";
import { firefox } from "../lib/firefox.js";
import { proxy } from "../lib/proxy.js";
import { start, wav } from "../lib/server.js";
import { cut, errors, BECKETT } from "../lib/sound.js";

/** @type {Awaited<ReturnType<typeof start>>} */ let server;
/** @type {Awaited<ReturnType<typeof proxy>>} */ let network;
/** @type {Awaited<ReturnType<typeof firefox>>} */ let browser;

before(async () => {
  server = await start();
  network = await proxy(server.url);
  browser = await firefox();
});
after(async () => {
  await browser?.close();
  await network.close();
  await server.stop();
});

const LINES = `[...document.querySelectorAll("#transcript .said")].map((said) => said.textContent)`;

test("a file played as if spoken becomes captions", async () => {
  assert.match(await browser.version(), /Firefox/);
  await browser.goto(`${server.url}/?meeting=fox&name=Fay#token=${server.token}`);
  await until("live", () => browser.json("document.querySelector('#connection').dataset.state"), (state) => state === "live");
  assert.equal(await browser.json("location.hash"), "");
  await browser.json(`(() => {
    window.forming = 0;
    new MutationObserver(() => (window.forming += document.querySelectorAll(".forming").length)).observe(document.body, { subtree: true, childList: true, characterData: true });
  })() ?? null`);
  await browser.setFile("#file", cut(wav("beckett.wav"), 0, 10));
  await until("a line", () => browser.json(LINES), (lines) => lines.length > 0);
  await browser.picture("firefox");
  await until("its end", () => browser.json(`[...document.querySelectorAll(".marker")].map((marker) => marker.dataset.kind)`), (kinds) => kinds.includes("conversation"));
  const said = (await browser.json(LINES)).join(" ");
  assert.ok(errors(BECKETT, said) <= 3, said);
  assert.ok((await browser.json("window.forming")) > 0, "provisional words were shown");
  assert.match(await browser.json("document.querySelector('#latency').textContent"), /^\d+\.\d\d s/);
  assert.deepEqual(browser.complaints, []);
});

test("the microphone speaks, is muted, and stops", async () => {
  // The recording's own end is told a moment before its stream is done with.
  await until("silence before", () => browser.json(`document.querySelector("#microphone").matches(":not([data-on], :disabled)")`), Boolean);
  await browser.click("#microphone");
  const on = () => browser.json("document.querySelector('#microphone').hasAttribute('data-on')");
  await until("the microphone", on, Boolean);
  // Firefox's own fake microphone is a tone: what is heard of it is its level, and that the log comes to cover it.
  await until("its level", () => browser.json("Number(document.querySelector('#level').style.getPropertyValue('--peak'))"), (peak) => peak > 0);
  await until("health", () => browser.json("document.querySelector('#ladder').textContent"), (ladder) => ladder === "Full");
  await browser.click("#mute");
  assert.equal(await browser.json("document.querySelector('#mute').getAttribute('aria-pressed')"), "true");
  await browser.click("#microphone");
  await until("silence", on, (is) => !is);
  assert.deepEqual(browser.complaints, []);
});

test("two people see who said what, also one whose connection breaks", async () => {
  const gil = await browser.tab();
  const kinds = `[...document.querySelectorAll(".marker")].map((marker) => marker.dataset.kind)`;
  const all = `[...document.querySelectorAll("#transcript .turn")].flatMap((turn) => [...turn.querySelectorAll(".said")].map((said) => turn.querySelector(".who").textContent + ": " + said.textContent))`;
  for (const [page, url, name] of /** @type {const} */ ([[browser, server.url, "Fay"], [gil, network.url, "Gil"]])) {
    await page.goto(`${url}/?meeting=two&name=${name}#token=${server.token}`);
    await until("live", () => page.json("document.querySelector('#connection').dataset.state"), (state) => state === "live");
  }
  await browser.setFile("#file", cut(wav("beckett.wav"), 0, 10));
  await gil.setFile("#file", cut(wav("two_cities.wav"), 0, 16));
  await until("both", () => gil.json(all), (lines) => ["Fay", "Gil"].every((name) => lines.some((/** @type {string} */ line) => line.startsWith(name))));
  network.cut(1_500);
  await until("the return", () => gil.json(kinds), (seen) => seen.includes("back"));
  for (const page of [browser, gil]) await until("the end", () => page.json(kinds), (seen) => seen.includes("conversation"));
  const [fays, gils] = [await browser.json(all), await gil.json(all)];
  assert.deepEqual(gils, fays, "the same lines in the same order, none lost and none twice");
  assert.match(fays.filter((/** @type {string} */ line) => line.startsWith("Gil")).join(" "), /best of times.*worst of times.*age of wisdom.*epoch of belief/is);
  await gil.picture("firefox-resumed");
});
