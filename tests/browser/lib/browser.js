/** Debian's Chromium, headless, with a recording as microphone. */

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

/** Where tests leave what people may want to look at. */
export const PICTURES = process.env.HEARSAY_PICTURES ?? fileURLToPath(new URL("../../../target/browser/", import.meta.url));

/** Nothing a test waits for takes longer, however busy the machine. */
export const PATIENCE = 90_000;

function executable() {
  const file = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((it) => it && existsSync(it));
  if (!file) throw new Error("there is no Chromium: install it, for instance with `apt-get install chromium`, or name one in CHROMIUM");
  return file;
}

/** @param {string} [wav] What the microphone hears, once. */
export async function launch(wav) {
  await mkdir(PICTURES, { recursive: true });
  const microphone = wav ? [`--use-file-for-fake-audio-capture=${path.resolve(wav)}%noloop`] : [];
  return chromium.launch({
    executablePath: executable(),
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--use-fake-ui-for-media-stream",
      "--use-fake-device-for-media-stream",
      "--autoplay-policy=no-user-gesture-required",
      ...microphone,
    ],
  });
}

/**
 * A tab of its own, as another person would have it. What it complains of is an error of the test.
 * @param {import("playwright-core").Browser} browser
 * @param {import("playwright-core").BrowserContextOptions} [options]
 */
export async function tab(browser, options = {}) {
  const context = await browser.newContext({ permissions: ["microphone", "clipboard-read", "clipboard-write"], ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  /** @type {string[]} */
  const complaints = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(`${error.name}: ${error.message}`));
  return { page, context, complaints };
}

/** Lines on the page: who said them, and what, in order. @param {import("playwright-core").Page} page */
export function lines(page) {
  return page.$$eval("#transcript .turn", (turns) =>
    turns.flatMap((turn) => {
      const who = turn.querySelector(".who")?.textContent ?? "";
      return [...turn.querySelectorAll(".said")].map((said) => ({ who, text: said.textContent ?? "" }));
    }),
  );
}

/** Everything a person said, joined. @param {{ who: string, text: string }[]} all @param {string} who */
export const saidBy = (all, who) => all.filter((line) => line.who === who).map((line) => line.text).join(" ");

/**
 * Waits until something holds, or says what it was last.
 * @template T
 * @param {string} what
 * @param {() => Promise<T>} look
 * @param {(value: T) => boolean} holds
 */
export async function until(what, look, holds, patience = PATIENCE) {
  const end = Date.now() + patience;
  for (;;) {
    const value = await look();
    if (holds(value)) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${patience} ms; last: ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** @param {import("playwright-core").Page} page @param {string} state */
export const connected = (page, state = "live") => page.waitForSelector(`#connection[data-state=${state}]`);

/** @param {import("playwright-core").Page} page @param {string} name */
export const picture = (page, name) => page.screenshot({ path: path.join(PICTURES, `${name}.png`) });
