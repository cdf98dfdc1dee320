/** WAV files for tests: parts of recordings. */

import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

/** @param {Buffer} file @returns {{ rate: number, data: Buffer }} of a mono 16-bit file. */
export function read(file) {
  const rate = file.readUInt32LE(24);
  for (let at = 12; at < file.length - 8; at += 8 + file.readUInt32LE(at + 4)) {
    if (file.toString("latin1", at, at + 4) === "data") return { rate, data: file.subarray(at + 8, at + 8 + file.readUInt32LE(at + 4)) };
  }
  throw new Error("no WAV data");
}

/** The part of a recording between two seconds, and silence behind it. @param {string} from @param {number} begin @param {number} end @param {number} [silence] */
export function cut(from, begin, end, silence = 0) {
  const { rate, data } = read(readFileSync(from));
  const at = (/** @type {number} */ seconds) => Math.min(data.length, Math.round(seconds * rate) * 2);
  return save(rate, Buffer.concat([data.subarray(at(begin), at(end)), Buffer.alloc(Math.round(silence * rate) * 2)]));
}

/** A recording so many times. @param {string} from @param {number} times */
export function again(from, times) {
  const { rate, data } = read(readFileSync(from));
  return save(rate, Buffer.concat(Array(times).fill(data)));
}

/** @param {number} rate @param {Buffer} samples */
function save(rate, samples) {
  const header = Buffer.alloc(44);
  header.write("RIFF", 0);
  header.writeUInt32LE(36 + samples.length, 4);
  header.write("WAVEfmt ", 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(rate, 24);
  header.writeUInt32LE(rate * 2, 28);
  header.writeUInt16LE(2, 32);
  header.writeUInt16LE(16, 34);
  header.write("data", 36);
  header.writeUInt32LE(samples.length, 40);
  const file = path.join(mkdtempSync(path.join(tmpdir(), "hearsay-browser-")), "part.wav");
  writeFileSync(file, Buffer.concat([header, samples]));
  return file;
}

/** Words without case and punctuation. @param {string} text */
export const words = (text) => text.toLowerCase().replaceAll(/[^a-z0-9' ]+/g, " ").split(" ").filter(Boolean);

/** What is said in beckett.wav. */
export const BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.";

/** How many words must be changed, left out or put in. A busy machine's fake microphone drops samples. @param {string} wanted @param {string} got */
export function errors(wanted, got) {
  const [a, b] = [words(wanted), words(got)];
  let row = b.map((_, index) => index + 1);
  a.forEach((word, at) => {
    let [corner, left] = [at, at + 1];
    row = row.map((above, index) => {
      left = Math.min(above + 1, left + 1, corner + (word === b[index] ? 0 : 1));
      corner = above;
      return left;
    });
  });
  return row.at(-1) ?? a.length;
}
