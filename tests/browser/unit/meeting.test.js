/** What a Meeting makes of a server's messages about what was understood. */

import assert from "node:assert/strict";
import test from "node:test";

import { Meeting } from "../lib/hearsay.js";

/** @typedef {import("../lib/hearsay.js").Insight} Insight */

/** One connection that tells whatever a test lets it. */
class Wire extends EventTarget {
  /** @type {Wire} */ static last;
  bufferedAmount = 0;
  /** @type {any} */ onopen = null;
  /** @type {any} */ onmessage = null;

  /** @param {string} url */
  constructor(url) {
    super();
    this.url = url;
    Wire.last = this;
  }
  /** @type {any} */ onclose = null;
  send() {}
  close() {}
  drops(code = 1006, reason = "") {
    this.onclose?.({ code, reason, wasClean: code !== 1006 });
  }
  says(/** @type {any} */ frame) {
    this.onmessage?.({ data: JSON.stringify(frame), origin: "" });
  }
}

/** All that needs no timer has happened. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** @param {import("node:test").TestContext} t @param {(url: string) => any} [answer] */
async function listen(t, answer = () => undefined) {
  const { WebSocket, fetch } = globalThis;
  Object.assign(globalThis, {
    WebSocket: Wire,
    fetch: async (/** @type {string} */ url) => {
      asked.push(new URL(url).pathname);
      const body = answer(url);
      return new Response(JSON.stringify(body ?? { message: "no" }), { status: body ? 200 : 403 });
    },
  });
  t.after(() => Object.assign(globalThis, { WebSocket, fetch }));
  t.mock.timers.reset();
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  /** @type {string[]} */ const asked = [];
  const meeting = new Meeting({ url: "http://h", meeting: "m", token: "a.b.c" });
  /** @type {[string, any][]} */ const seen = [];
  for (const type of ["insight", "retracted", "analytics", "history", "resumed", "gap", "trouble", "degraded", "recovered"]) {
    meeting.addEventListener(type, (event) => seen.push([type, /** @type {CustomEvent} */ (event).detail]));
  }
  meeting.listen();
  await settled();
  Wire.last.onopen?.({});
  return { meeting, seen, asked, wire: Wire.last };
}

const ANA = { id: "m-1", name: "Ana", userId: "ana@example.org" };
const task = (/** @type {object} */ more) => ({
  type: "insight_response",
  insights: [{ id: "i-1", type: "action_item", confidence: 0.9, text: "I will do it.", from: ANA, assignee: ANA, dueBy: { value: "2030-03-05T00:00:00Z" }, revision: 0, retracted: false, evidence: [{ messageId: "s-1", start: 0, end: 9 }], ...more }],
});

test("a later revision replaces, an earlier one does not, and one that is taken back is gone", async (t) => {
  const { meeting, seen, wire } = await listen(t);
  wire.says(task({}));
  assert.deepEqual(seen.pop()?.[1], {
    id: "i-1",
    kind: "action_item",
    text: "I will do it.",
    from: { ...ANA, id: ANA.userId },
    assignee: { ...ANA, id: ANA.userId },
    due: "2030-03-05T00:00:00Z",
    score: 0.9,
    evidence: [{ messageId: "s-1", start: 0, end: 9 }],
    revision: 0,
  });
  wire.says(task({ revision: 2, text: "I will do it tomorrow." }));
  wire.says(task({ revision: 1, text: "I will do it some day." }));
  assert.deepEqual([...meeting.insights.values()].map(({ text }) => text), ["I will do it tomorrow."]);
  assert.equal(seen.length, 1);
  wire.says(task({ revision: 3, retracted: true }));
  wire.says(task({ revision: 3, retracted: true }));
  assert.deepEqual(seen.slice(1), [["retracted", { id: "i-1" }]]);
  assert.equal(meeting.insights.size, 0);
});

test("topics, trackers and entities are insights, too, and a snapshot brings those of before", async (t) => {
  const { meeting, wire } = await listen(t);
  const common = { revision: 0, retracted: false, evidence: [] };
  wire.says({ type: "snapshot", position: "0badcafe:7", conversation: {
    id: "1", members: [], messages: [], partials: [],
    insights: [{ id: "i-1", type: "question", text: "Why?", score: 0.8, from: ANA, evidence: [{ messageId: "s-1", start: 0, end: 4 }], revision: 0 }],
    topics: [{ id: "i-2", type: "topic", text: "annual budget", score: 0.7, evidence: [], revision: 1 }],
    trackers: [{ id: "i-3", type: "tracker", text: "Budget", score: 1, evidence: [], revision: 0 }],
  } });
  wire.says({ type: "topic_response", position: "0badcafe:8", topics: [{ ...common, id: "i-4", phrases: "boats", score: 0.6 }] });
  wire.says({ type: "tracker_response", position: "0badcafe:9", trackers: [{ ...common, id: "i-5", name: "Price" }] });
  wire.says({ type: "entity_response", position: "0badcafe:10", entities: [{ ...common, id: "i-6", type: "date", matches: [{ detectedValue: "Monday" }] }] });
  assert.deepEqual([...meeting.insights.values()].map(({ kind, text }) => [kind, text]), [
    ["question", "Why?"], ["topic", "annual budget"], ["tracker", "Budget"], ["topic", "boats"], ["tracker", "Price"], ["entity", "Monday"],
  ]);
  wire.says({ type: "message", message: { type: "conversation_created", data: { conversationId: "2" } } });
  assert.equal(meeting.insights.size, 0, "another conversation has its own");
});

test("what is known of who was here before is asked for once, and not again where it is refused", async (t) => {
  const earlier = [{ id: "9", name: "stand-up", startTime: "2030-03-01T09:00:00.000Z", topics: ["boats"], summary: [], actionItems: [] }];
  const conversation = { id: "1", members: [ANA, { id: "m-2", name: "Ben" }, { id: "m-3", name: "Eve", userId: "eve" }], messages: [], insights: [], topics: [], partials: [] };
  for (const allowed of [true, false]) {
    const { meeting, seen, asked, wire } = await listen(t, (url) => (allowed && url.includes("m-1") ? { participant: ANA, conversations: earlier } : allowed ? { participant: {}, conversations: [] } : undefined));
    wire.says({ type: "snapshot", position: "0badcafe:7", conversation });
    for (let turn = 0; turn < 20; turn += 1) await settled();
    const path = (/** @type {string} */ id) => `/v1/conversations/1/members/${id}/history`;
    assert.deepEqual(asked, allowed ? [path("m-1"), path("m-3")] : [path("m-1")], "who has no user id is nobody's earlier self");
    assert.deepEqual(seen.map(([type, { participant }]) => [type, participant.name]), allowed ? [["history", "Ana"]] : []);
    assert.deepEqual(meeting.earlier.get(ANA.userId), allowed ? earlier : undefined);
  }
});

const error = (/** @type {string} */ code) => ({ type: "message", message: { type: "error", code, details: `because of ${code}` } });

test("only a token that is minded is called forbidden", async (t) => {
  for (const [code, told] of /** @type {const} */ ([["forbidden", "forbidden"], ["too_fast", "closed"]])) {
    const { seen, wire } = await listen(t);
    wire.says(error(code));
    wire.drops(1008, code);
    assert.deepEqual(seen, [["trouble", { code: told, details: `because of ${code}` }]]);
  }
});

test("a reader that was too slow keeps its meeting", async (t) => {
  const { seen, wire } = await listen(t);
  wire.says({ type: "event", kind: "stream_started", position: "0badcafe:3" });
  wire.says(error("slow_reader"));
  wire.drops(1008, "slow_reader since=0badcafe:4");
  t.mock.timers.tick(250);
  await settled();
  assert.notEqual(Wire.last, wire);
  assert.equal(new URL(Wire.last.url).searchParams.get("since"), "0badcafe:3");
  assert.deepEqual(seen, [], "it is no trouble");
});

test("nothing is said to be whole before a position has come that proves it", async (t) => {
  for (const [frame, whole] of /** @type {const} */ ([
    [{ type: "event", kind: "stream_started", position: "0badcafe:4" }, true],
    [{ type: "gap", from: "0badcafe:3", to: "0badcafe:9", reason: "retention" }, false],
    [{ type: "snapshot", position: "0badcafe:9", conversation: { id: "1" } }, false],
  ])) {
    const { seen, wire } = await listen(t);
    wire.says({ type: "event", kind: "stream_started", position: "0badcafe:3" });
    wire.drops();
    t.mock.timers.tick(250);
    await settled();
    Wire.last.onopen?.({});
    Wire.last.says({ type: "message", message: { type: "conversation_created", data: { conversationId: "1" } } });
    assert.deepEqual(seen, []);
    Wire.last.says(frame);
    Wire.last.says({ type: "event", kind: "stream_started", position: "0badcafe:10" });
    assert.deepEqual(seen.filter(([type]) => type === "resumed"), [["resumed", { whole }]]);
  }
});

test("a gateway that cannot read its log is told of, and that it can again", async (t) => {
  const { seen, wire } = await listen(t);
  const since = "2030-03-04T09:00:00.000Z";
  wire.says({ type: "degraded", since, reason: "log" });
  wire.says({ type: "recovered", since, reason: "log" });
  assert.deepEqual(seen, [["degraded", { since, reason: "log" }], ["recovered", { since, reason: "log" }]]);
});

test("people are remembered up to a bound, who left first to be forgotten", async (t) => {
  const { meeting, wire } = await listen(t);
  const presence = (/** @type {string} */ kind, /** @type {number} */ number) => ({ type: "presence", kind, user: { id: `m-${number}`, name: "x", userId: `u-${number}` } });
  for (let number = 0; number < 1_000; number += 1) wire.says(presence("joined", number));
  wire.says(presence("left", 7));
  wire.says(presence("joined", 1_000));
  wire.says(presence("joined", 1_001));
  assert.equal(meeting.members.size, 1_000);
  assert.deepEqual([0, 1, 7, 1_001].map((number) => meeting.members.has(`u-${number}`)), [false, true, false, true]);
});
