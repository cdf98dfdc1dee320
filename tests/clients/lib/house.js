/** A gateway with an app's credentials, and something to say to it. */

import { readFileSync } from "node:fs";

import { start, wav } from "../../browser/lib/server.js";
import { read } from "../../browser/lib/sound.js";

export { BECKETT, errors } from "../../browser/lib/sound.js";

/** As long as web-sdk asks for. */
export const appId = "0a".repeat(32);
export const appSecret = "1b".repeat(64);

/** Nothing a test waits for takes longer, however busy the machine. */
export const PATIENCE = 60_000;

export const open = () => start(["--app-id", appId, "--app-secret", appSecret]);

/** @param {string} url Of a gateway. @returns {Promise<string>} */
export async function token(url) {
  const answer = await fetch(`${url}/oauth2/token:generate`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ type: "application", appId, appSecret }),
  });
  return (await answer.json()).accessToken;
}

/** Real, whatever a test does to the timers of what it tests. */
const { setTimeout } = globalThis;

/** @param {number} ms */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until something is true, and gives it. @template T @param {string} what @param {() => T} look @returns {Promise<NonNullable<T>>} */
export async function until(what, look, patience = PATIENCE) {
  const end = Date.now() + patience;
  for (;;) {
    const value = look();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${patience} ms`);
    await sleep(20);
  }
}

/** What a promise comes to, or an error in good time. @template T @param {string} what @param {Promise<T>} promise @param {number} [patience] @returns {Promise<T>} */
export const within = (what, promise, patience = PATIENCE) =>
  Promise.race([promise, sleep(patience).then(() => Promise.reject(new Error(`${what}: not within ${patience} ms`)))]);

const { rate, data } = read(readFileSync(wav("beckett.wav")));
export const RATE = rate;
/** The recording, in bytes of 16-bit samples. */
export const SOUND = data;

/** Of the project's own, in bytes of 16-bit samples at the same rate. @param {string} name */
export function recording(name) {
  const it = read(readFileSync(new URL(`../../data/${name}`, import.meta.url)));
  if (it.rate !== rate) throw new Error(`${name} has ${it.rate} Hz; ${rate} is wanted`);
  return it.data;
}

/**
 * Says a recording, in 100 ms messages at the pace of speech, up to so many seconds.
 * @param {(message: Buffer) => void} send
 * @param {number} [seconds]
 */
export async function say(send, seconds = Infinity, sound = SOUND) {
  const step = rate / 5;
  const begun = performance.now();
  for (let at = 0; at < Math.min(sound.length, seconds * rate * 2); at += step) {
    send(sound.subarray(at, at + step));
    await sleep(begun + (at / step + 1) * 100 - performance.now());
  }
}
