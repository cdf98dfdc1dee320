/** symbl-node 1.0.14. Its token call has a base path of its own; nothing else is told where to go. */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { BECKETT, RATE, appId, appSecret, errors, open, say, until, within } from "./lib/house.js";

const { sdk } = createRequire(import.meta.url)("symbl-node");

/** @type {Awaited<ReturnType<typeof open>>} */ let server;

before(async () => {
  server = await open();
  sdk.oauth2.apiClient.basePath = server.url;
  await sdk.init({ appId, appSecret, basePath: server.url });
});
after(() => server.stop());

const speaker = { userId: "sam@example.com", name: "Sam" };
const config = (more = {}) => ({ meetingTitle: "Clients", encoding: "LINEAR16", sampleRateHertz: RATE, ...more });

test("item 14: a request with an encoding or a rate that is not taken is rejected, and the server stays up", async () => {
  for (const [wrong, told] of [[{ encoding: "MP3" }, /MP3/], [{ sampleRateHertz: 1 }, /sampleRateHertz/]]) {
    const refused = sdk.startRealtimeRequest({ id: `wrong-${Object.keys(wrong)[0]}`, config: config(wrong), speaker, handlers: {} });
    await assert.rejects(within("start", refused), (error) => told.test(JSON.stringify(error) + error?.message));
  }
  assert.equal((await fetch(`${server.url}/healthz`)).status, 200);
});

test("item 27: what is said is heard, and stop() resolves with the conversation", async () => {
  const messages = [];
  const speech = [];
  const handlers = { onSpeechDetected: (message) => speech.push(message), onMessageResponse: (some) => messages.push(...some) };
  const request = await within("start", sdk.startRealtimeRequest({ id: "meeting", config: config(), speaker, handlers }));
  assert.ok(request.conversationId);
  await say((part) => request.sendAudio(part));
  const ended = await within("stop", request.stop());
  assert.equal(ended.conversationId ?? ended.data?.conversationId, request.conversationId, JSON.stringify(ended));
  const text = () => messages.map((message) => message.payload.content).join(" ");
  await until("the last words", () => errors(BECKETT, text()) <= 2);
  assert.ok(speech.length > 0);
});
