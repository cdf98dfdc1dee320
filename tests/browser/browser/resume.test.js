/** A network that breaks: nothing is lost, nothing comes twice, and the page says what happened. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { connected, launch, lines, picture, saidBy, tab, until } from "../lib/browser.js";
import { proxy } from "../lib/proxy.js";
import { start, wav } from "../lib/server.js";
import { cut, errors } from "../lib/sound.js";

/** @type {Awaited<ReturnType<typeof start>>} */ let server;
/** @type {Awaited<ReturnType<typeof proxy>>} */ let network;
/** @type {import("playwright-core").Browser} */ let browser;

before(async () => {
  server = await start();
  network = await proxy(server.url);
  browser = await launch();
});
after(async () => {
  await browser.close();
  await network.close();
  await server.stop();
});

/** @param {string} base @param {string} name @param {string} meeting @param {object} [options] */
async function join(base, name, meeting, options) {
  const one = await tab(browser, options);
  await one.page.goto(`${base}/?meeting=${meeting}&name=${name}#token=${server.token}`);
  await connected(one.page);
  return one;
}

/** Ids of all sentences a page was given, in order, repeats too. @param {import("playwright-core").Page} page */
const markers = (page) => page.$$eval(".marker", (all) => all.map((marker) => `${/** @type {HTMLElement} */ (marker).dataset.kind}: ${marker.textContent}`));

test("a listener whose connection is cut twice sees each line once, and is told", async () => {
  const speaker = await join(server.url, "Ana", "cut");
  const whole = await join(server.url, "Whole", "cut");
  const cutting = await join(network.url, "Cut", "cut", { viewport: { width: 1280, height: 860 } });
  await speaker.page.setInputFiles("#file", cut(wav("two_cities.wav"), 0, 30));
  for (const count of [1, 2]) {
    const before = (await lines(whole.page)).length;
    await until("lines before", () => lines(cutting.page), (all) => all.length > before);
    network.cut(2_000);
    await connected(cutting.page, "waiting");
    if (count === 1) await picture(cutting.page, "reconnecting-light");
    await until("the return is shown", () => markers(cutting.page), (all) => all.filter((text) => /^back: Back after \d/.test(text)).length === count);
    await connected(cutting.page);
  }
  await picture(cutting.page, "resumed-light");
  for (const { page } of [whole, cutting]) await page.waitForSelector('.marker[data-kind="conversation"]');
  const all = await lines(whole.page);
  assert.ok(all.length >= 8, `${all.length} lines`);
  assert.deepEqual(await lines(cutting.page), all, "no line lost, none twice, in the same order");
  assert.ok(!(await markers(cutting.page)).some((text) => text.startsWith("gap")), "nothing is said to be missing");
});

test("a speaker whose connection is cut goes on: every word once", async () => {
  const whole = await join(server.url, "Whole", "speak");
  // What is said without any trouble is the measure.
  const recording = cut(wav("two_cities.wav"), 0, 24);
  const calm = await join(server.url, "Calm", "calm");
  await calm.page.setInputFiles("#file", recording);
  await calm.page.waitForSelector('.marker[data-kind="conversation"]');
  const wanted = saidBy(await lines(calm.page), "Calm");

  const speaker = await join(network.url, "Ana", "speak", { viewport: { width: 1280, height: 860 }, colorScheme: "dark" });
  await speaker.page.setInputFiles("#file", recording);
  for (const enough of [2, 5]) {
    await until("lines before", () => lines(whole.page), (all) => all.length >= enough);
    network.cut(2_500);
    await connected(speaker.page, "waiting");
    await connected(speaker.page);
    await until("the stream goes on", () => speaker.page.textContent("#notice"), (text) => /^Your stream goes on/.test(text ?? ""));
  }
  await picture(speaker.page, "speaker-resumed-dark");
  await whole.page.waitForSelector('.marker[data-kind="conversation"]');
  const got = saidBy(await lines(whole.page), "Ana");
  assert.equal(errors(wanted, got), 0, `said without trouble: ${wanted}\nwith: ${got}`);
  await speaker.page.waitForSelector('.marker[data-kind="conversation"]');
  assert.deepEqual(await lines(speaker.page), await lines(whole.page));
});

test("a connection that is dead and does not say so is noticed", async () => {
  const speaker = await join(server.url, "Ana", "frozen");
  const frozen = await join(network.url, "Frozen", "frozen");
  await speaker.page.setInputFiles("#file", cut(wav("two_cities.wav"), 0, 30));
  await until("a line", () => lines(frozen.page), (all) => all.length > 0);
  network.freeze();
  await frozen.page.waitForSelector('.marker[data-kind="back"]');
  for (const { page } of [speaker, frozen]) await page.waitForSelector('.marker[data-kind="conversation"]');
  assert.deepEqual(await lines(frozen.page), await lines(speaker.page));
});

test("a listener that was away at the end reads the rest", async () => {
  const speaker = await join(server.url, "Ana", "away");
  const away = await join(network.url, "Away", "away");
  await speaker.page.setInputFiles("#file", cut(wav("beckett.wav"), 0, 10));
  await until("a line", () => lines(away.page), (all) => all.length > 0);
  network.cut(20_000);
  await speaker.page.waitForSelector('.marker[data-kind="conversation"]');
  await away.page.waitForSelector('.marker[data-kind="conversation"]');
  assert.deepEqual(await lines(away.page), await lines(speaker.page));
  assert.ok((await markers(away.page)).some((text) => text.includes("read again")));
});

test("a page that was too slow to read keeps its meeting", async () => {
  const speaker = await join(server.url, "Ana", "slow");
  const slow = await join(network.url, "Slow", "slow");
  await speaker.page.setInputFiles("#file", cut(wav("two_cities.wav"), 0, 16));
  await until("a line", () => lines(slow.page), (all) => all.length > 0);
  network.evict();
  await slow.page.waitForSelector('.marker[data-kind="back"]');
  await until("that nothing is missing", () => markers(slow.page), (all) => all.some((text) => text.endsWith("nothing missed, nothing twice.")));
  for (const { page } of [speaker, slow]) await page.waitForSelector('.marker[data-kind="conversation"]');
  assert.deepEqual(await lines(slow.page), await lines(speaker.page));
  assert.equal(await slow.page.getAttribute("body", "data-view"), "meeting");
});

for (const compress of [false, true]) {
  test(`where the server begins a new stream, what is said next is heard${compress ? ", compressed by the browser" : ""}`, async () => {
    const name = compress ? "Eve" : "Ada";
    const speaker = await tab(browser, { viewport: { width: 1280, height: 860 } });
    // A token that is none: the server has no stream for it.
    await speaker.page.addInitScript(() => {
      const { send } = WebSocket.prototype;
      WebSocket.prototype.send = function (/** @type {any} */ data) {
        send.call(this, typeof data === "string" ? data.replace(/"resume":"[^"]*"/, '"resume":"spoilt"') : data);
      };
    });
    await speaker.page.goto(`${network.url}/?meeting=anew-${compress}&name=${name}#token=${server.token}`);
    await connected(speaker.page);
    if (compress) await speaker.page.check("#compress");
    await speaker.page.setInputFiles("#file", cut(wav("two_cities.wav"), 0, 24));
    await until("lines before", () => lines(speaker.page), (all) => all.length >= 2);
    network.cut(500);
    await until("the new stream", () => speaker.page.textContent("#notice"), (text) => /^Your stream began anew/.test(text ?? ""));
    const before = (await lines(speaker.page)).length;
    await until("lines behind", () => lines(speaker.page), (all) => all.length >= before + 2);
    await speaker.page.click("#microphone");
    await speaker.page.waitForSelector("#microphone:not([data-on]):not(:disabled)");
  });
}
