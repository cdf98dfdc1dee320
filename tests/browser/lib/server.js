/** A `hearsay dev` of its own on a free port, and the recordings the project's commands fetch. */

import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { once } from "node:events";
import { homedir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
/** Machines that run tests are busy. */
const READY_MS = 120_000;
const END_MS = 60_000;

function binary() {
  const target = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target");
  const file = process.env.HEARSAY_BIN ?? path.join(target, "debug/hearsay");
  if (!existsSync(file)) throw new Error(`there is no ${file}: build it with \`cargo build --package hearsay\`, or name another in HEARSAY_BIN`);
  return file;
}

/** The folder that holds the recordings. */
export function recordings() {
  const cache = process.env.HEARSAY_CACHE ?? path.join(process.env.XDG_CACHE_HOME ?? path.join(homedir(), ".cache"), "hearsay");
  for (const folder of [cache, path.join(cache, "models"), path.join(cache, "models/models")]) {
    const found = existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith("recordings-")).sort().at(-1) : undefined;
    if (found) return path.join(folder, found);
  }
  throw new Error(`there are no recordings in ${cache}: \`cargo xtask test\` fetches them, or name the folder in HEARSAY_CACHE`);
}

/** @param {string} name */
export const wav = (name) => path.join(recordings(), name);

/**
 * @param {string[]} [more] Arguments.
 * @param {Record<string, string>} [env]
 */
export async function start(more = [], env = {}) {
  const child = spawn(binary(), ["dev", "--listen", "127.0.0.1:0", ...more], { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (log += text));
  const ended = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async (/** @type {string} */ what) => {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no line \`${what}\` within ${READY_MS} ms; its log:\n${log}`)), READY_MS);
    });
    try {
      const { value = "" } = await Promise.race([lines.next(), late]);
      if (!value.startsWith(`${what} `)) throw new Error(`expected \`${what} …\`, got ${JSON.stringify(value)}; its log:\n${log}`);
      return value.slice(what.length + 1);
    } finally {
      clearTimeout(timer);
    }
  };
  try {
    const url = await line("ready");
    const token = await line("token");
    return {
      url,
      token,
      log: () => log,
      /** Ends it in good order; its log may hold no error. */
      async stop() {
        child.kill("SIGTERM");
        const timer = setTimeout(() => child.kill("SIGKILL"), END_MS);
        const [code] = await ended;
        clearTimeout(timer);
        if (code !== 0) throw new Error(`hearsay dev ended with ${code}; its log:\n${log}`);
        if (/\bERROR\b/.test(log)) throw new Error(`hearsay dev logged an error:\n${log}`);
      },
    };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
}
