/**
 * Frames as a statically typed decoder takes them, Go's for one: keys it does not know are passed over, null and absence are the
 * zero value, and everything else must be of its declared type. An integer has neither fraction nor exponent, and a string is
 * never a number.
 */

const speaker = { id: "string", name: "string", userId: "string", email: "string" };
const reference = { id: "string", relation: "string", text: "string", offset: "integer", startTime: "string", endTime: "string" };
const alternative = {
  transcript: "string",
  confidence: "number",
  words: [{ word: "string", startTime: { seconds: "string", nanos: "string" }, endTime: { seconds: "string", nanos: "string" } }],
};
const sentiment = { polarity: { score: "number" }, suggested: "string" };
const sequenceNumber = "integer";

/** By `type`. What a field of a frame is declared as, by the protocol's reference. */
export const FRAMES = {
  message: {
    timeOffset: "integer",
    message: {
      type: "string",
      isFinal: "bool",
      data: { conversationId: "string" },
      payload: { raw: { alternatives: [alternative] } },
      punctuated: { transcript: "string" },
      user: speaker,
      conversationId: "string",
      summaryUrl: "string",
      code: "string",
      details: "string",
      retryAfterMs: "integer",
    },
  },
  message_response: {
    sequenceNumber,
    sentiment: "bool",
    messages: [
      {
        id: "string",
        from: speaker,
        payload: { content: "string", contentType: "string" },
        channel: { id: "string" },
        metadata: { disablePunctuation: "bool", timezoneOffset: "integer", originalContent: "string", words: "string", originalMessageId: "string" },
        dismissed: "bool",
        duration: { startTime: "string", endTime: "string", timeOffset: "number", duration: "number" },
        sentiment,
      },
    ],
  },
  insight_response: {
    sequenceNumber,
    insights: [
      {
        id: "string",
        type: "string",
        confidence: "number",
        messageReference: { id: "string" },
        hints: [{ key: "string", value: "string" }],
        assignee: speaker,
        dueBy: { value: "string" },
        tags: [{ type: "string", text: "string", beginOffset: "integer" }],
        dismissed: "bool",
        text: "string",
        payload: { content: "string", contentType: "string" },
        from: speaker,
      },
    ],
  },
  topic_response: {
    topics: [{ id: "string", type: "string", phrases: "string", score: "number", messageReferences: [reference], rootWords: [{ text: "string" }], messageIndex: "integer" }],
  },
  tracker_response: {
    sequenceNumber,
    isFinal: "bool",
    trackers: [{ id: "string", name: "string", matches: [{ type: "string", value: "string", messageRefs: [reference], insightRefs: [reference] }] }],
  },
  entity_response: {
    sequenceNumber,
    entities: [{ type: "string", subType: "string", category: "string", matches: [{ detectedValue: "string", messageRefs: [reference] }] }],
  },
};

/** Numbers as they are written. @param {string} text */
const literal = (text) => JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g, (token) => (token.startsWith('"') ? token : `{"written":"${token}"}`)));

/**
 * What a decoder with these declarations says against a frame; nothing is right.
 * @param {string} text
 * @param {Record<string, any>} frames
 * @returns {string[]}
 */
export function complaints(text, frames = FRAMES) {
  const value = literal(text);
  const declared = frames[value?.type];
  return declared ? check(value, declared, value.type) : [`no frame is declared as ${JSON.stringify(value?.type)}`];
}

/** @param {any} value @param {any} declared @param {string} path @returns {string[]} */
function check(value, declared, path) {
  if (value === null || value === undefined) return [];
  const wrong = [`${path} is ${JSON.stringify(value)}, declared as ${JSON.stringify(declared)}`];
  const number = typeof value === "object" ? value.written : undefined;
  switch (declared) {
    case "string":
      return typeof value === "string" ? [] : wrong;
    case "bool":
      return typeof value === "boolean" ? [] : wrong;
    case "number":
      return number !== undefined ? [] : wrong;
    case "integer":
      return /^-?\d+$/.test(number ?? "") ? [] : wrong;
  }
  if (typeof value !== "object" || number !== undefined || Array.isArray(value) !== Array.isArray(declared)) return wrong;
  if (Array.isArray(declared)) return value.flatMap((/** @type {any} */ item, /** @type {number} */ index) => check(item, declared[0], `${path}[${index}]`));
  return Object.entries(declared).flatMap(([key, type]) => check(value[key], type, `${path}.${key}`));
}
