/** What was understood stands beside what was said, on every page, and leads to its words. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { connected, launch, lines, picture, saidBy, tab, until } from "../lib/browser.js";
import { start } from "../lib/server.js";
import { again } from "../lib/sound.js";

/** @type {Awaited<ReturnType<typeof start>>} */ let server;
/** @type {import("playwright-core").Browser} */ let browser;

before(async () => {
  server = await start();
  browser = await launch();
});
after(async () => {
  await browser.close();
  await server.stop();
});

const sound = (/** @type {string} */ name) => fileURLToPath(new URL(`../../data/stand-up/${name}.wav`, import.meta.url));

/** @param {string} name @param {import("playwright-core").BrowserContextOptions} [options] */
async function join(name, options = {}) {
  const one = await tab(browser, { viewport: { width: 1280, height: 900 }, ...options });
  await one.page.goto(`${server.url}/?meeting=stand-up&name=${name}#token=${server.token}`);
  await connected(one.page);
  return one;
}

/** What a page lists, in the order of the log: kind, words, who and by when. @param {import("playwright-core").Page} page */
const understood = (page) =>
  page.$$eval("#insights li", (items) =>
    items.map((item) => [".kind", ".what", ".facts"].map((part) => item.querySelector(part)?.textContent ?? "")).reverse(),
  );

test("questions, tasks and watched words are listed, lead to their words, and are there for who joins late", async () => {
  const [maya, daniel] = [await join("Maya"), await join("Daniel", { colorScheme: "dark" })];
  await maya.page.fill("#watch", "mobile app, nobody says this");
  await maya.page.locator("#watch").blur();
  await daniel.page.setInputFiles("#file", sound("daniel"));
  await until("Daniel's promise", () => lines(maya.page), (all) => /fix ready by thursday/i.test(saidBy(all, "Daniel")));
  await maya.page.setInputFiles("#file", sound("maya"));
  const all = await until("what Maya's words mean", () => understood(maya.page), (all) =>
    all.some(([kind, words]) => kind === "Question" && /mobile app/i.test(words)) &&
    all.some(([kind, words]) => kind === "To do" && /end of this week/i.test(words)) &&
    all.some(([kind]) => kind === "Watched"));
  const promise = all.find(([kind, words]) => kind === "To do" && /fix ready/i.test(words));
  assert.match(promise?.[2] ?? "", /^Daniel · by Thu/, "who and by when");
  assert.match(all.find(([, words]) => /end of this week/i.test(words))?.[2] ?? "", /^Daniel/, "who is asked by name");
  assert.ok(!all.some(([, words]) => words === "nobody says this"));

  // Its words are marked, and shown when asked for.
  await maya.page.click('#insights li[data-kind="question"] button');
  const lit = await until("lit words", () => maya.page.$$eval("mark[data-lit]", (marks) => marks.map((mark) => mark.textContent).join("")), Boolean);
  assert.match(lit, /where are we with the mobile app/i);
  assert.ok(await maya.page.$eval("mark[data-lit]", (mark) => mark.getBoundingClientRect().top > 0 && mark.getBoundingClientRect().bottom < innerHeight));
  await picture(maya.page, "insights-light");

  const late = await join("Olivia");
  await until("what was understood before", () => understood(late.page), (seen) => seen.length >= all.length);
  await until("the same marks", () => late.page.$$eval("mark", (marks) => marks.map((mark) => mark.textContent)), (marks) => marks.length > 2);

  // Told every five seconds at most.
  await until("talk times", () => daniel.page.$$eval("#people .talked", (all) => all.map((it) => it.textContent ?? "")), (all) => all.filter((it) => /^\d:\d\d$/.test(it)).length === 2);
  assert.match((await daniel.page.getAttribute("#shares", "aria-label")) ?? "", /^Talk time: .*Daniel \d+ %/);
  await picture(daniel.page, "insights-dark");

  for (const { page } of [maya, daniel, late]) await page.waitForSelector('.marker[data-kind="conversation"]');
  assert.deepEqual(await understood(daniel.page), await understood(maya.page), "the same list, in the same order");
  await daniel.page.waitForSelector("#microphone:not([data-on]):not(:disabled)");

  // Who returns is known, with what was left to do.
  await daniel.page.setInputFiles("#file", sound("daniel"));
  await maya.page.waitForSelector(".earlier");
  await maya.page.click(".earlier summary");
  assert.match((await maya.page.textContent(".earlier")) ?? "", /fix ready by Thursday.*Daniel · by Thu/is);
  await picture(maya.page, "returning-light");
  for (const { complaints } of [maya, daniel, late]) assert.deepEqual(complaints, []);
});

test("what a conversation keeps coming back to is drawn along its time, and leads to its words", async () => {
  const all = [];
  for (const name of ["Maya", "Daniel", "Olivia"]) {
    const one = await tab(browser, { viewport: { width: 1280, height: 900 } });
    await one.page.goto(`${server.url}/?meeting=topics&name=${name}#token=${server.token}`);
    await connected(one.page);
    all.push(one);
  }
  const [maya] = all;
  // Enough sentences that topics are looked for before the end.
  for (const { page } of all) await page.setInputFiles("#file", again(sound("maya"), 2));
  /** Each topic, and how many strokes its line has. */
  const topics = () =>
    maya.page.$$eval("#topics .topic", (buttons) =>
      buttons.map((button) => ({ what: button.querySelector(".what")?.textContent ?? "", strokes: button.querySelectorAll(".strip i").length, name: button.textContent })),
    );
  const [topic] = await until("a topic", topics, (found) => found.some(({ strokes }) => strokes >= 3));
  assert.equal(topic.name, `${topic.what}, mentioned ${topic.strokes} times`, "read out, too");
  const places = await maya.page.$$eval("#topics .strip i", (strokes) => strokes.map((stroke) => Number(/** @type {HTMLElement} */ (stroke).style.getPropertyValue("--at"))));
  assert.ok(places.every((at) => at >= 0 && at <= 1), `${places}`);
  await picture(maya.page, "topics-light");
  await maya.page.click("#topics button");
  const lit = () => maya.page.$$eval("mark[data-lit]", (marks) => marks.map((mark) => mark.textContent?.toLowerCase()));
  assert.ok((await until("lit words", lit, (words) => words.length > 0)).every((words) => words?.includes(topic.what.toLowerCase().slice(0, 4))));
  for (const { page, complaints } of all) {
    await page.waitForSelector('.marker[data-kind="conversation"]');
    assert.deepEqual(complaints, []);
  }
});
