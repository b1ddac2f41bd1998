// Greedy tokens and token ids of a language model file, ours beside node-llama-cpp's. The peer is no dependency: install it into a
// folder of its own (`npm install node-llama-cpp --prefix FOLDER`) and name that folder.
//
//   node --import tsx bench/compare-llama-cpp.ts MODEL.gguf --peer FOLDER [--prompts 20] [--tokens 64] [--texts FILE.json] [--out FILE.json]
//
// Where the two part, our logits of both tokens are shown: activations are rounded to 8 bits in blocks of 32 here and of 32 or 256
// there, so two nearly equal logits may change places.
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { addon, type NativeModel } from '../lib/addon.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    peer: { type: 'string' }, prompts: { type: 'string', default: '20' }, tokens: { type: 'string', default: '64' },
    texts: { type: 'string' }, out: { type: 'string' },
  },
});
const path = positionals[0];
if (!path || !values.peer) {
  console.error('usage: compare-llama-cpp.ts MODEL.gguf --peer FOLDER [--prompts N] [--tokens N] [--texts FILE.json] [--out FILE.json]');
  process.exit(2);
}

/** Beginnings of different kinds: prose, questions, lists, code, other languages. */
const PROMPTS = [
  'The capital of France is', 'Once upon a time, in a small village by the sea,', 'def fibonacci(n):\n', 'The three primary colours are',
  'Water boils at a temperature of', 'To make a good cup of tea, first', 'Dear Sir or Madam,\n\nI am writing to', 'List of planets:\n1. Mercury\n2.',
  'In 1969, the first humans', 'Photosynthesis is the process by which', 'Q: What is the largest ocean?\nA:', 'SELECT name, age FROM users WHERE',
  'The quick brown fox', 'My favourite book is about a', 'La France est un pays', 'The difference between a cat and a dog is',
  'function add(a, b) {\n  return', 'It was a dark and stormy night;', 'Ingredients: flour, sugar, eggs,', 'The theory of relativity says that',
].slice(0, Number(values.prompts));
const TOKENS = Number(values.tokens);

/** The part of node-llama-cpp that is used here. */
interface Peer {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<PeerModel> }>;
}
interface PeerModel {
  tokenize(text: string): number[];
  createContext(options: object): Promise<{ getSequence(): PeerSequence; dispose(): Promise<void> }>;
}
interface PeerSequence {
  evaluate(tokens: number[], options: object): AsyncGenerator<number>;
}

const folder = resolve(values.peer);
const entry = createRequire(pathToFileURL(join(folder, 'index.js'))).resolve('node-llama-cpp');
const peer = (await import(pathToFileURL(entry).href)) as Peer;
const llama = await peer.getLlama({ gpu: false, logLevel: 'error', build: 'never' });
const theirs = await llama.loadModel({ modelPath: resolve(path) });
const ours: NativeModel = await addon.loadModel({ llm: path });
const vocabulary = ours.info().vocabulary;

// ---- token ids
const texts: string[] = values.texts ? (JSON.parse(await readFile(values.texts, 'utf8')) as string[]) : PROMPTS;
const differing = texts.filter((text) => String(Array.from(ours.encode(text))) !== String(theirs.tokenize(text)));
console.log(`token ids: ${texts.length - differing.length} of ${texts.length} texts equal`);
for (const text of differing.slice(0, 10)) {
  console.log(`  ${JSON.stringify(text)}: ours ${String(Array.from(ours.encode(text)))}, theirs ${String(theirs.tokenize(text))}`);
}

// ---- greedy tokens
interface Parted {
  prompt: string;
  at: number;
  ours: number;
  theirs: number;
  margin: number;
}
let same = 0;
const parted: Parted[] = [];
for (const prompt of PROMPTS) {
  const ids = Array.from(ours.encode(prompt));
  const context = await theirs.createContext({ contextSize: 512, threads: 1 });
  const expected: number[] = [];
  for await (const id of context.getSequence().evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    expected.push(id);
    if (expected.length >= TOKENS) break;
  }
  await context.dispose();
  // token by token along the peer's path, so that one difference does not hide those after it
  const stages = await ours.tracePrompt([{ ids: Int32Array.from([...ids, ...expected.slice(0, -1)]) }]);
  const logits = stages['logits']!;
  let equal = true;
  expected.forEach((id, i) => {
    const row = logits.subarray((ids.length - 1 + i) * vocabulary, (ids.length + i) * vocabulary);
    const best = row.reduce((top, value, at) => (value > row[top]! ? at : top), 0);
    if (best === id) return;
    equal = false;
    parted.push({ prompt, at: i, ours: best, theirs: id, margin: row[best]! - row[id]! });
  });
  if (equal) ++same;
}
console.log(`greedy: ${same} of ${PROMPTS.length} prompts equal in all ${TOKENS} tokens; ${parted.length} of ${PROMPTS.length * TOKENS} positions differ`);
for (const { prompt, at, ours: a, theirs: b, margin } of parted) {
  console.log(`  ${JSON.stringify(prompt)} token ${at}: ours ${a}, theirs ${b}, ours ahead by ${margin.toFixed(4)} logits`);
}
if (values.out) {
  await writeFile(values.out, `${JSON.stringify({ texts: texts.length, differing: differing.length, prompts: PROMPTS.length, tokens: TOKENS, same, parted }, undefined, 1)}\n`);
}
await ours.close();
process.exit(0); // the peer keeps threads of its own
