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
