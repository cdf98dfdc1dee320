/**
 * Debian's Firefox, headless, by WebDriver BiDi, which it speaks itself. Without a sound card its audio clock stands still, so
 * it is given one that plays into nothing: a PulseAudio of its own.
 */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { once } from "node:events";
import { tmpdir } from "node:os";
import path from "node:path";

import { PATIENCE, PICTURES } from "./browser.js";

/** A fake microphone without a question, sound without a click, and nothing asked of anybody's servers. */
const PREFERENCES = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.autoplay.default": 0,
  "media.autoplay.blocking_policy": 0,
  "app.update.enabled": false,
  "browser.aboutwelcome.enabled": false,
  "browser.safebrowsing.update.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.update.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "network.prefetch-next": false,
  "services.settings.server": "data:,",
  "toolkit.telemetry.enabled": false,
};

/** @param {string} name @param {string} from Debian's package. @param {(string | undefined)[]} files */
function executable(name, from, files) {
  const file = files.find((it) => it && existsSync(it));
  if (!file) throw new Error(`there is no ${name}: install it, for instance with \`apt-get install ${from}\``);
  return file;
}

/** @param {string} folder */
async function soundCard(folder) {
  const socket = path.join(folder, "native");
  const args = ["-n", "--daemonize=no", "--exit-idle-time=-1", "-L", `module-native-protocol-unix socket=${socket} auth-anonymous=1`, "-L", "module-null-sink"];
  const env = { ...process.env, PULSE_RUNTIME_PATH: folder };
  const child = spawn(executable("PulseAudio", "pulseaudio", ["/usr/bin/pulseaudio"]), args, { env, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (log += text));
  const ended = once(child, "exit");
  for (const end = Date.now() + PATIENCE; !existsSync(socket); await new Promise((resolve) => setTimeout(resolve, 50))) {
    if (child.exitCode !== null || Date.now() > end) {
      child.kill("SIGKILL");
      throw new Error(`PulseAudio does not listen:\n${log}`);
    }
  }
  return {
    address: `unix:${socket}`,
    async close() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** One browser, whose first tab it is. */
export async function firefox() {
  const file = executable("Firefox", "firefox-esr", [process.env.FIREFOX, "/usr/bin/firefox", "/usr/bin/firefox-esr"]);
  await mkdir(PICTURES, { recursive: true });
  const profile = await mkdtemp(path.join(tmpdir(), "hearsay-firefox-"));
  await writeFile(path.join(profile, "user.js"), Object.entries(PREFERENCES).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join(""));
  const card = await soundCard(profile);
  const env = { ...process.env, PULSE_SERVER: card.address };
  const child = spawn(file, ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0", "about:blank"], { env, stdio: ["ignore", "ignore", "pipe"] });
  const ended = once(child, "exit");
  let log = "";
  const address = await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`Firefox does not listen:\n${log}`)), PATIENCE);
    child.once("error", reject);
    child.stderr.setEncoding("utf8").on("data", (text) => {
      log += text;
      const [, found] = /WebDriver BiDi listening on (ws:\S+)/.exec(log) ?? [];
      if (!found) return;
      clearTimeout(late);
      resolve(found);
    });
  }).catch(async (error) => {
    child.kill("SIGKILL");
    await card.close();
    throw error;
  });

  const socket = new WebSocket(`${address}/session`);
  await once(socket, "open");
  /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */ const waiting = new Map();
  /** @type {string[]} */ const complaints = [];
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "event") {
      const { level, text, source } = message.params;
      // Of what Firefox itself does in the background nothing is the page's.
      if (["error", "warn"].includes(level) && source?.context) complaints.push(text);
      return;
    }
    const { resolve, reject } = waiting.get(message.id) ?? {};
    waiting.delete(message.id);
    if (message.type === "error") reject?.(new Error(`${message.error}: ${message.message}`));
    else resolve?.(message.result);
  };
  let count = 0;
  /** @param {string} method @param {object} params */
  const ask = (method, params) =>
    new Promise((resolve, reject) => {
      const id = ++count;
      const late = setTimeout(() => reject(new Error(`${method}: no answer within ${PATIENCE} ms`)), PATIENCE);
      const settled = (/** @type {(value: any) => void} */ run) => (/** @type {any} */ value) => (clearTimeout(late), run(value));
      waiting.set(id, { resolve: settled(resolve), reject: settled(reject) });
      socket.send(JSON.stringify({ id, method, params }));
    });

  await ask("session.new", { capabilities: {} });
  await ask("session.subscribe", { events: ["log.entryAdded"] });
  const { contexts } = await ask("browsingContext.getTree", {});
  return {
    ...tab(ask, contexts[0].context),
    /** What their consoles say that is wrong. */
    complaints,
    /** Another one. */
    tab: async () => tab(ask, (await ask("browsingContext.create", { type: "window" })).context),
    async close() {
      await ask("browser.close", {}).catch(() => child.kill("SIGKILL"));
      const late = setTimeout(() => child.kill("SIGKILL"), PATIENCE);
      await ended;
      clearTimeout(late);
      socket.close();
      await card.close();
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** @param {(method: string, params: object) => Promise<any>} ask @param {string} context */
function tab(ask, context) {
  const evaluate = async (/** @type {string} */ expression) => {
    const { result, exceptionDetails } = await ask("script.evaluate", { expression, target: { context }, awaitPromise: true, userActivation: true });
    if (exceptionDetails) throw new Error(exceptionDetails.text);
    return result;
  };
  return {
    version: async () => (await evaluate("navigator.userAgent")).value,
    /** @param {string} url */
    goto: (url) => ask("browsingContext.navigate", { context, url, wait: "complete" }),
    /** What an expression of the page comes to, by way of JSON. @param {string} expression */
    json: async (expression) => JSON.parse((await evaluate(`JSON.stringify(${expression})`)).value ?? "null"),
    /** @param {string} selector */
    click: (selector) => evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`),
    /** @param {string} selector @param {string} file */
    async setFile(selector, file) {
      const { sharedId } = await evaluate(`document.querySelector(${JSON.stringify(selector)})`);
      await ask("input.setFiles", { context, element: { sharedId }, files: [file] });
    },
    /** @param {string} name */
    async picture(name) {
      const { data } = await ask("browsingContext.captureScreenshot", { context });
      await writeFile(path.join(PICTURES, `${name}.png`), Buffer.from(data, "base64"));
    },
  };
}
