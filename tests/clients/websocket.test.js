/** The WebSocket protocol itself: Autobahn's cases against the code that serves clients. */

import assert from "node:assert/strict";
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import { start } from "../browser/lib/server.js";
import { python } from "./lib/python.js";

/** Cases that our limits refuse, by name, and the code that says so: 1009 is a message above 64 KiB, 1008 one in too many frames. */
const REFUSED = Object.entries({
  "9.1": { 1009: [2, 3, 4, 5, 6] },
  "9.2": { 1009: [2, 3, 4, 5, 6] },
  "9.3": { 1008: [1], 1009: [2, 3, 4, 5, 6, 7, 8, 9] },
  "9.4": { 1008: [1], 1009: [2, 3, 4, 5, 6, 7, 8, 9] },
  "9.5": { 1009: [1, 2, 3, 4, 5, 6] },
  "9.6": { 1009: [1, 2, 3, 4, 5, 6] },
}).flatMap(([group, codes]) => Object.entries(codes).flatMap(([code, cases]) => cases.map((number) => [`${group}.${number}`, `FAILED FAILED ${code}`])));
/** Invalid UTF-8 is refused when its message is complete; the suite would have it refused with its first byte, and takes either. */
const LATE = ["6.4.1", "6.4.2", "6.4.3", "6.4.4"].map((name) => [name, "NON-STRICT OK 1007"]);
/** What the protocol leaves open: a message of 256 KiB behind a close, and close codes that nobody has registered. */
const OPEN = [["7.1.6", 1009], ["7.13.1", 1002], ["7.13.2", 1002]].map(([name, code]) => [name, `INFORMATIONAL INFORMATIONAL ${code}`]);

test("every case of the conformance suite holds but those that our limits refuse", async (t) => {
  const server = await start([], { HEARSAY__GATEWAY__ECHO: "true" });
  t.after(() => server.stop());
  const folder = await mkdtemp(path.join(tmpdir(), "hearsay-clients-"));
  // Compression (12 and 13) is not offered, and finding that out case by case takes longer than the rest.
  const args = ["-c", "import sys; from kosoku._cli import main; sys.exit(main())", "-p", "2", "-x", "12.*", "-x", "13.*", "-o", folder];
  const { stdout, stderr } = await python([...args, `${server.url.replace("http", "ws")}/echo`], { patience: 180_000 });
  const report = JSON.parse(await readFile(path.join(folder, "index.json"), "utf8").catch(() => assert.fail(`no report:\n${stdout}\n${stderr}`)));
  const cases = Object.entries(Object.values(report)[0]);
  const found = cases.map(([name, { behavior, behaviorClose, remoteCloseCode }]) => [name, `${behavior} ${behaviorClose} ${remoteCloseCode}`]);
  const others = found.filter(([, how]) => !how.startsWith("OK OK "));
  assert.deepEqual(Object.fromEntries(others), Object.fromEntries([...REFUSED, ...LATE, ...OPEN]));
  assert.equal(cases.length, 301);
});
