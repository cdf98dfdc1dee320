/** What hearsay.js decides without sockets, clocks or timers. */

import assert from "node:assert/strict";
import test from "node:test";

import { AudioClock, Backoff, ChunkRing, Cursor, parsePosition, toLinear16, tokenExpiry } from "../lib/hearsay.js";

const chunk = (/** @type {number} */ bytes = 10) => new ArrayBuffer(bytes);
/** @param {ChunkRing} ring */
const sent = (ring) => {
  const all = [];
  for (let entry = ring.take(); entry; entry = ring.take()) all.push(typeof entry.data === "string" ? entry.data : entry.chunk);
  return all;
};

test("a position is read exactly", () => {
  assert.deepEqual(parsePosition("0badcafe:17"), { epoch: "0badcafe", offset: 17 });
  for (const wrong of ["", "17", "0badcafe:", "badcafe:1", "0BADCAFE:1", "0badcafe:-1", "0badcafe:1 ", null, undefined, 7]) {
    assert.equal(parsePosition(wrong), undefined, String(wrong));
  }
});

const final = (/** @type {number} */ offset, epoch = "0badcafe") => [
  { type: "message", message: { type: "recognition_result", isFinal: true }, follows: `${epoch}:${offset - 1}` },
  { type: "message_response", messages: [], position: `${epoch}:${offset}` },
];
const partial = (/** @type {number} */ follows) => ({ type: "message", message: { type: "recognition_result", isFinal: false }, follows: `0badcafe:${follows}` });

test("what a resumed socket is sent again is told from what is new", () => {
  const cursor = new Cursor();
  for (const frame of [...final(3), ...final(4)]) assert.equal(cursor.take(frame), "new");
  assert.equal(cursor.position, "0badcafe:4");
  for (const frame of [...final(3), ...final(4)]) assert.equal(cursor.take(frame), "repeated");
  for (const frame of final(5)) assert.equal(cursor.take(frame), "new");
});

test("an event of which one half came is completed, not repeated", () => {
  const cursor = new Cursor();
  const [caption, message] = final(4);
  for (const frame of final(3)) cursor.take(frame);
  assert.equal(cursor.take(caption), "new");
  // The connection breaks here: the position is still that of the event before.
  assert.equal(cursor.position, "0badcafe:3");
  assert.equal(cursor.take(caption), "repeated");
  assert.equal(cursor.take(message), "new");
  assert.equal(cursor.take(final(5)[0]), "new");
});

test("partials always pass, and say where a socket without a position stands", () => {
  const cursor = new Cursor();
  assert.equal(cursor.take(partial(8)), "new");
  assert.equal(cursor.position, "0badcafe:8");
  assert.equal(cursor.take(partial(8)), "new");
  assert.equal(cursor.take(partial(3)), "new");
  assert.equal(cursor.position, "0badcafe:8");
});

test("filtered positions are no holes, unless all are asked for", () => {
  const cursor = new Cursor();
  cursor.take(final(3)[1]);
  assert.equal(cursor.take(final(9)[1]), "new");
  const all = new Cursor({ contiguous: true });
  all.take(final(3)[1]);
  assert.equal(all.take(final(5)[1]), "hole");
  assert.equal(all.position, "0badcafe:3", "what was missed can still be asked for");
  assert.equal(all.take(final(4)[1]), "new");
  assert.equal(all.take(final(5)[1]), "new");
});

test("a gap moves to where the log goes on", () => {
  const cursor = new Cursor({ contiguous: true });
  cursor.take(final(3)[1]);
  assert.equal(cursor.take({ type: "gap", from: "0badcafe:3", to: "0badcafe:40", reason: "retention" }), "new");
  assert.equal(cursor.take(final(40)[1]), "repeated");
  assert.equal(cursor.take(final(41)[1]), "new");
});

test("a branched history and another conversation are new from their first position on", () => {
  const cursor = new Cursor({ contiguous: true });
  cursor.take(final(30)[1]);
  for (const frame of final(7, "0000beef")) assert.equal(cursor.take(frame), "new");
  assert.equal(cursor.position, "0000beef:7");
  for (const frame of final(7, "0000beef")) assert.equal(cursor.take(frame), "repeated");
});

test("a snapshot stands where it says, and a bare position never goes back", () => {
  const cursor = new Cursor();
  cursor.take({ type: "snapshot", position: "0badcafe:12", conversation: {} });
  assert.equal(cursor.take(final(12)[1]), "repeated");
  cursor.take({ type: "event", kind: "position", position: "0badcafe:20" });
  cursor.take({ type: "event", kind: "position", position: "0badcafe:19" });
  assert.equal(cursor.position, "0badcafe:20");
  // An answer to this client stands in no order.
  assert.equal(cursor.take({ type: "finalized", id: "a", position: "0badcafe:25" }), "new");
  assert.equal(cursor.position, "0badcafe:20");
});

test("waits are anything below a bound that doubles", () => {
  const most = new Backoff({ base: 250, cap: 15_000, random: () => 1 });
  assert.deepEqual([0, 1, 2, 3, 4, 5, 6, 7].map(() => most.next()), [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
  most.reset();
  assert.equal(most.next(), 250);
  assert.equal(most.next(5_000), 5_500, "the server's wish comes on top");
  const least = new Backoff({ random: () => 0 });
  assert.equal(least.next(), 0);
  const many = Array.from({ length: 2_000 }, () => new Backoff({ base: 1_000 }).next());
  assert.ok(Math.min(...many) < 100 && Math.max(...many) > 900, "spread over all of it");
  const long = new Backoff({ random: () => 1 });
  for (let tries = 0; tries < 5_000; tries += 1) assert.ok(Number.isFinite(long.next()));
});

test("chunks are numbered, sent in order and forgotten when acknowledged", () => {
  const ring = new ChunkRing({ before: 0 });
  for (let number = 0; number < 5; number += 1) assert.equal(ring.push(chunk()), number);
  assert.equal(ring.unsentBytes, 50);
  assert.deepEqual(sent(ring), [0, 1, 2, 3, 4]);
  assert.equal(ring.unsentBytes, 0);
  ring.ack(3);
  assert.equal(ring.bytes, 20);
  ring.ack(2);
  assert.equal(ring.acked, 3, "never back");
  assert.equal(ring.lost, 0);
});

test("audio is sent again from the chunk the server lacks", () => {
  const ring = new ChunkRing({ before: 2 });
  for (let number = 0; number < 6; number += 1) ring.push(chunk());
  sent(ring);
  ring.ack(4);
  assert.equal(ring.rewind(3), 0, "a few before the acknowledged are kept");
  ring.push(chunk());
  assert.deepEqual(sent(ring), [3, 4, 5, 6]);
  assert.equal(ring.rewind(0), 2, "two are gone");
  assert.equal(ring.lost, 2);
  assert.deepEqual(sent(ring), [2, 3, 4, 5, 6]);
  assert.equal(ring.rewind(7), 0);
  assert.deepEqual(sent(ring), []);
});

test("a full ring gives up the oldest, and counts what no log holds", () => {
  const ring = new ChunkRing({ maxBytes: 30, before: 10 });
  for (let number = 0; number < 3; number += 1) ring.push(chunk());
  sent(ring);
  ring.ack(1);
  ring.push(chunk());
  assert.equal(ring.lost, 0, "the acknowledged goes first");
  ring.push(chunk());
  assert.equal(ring.lost, 1);
  assert.equal(ring.bytes, 30);
  assert.deepEqual(sent(ring), [3, 4]);
  assert.equal(ring.rewind(1), 1);
  const few = new ChunkRing({ maxEntries: 2 });
  for (let number = 0; number < 5; number += 1) few.push(chunk(1));
  assert.equal(few.lost, 3);
  assert.deepEqual(sent(few), [3, 4]);
  const large = new ChunkRing({ maxBytes: 5 });
  large.push(chunk(100));
  assert.deepEqual(sent(large), [0], "one always fits");
});

test("an acknowledgement of what was never sent forgets nothing", () => {
  const ring = new ChunkRing({ before: 0 });
  ring.push(chunk());
  ring.push(chunk());
  ring.ack(99);
  assert.deepEqual(sent(ring), [0, 1]);
});

test("requests keep their place between the chunks", () => {
  /** @type {string[]} */
  const settled = [];
  const ring = new ChunkRing({ before: 0, settled: (text) => settled.push(text) });
  ring.push(chunk());
  ring.push(chunk());
  ring.request("modify");
  ring.push(chunk());
  ring.request("stop");
  assert.deepEqual(sent(ring), [0, 1, "modify", 2, "stop"]);
  ring.rewind(2);
  assert.deepEqual(sent(ring), ["modify", 2, "stop"], "what held for a chunk is said again before it");
  ring.ack(3);
  assert.deepEqual(settled, ["modify"]);
  ring.rewind(3);
  assert.deepEqual(sent(ring), ["stop"]);
});

test("a new stream gets what was never sent, under new numbers", () => {
  const ring = new ChunkRing();
  for (let number = 0; number < 4; number += 1) ring.push(chunk());
  ring.ack(0);
  ring.take();
  ring.take();
  ring.ack(1);
  assert.equal(ring.restart(), 1, "one was sent and not acknowledged");
  assert.deepEqual([ring.next, ring.acked, ring.lost], [2, 0, 0]);
  assert.deepEqual(sent(ring), [0, 1]);
  assert.equal(ring.push(chunk()), 2);
});

test("a new stream gets no more than it may be given at once, the newest, and every request", () => {
  const ring = new ChunkRing();
  ring.request("modify");
  for (let number = 0; number < 4; number += 1) ring.push(chunk());
  ring.request("stop");
  assert.deepEqual(ring.unsentRequests, ["modify", "stop"]);
  ring.restart(2 * chunk().byteLength);
  assert.deepEqual([ring.next, ring.lost, ring.bytes], [2, 2, 2 * chunk().byteLength + "modifystop".length]);
  assert.deepEqual(sent(ring), ["modify", 0, 1, "stop"]);
  assert.deepEqual(ring.unsentRequests, []);
});

test("the audio clock says when a place of the stream was heard", () => {
  const clock = new AudioClock();
  for (let number = 1; number <= 10; number += 1) clock.heard(40, 1_000 + number * 40);
  assert.equal(clock.ms, 400);
  assert.equal(clock.heardAt(40), 1_040);
  assert.equal(clock.heardAt(50), 1_050);
  assert.equal(clock.heardAt(401), undefined, "not said yet");
  assert.equal(clock.heardAt(0), undefined);
  // Muted for 20 s: the server's clock goes on, the audio does not.
  clock.heard(40, 21_440);
  clock.align(11, 20_440);
  assert.equal(clock.heardAt(20_440), 21_440);
  // A cut within a chunk is no jump.
  const other = new AudioClock();
  for (let number = 1; number <= 3; number += 1) other.heard(40, number * 40);
  other.align(2, 95);
  assert.equal(other.heardAt(40), 40);
  assert.equal(other.since(2), 40);
  assert.equal(other.since(0), 120);
});

test("the audio clock forgets the oldest", () => {
  const clock = new AudioClock(4);
  for (let number = 1; number <= 10; number += 1) clock.heard(10, number * 10);
  assert.equal(clock.heardAt(95), 95);
  assert.equal(clock.since(8), 20);
  clock.align(2, 9_999);
  assert.equal(clock.heardAt(95), 95, "of a chunk that is forgotten nothing is learnt");
});

test("the audio clock of a new stream begins with what is carried over", () => {
  const clock = new AudioClock();
  for (let number = 1; number <= 10; number += 1) clock.heard(40, 1_000 + number * 40);
  clock.restart(3);
  assert.equal(clock.ms, 120);
  assert.equal(clock.heardAt(40), 1_320, "the eighth is the first now");
  clock.heard(40, 1_440);
  assert.equal(clock.heardAt(160), 1_440);
  assert.equal(clock.since(3), 40);
  clock.restart(0);
  assert.deepEqual([clock.ms, clock.heardAt(1)], [0, undefined]);
  clock.heard(40, 2_000);
  assert.equal(clock.heardAt(40), 2_000);
});

test("a token's end is read from its payload", () => {
  const token = (/** @type {object} */ payload) => `e30.${Buffer.from(JSON.stringify(payload)).toString("base64url")}.sig`;
  assert.equal(tokenExpiry(token({ exp: 1_900_000_000, name: "ÿÿÿ>>>???" })), 1_900_000_000_000);
  for (const wrong of [undefined, "", "a.b.c", "no token", token({}), token({ exp: "soon" })]) assert.equal(tokenExpiry(wrong), undefined, wrong);
});

test("samples become signed 16-bit, beyond the range too", () => {
  const out = new Int16Array(6);
  toLinear16(new Float32Array([0, 1, -1, 2, -2]), out, 1);
  assert.deepEqual([...out], [0, 0, 32_767, -32_768, 32_767, -32_768]);
});
