/** Ways in, links for others, and whether everybody can use the page. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { connected, launch, lines, picture, saidBy, tab, until } from "../lib/browser.js";
import { start, wav } from "../lib/server.js";
import { cut } from "../lib/sound.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const APP = { id: "a".repeat(64), secret: "s".repeat(128) };

/** @type {Awaited<ReturnType<typeof start>>} */ let server;
/** @type {import("playwright-core").Browser} */ let browser;

before(async () => {
  server = await start(["--app-id", APP.id, "--app-secret", APP.secret]);
  browser = await launch();
});
after(async () => {
  await browser.close();
  await server.stop();
});

/** What axe finds wrong, as sentences. @param {import("playwright-core").Page} page */
async function violations(page) {
  // Colours in the middle of a fade are not those people read.
  await page.emulateMedia({ reducedMotion: "reduce" });
  await page.evaluate(AXE);
  const found = await page.evaluate(() => /** @type {any} */ (window).axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map((/** @type {any} */ rule) => `${rule.id}: ${rule.help}: ${rule.nodes.map((/** @type {any} */ node) => `${node.target} (${node.failureSummary})`).join("; ")}`);
}

test("credentials, a wrong token, and a token let in whom they should", async () => {
  const { page, complaints } = await tab(browser);
  await page.goto(`${server.url}/?meeting=door`);
  await page.click("button[type=submit]");
  assert.match((await page.textContent("#join-error")) ?? "", /your name/);
  assert.equal(await page.evaluate(() => document.activeElement?.id), "join-name", "the field to mend has the focus");
  await page.fill("#join-name", "Ana");
  await page.click("button[type=submit]");
  assert.match((await page.textContent("#join-error")) ?? "", /token/);
  await page.click("#join-access summary");
  await page.fill("#join-app-id", APP.id);
  await page.fill("#join-app-secret", "wrong");
  await page.click("button[type=submit]");
  await until("the refusal", () => page.textContent("#join-error"), (text) => /gave no token/.test(text ?? ""));
  assert.deepEqual(complaints.filter((text) => !/status of 401/.test(text)), []);
  await page.fill("#join-app-secret", APP.secret);
  await page.click("button[type=submit]");
  await connected(page);
  assert.match(page.url(), /\?meeting=door&name=Ana$/, "no token in the address");
  await page.reload();
  await connected(page);

  const other = await tab(browser);
  await other.page.goto(`${server.url}/?meeting=door&name=Eve#token=e30.e30.x`);
  await until("the refusal", () => other.page.textContent("#join-error"), (text) => /refused the token/.test(text ?? ""));
  await other.page.waitForSelector("#join-token", { state: "visible" });
});

test("the link for the next participant opens this meeting and nothing else", async () => {
  const { page, complaints } = await tab(browser);
  await page.goto(`${server.url}/?meeting=guests&name=Ana#token=${server.token}`);
  await connected(page);
  await page.click("#invite");
  await until("the notice", () => page.textContent("#notice"), (text) => /link is copied/.test(text ?? ""));
  const link = new URL(await page.evaluate(() => navigator.clipboard.readText()));
  assert.equal(link.search, "?meeting=guests");
  assert.ok(!link.href.includes(server.token), "never this page's own token");
  const token = new URLSearchParams(link.hash.slice(1)).get("token");
  assert.ok(token, `no token for the guest: ${await page.textContent("#notice")}`);
  const guest = await tab(browser);
  await guest.page.goto(link.href);
  await guest.page.fill("#join-name", "Ben");
  await guest.page.press("#join-name", "Enter");
  await connected(guest.page);
  await guest.page.setInputFiles("#file", cut(wav("beckett.wav"), 0, 5));
  await until("the guest's words", () => lines(page), (all) => /ever tried/i.test(saidBy(all, "Ben")));
  // Of another meeting the link opens nothing.
  const elsewhere = await tab(browser);
  await elsewhere.page.goto(`${server.url}/?meeting=secret&name=Ben${link.hash}`);
  await until("the refusal", () => elsewhere.page.textContent("#connection"), (text) => text?.trim() !== "Live");
  assert.deepEqual([...complaints, ...guest.complaints], []);
});

test("a server that gives out no guest tokens is said to, and the link holds none", async () => {
  const { page, context } = await tab(browser);
  await context.route("**/oauth2/token:generate", (route) => route.fulfill({ status: 501, json: { message: "not in this version" } }));
  await page.goto(`${server.url}/?meeting=guests&name=Ana#token=${server.token}`);
  await connected(page);
  await page.click("#invite");
  await until("the notice", () => page.textContent("#notice"), (text) => /without a token.*not in this version.*asked for one/.test(text ?? ""));
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(link, `${server.url}/?meeting=guests`);
});

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const [size, viewport] of /** @type {const} */ ([["wide", { width: 1440, height: 900 }], ["phone", { width: 360, height: 740 }]])) {
    test(`nothing keeps people out: ${colorScheme}, ${size}`, async () => {
      const { page, complaints } = await tab(browser, { colorScheme, viewport, reducedMotion: "reduce" });
      await page.goto(server.url);
      assert.deepEqual(await violations(page), []);
      await picture(page, `join-${size}-${colorScheme}`);
      await page.goto(`${server.url}/?meeting=All%20hands%2C%20third%20quarter&name=Ana#token=${server.token}`);
      await connected(page);
      assert.deepEqual(await violations(page), []);
      await page.setInputFiles("#file", cut(wav("two_cities.wav"), 0, 11));
      await until("words", () => lines(page), (all) => all.length >= 2);
      await page.waitForSelector(".forming");
      assert.deepEqual(await violations(page), []);
      await picture(page, `meeting-${size}-${colorScheme}`);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overflow, 0, "nothing sticks out to the side");
      await page.waitForSelector('.marker[data-kind="conversation"]');
      assert.deepEqual(await violations(page), []);
      assert.deepEqual(complaints, []);
    });
  }
}

test("everything works by keyboard alone, and the focus is seen", async () => {
  const { page } = await tab(browser, { viewport: { width: 1280, height: 860 } });
  await page.goto(`${server.url}/?meeting=keys#token=${server.token}`);
  assert.equal(await page.evaluate(() => document.activeElement?.id), "join-name");
  await page.keyboard.type("Ana");
  await page.keyboard.press("Enter");
  await connected(page);
  const reached = new Set();
  for (let presses = 0; presses < 14; presses += 1) {
    const { id, outline } = await page.evaluate(() => {
      const at = /** @type {HTMLElement} */ (document.activeElement);
      const shown = at.closest("label.button") ?? at;
      return { id: at.id || at.className, outline: getComputedStyle(shown).outlineStyle };
    });
    reached.add(id);
    if (id && !["", "BODY"].includes(id)) assert.notEqual(outline, "none", `the focus on ${id} is seen`);
    await page.keyboard.press("Tab");
  }
  for (const id of ["microphone", "file", "invite", "leave", "skip", "audible", "compress"]) assert.ok(reached.has(id), `${id} of ${[...reached]}`);
});
