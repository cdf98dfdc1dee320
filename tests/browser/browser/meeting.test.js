/** Two people, one meeting: one speaks by microphone, the other plays a file. Both see who said what, live. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { connected, launch, lines, picture, saidBy, tab, until } from "../lib/browser.js";
import { start, wav } from "../lib/server.js";
import { BECKETT, cut, errors, words } from "../lib/sound.js";

/** @type {Awaited<ReturnType<typeof start>>} */ let server;
/** @type {import("playwright-core").Browser[]} */ const browsers = [];

before(async () => {
  server = await start();
});
after(async () => {
  for (const browser of browsers) await browser.close();
  await server.stop();
});

/** @param {string} [microphone] */
async function browser(microphone) {
  const made = await launch(microphone);
  browsers.push(made);
  return made;
}

/** @param {string} name @param {string} [meeting] */
const address = (name, meeting = "stand-up") => `${server.url}/?meeting=${meeting}&name=${name}#token=${server.token}`;

test("captions of both speakers in both tabs, with latency and health", async () => {
  const ana = await tab(await browser(wav("beckett.wav")), { viewport: { width: 1280, height: 860 }, colorScheme: "light" });
  const ben = await tab(await browser(), { viewport: { width: 390, height: 844 }, colorScheme: "dark" });
  await ana.page.goto(address("Ana"));
  await ben.page.goto(address("Ben"));
  assert.ok(!ana.page.url().includes("token"), "the token does not stay in the address");
  await connected(ana.page);
  await connected(ben.page);
  await picture(ana.page, "empty-light");

  // What was provisional, and what screen readers were told.
  for (const { page } of [ana, ben]) {
    await page.evaluate(() => {
      const seen = { forming: /** @type {string[]} */ ([]), announced: /** @type {string[]} */ ([]), speaking: new Set() };
      Object.assign(window, { seen });
      new MutationObserver(() => {
        for (const span of document.querySelectorAll(".forming")) seen.forming.push(span.textContent ?? "");
        for (const item of document.querySelectorAll('#people [data-speaking="true"] .name')) seen.speaking.add(item.firstChild?.textContent);
      }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
      new MutationObserver((changes) => {
        for (const { addedNodes } of changes) for (const node of addedNodes) seen.announced.push(node.textContent ?? "");
      }).observe(/** @type {Node} */ (document.getElementById("finals")), { childList: true });
    });
  }

  await ana.page.click("#microphone");
  await ana.page.waitForSelector("#microphone[data-on]");
  await ben.page.setInputFiles("#file", cut(wav("two_cities.wav"), 0, 16));
  await ben.page.waitForSelector("#progress", { state: "visible" });
  await until("both speak", () => lines(ana.page), (all) => saidBy(all, "Ana") !== "" && saidBy(all, "Ben") !== "");
  await ana.page.waitForSelector(".forming");
  await picture(ana.page, "two-speakers-light");
  await picture(ben.page, "two-speakers-phone-dark");
  // The file ends by itself; the microphone by hand.
  await ben.page.waitForSelector("#microphone:not([data-on]):not(:disabled)");
  await until("Ana's last words", () => lines(ana.page), (all) => words(saidBy(all, "Ana")).at(-1) === "better");
  const health = await ana.page.$$eval("#stream dd", (cells) => cells.map((cell) => cell.textContent));
  await ana.page.click("#microphone");
  await ana.page.waitForSelector("#microphone:not([data-on]):not(:disabled)");
  await ana.page.waitForSelector('.marker[data-kind="conversation"]');
  await ben.page.waitForSelector('.marker[data-kind="conversation"]');

  const [seenByAna, seenByBen] = [await lines(ana.page), await lines(ben.page)];
  assert.deepEqual(seenByAna, seenByBen, "the same lines in the same order");
  const wrong = errors(BECKETT, saidBy(seenByAna, "Ana"));
  assert.ok(wrong <= 3, `${wrong} of 12 words are wrong: ${saidBy(seenByAna, "Ana")}`);
  assert.match(saidBy(seenByAna, "Ben"), /best of times.*worst of times.*age of wisdom.*epoch of belief/is);

  const [latency, backlog, speed, service] = health;
  assert.match(latency ?? "", /^\d+\.\d\d s/);
  assert.ok(Number.parseFloat(latency ?? "") < 10, `latency ${latency}`);
  assert.match(backlog ?? "", /^\d+(\.\d)? s$/);
  assert.match(speed ?? "", /^\d+(\.\d)?× real time$/);
  assert.equal(service, "Full");
  for (const { page, complaints } of [ana, ben]) {
    const seen = await page.evaluate(() => {
      const { forming, announced, speaking } = /** @type {any} */ (window).seen;
      return { forming, announced, speaking: [...speaking].sort() };
    });
    assert.ok(seen.forming.filter(Boolean).length > 3, "provisional words were shown");
    assert.deepEqual(seen.announced, seenByAna.map(({ who, text }) => `${who}: ${text}`), "finals, each once, are told to screen readers");
    assert.deepEqual(seen.speaking, ["Ana", "Ben"], "who speaks was shown");
    assert.equal(await page.locator(".forming").count(), 0, "nothing is left provisional");
    assert.deepEqual(complaints, []);
  }
});

test("who joins late sees what was said, and the next conversation of the meeting", async () => {
  const [one] = browsers;
  const late = await tab(one, { viewport: { width: 1280, height: 860 }, colorScheme: "dark" });
  const early = await tab(one);
  await early.page.goto(address("Cleo", "later"));
  await connected(early.page);
  for (const round of [1, 2]) {
    await early.page.setInputFiles("#file", cut(wav("beckett.wav"), 0, 6));
    await until(`a line of round ${round}`, () => lines(early.page), (all) => (saidBy(all, "Cleo").match(/ever tried/gi) ?? []).length === round);
    if (round === 1) {
      await late.page.goto(address("Dan", "later"));
      await until("what was said before", () => lines(late.page), (all) => /ever tried/i.test(saidBy(all, "Cleo")));
    }
    await early.page.waitForSelector(`.marker[data-kind="conversation"] >> nth=${round - 1}`);
    await early.page.waitForSelector("#microphone:not([data-on]):not(:disabled)");
  }
  await late.page.waitForSelector(`.marker[data-kind="conversation"] >> nth=1`);
  assert.deepEqual(await lines(late.page), await lines(early.page));
  assert.deepEqual(await late.page.$$eval("#people .name", (all) => all.map((name) => name.textContent)), ["Cleo"], "the same person in both");
  await picture(late.page, "ended-dark");
  assert.deepEqual([...late.complaints, ...early.complaints], []);
});

test("audio that the browser compresses is heard, too", async () => {
  const eve = await tab(browsers[0]);
  await eve.page.goto(address("Eve", "compressed"));
  await connected(eve.page);
  if ((await eve.page.locator("#fold[open]").count()) === 0) await eve.page.click("#fold > summary");
  await eve.page.check("#compress");
  await eve.page.setInputFiles("#file", cut(wav("beckett.wav"), 0, 10));
  await eve.page.waitForSelector("#microphone:not([data-on]):not(:disabled)");
  const all = await until("Eve's words", () => lines(eve.page), (all) => /fail better/i.test(saidBy(all, "Eve")));
  assert.match(saidBy(all, "Eve"), /ever tried.*ever failed/is);
  assert.deepEqual(eve.complaints, []);
});
