// Greedy tokens and token ids of a language model file, ours beside node-llama-cpp's. The peer is no dependency: install it into a
// folder of its own (`npm install node-llama-cpp --prefix FOLDER`) and name that folder.
//
//   node --import tsx bench/compare-llama-cpp.ts MODEL.gguf --peer FOLDER [--prompts 20] [--tokens 64] [--texts FILE.json] [--out FILE.json]
//
// MODEL.gguf is a file that both can read: anyone's, or what `minigpt4 convert --only llm` writes. Texts are those of bench/texts.json
// unless a file with another list is given.
//
// Positions after a first difference are compared along the peer's path: at every position our best token is taken after the
// prompt and the peer's own tokens so far, so that one difference neither hides nor causes others.
//
// Where the two part, the margin between both tokens is shown. Both programs round, each in its own way: activations to 8 bits
// beside quantized weights, keys and values to half precision. So two nearly equal logits may change places. How near that is,
// is measured: the same weights are written out in float32, where nothing is rounded, and the root of the mean square of
// (our logit - the exact logit) over the best ten tokens of every position is the noise. A margin is the difference of two logits,
// each with the noise of two programs: up to 4 times the noise (2 standard deviations of 4 such errors) is allowed. The peer's
// noise cannot be seen from outside and is taken to be as large as ours.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { addon, packageRoot, type NativeModel } from '../lib/addon.js';
import { describeFile, writeRecord } from './record.js';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    peer: { type: 'string' },
    prompts: { type: 'string', default: '20' },
    tokens: { type: 'string', default: '64' },
    texts: { type: 'string', default: join(packageRoot, 'bench', 'texts.json') },
    out: { type: 'string' },
  },
});
const path = positionals[0];
if (!path || !values.peer) {
  console.error(
    'usage: compare-llama-cpp.ts MODEL.gguf --peer FOLDER [--prompts N] [--tokens N] [--texts FILE.json] [--out FILE.json]',
  );
  process.exit(2);
}

/** Beginnings of different kinds: prose, questions, lists, code, other languages. */
const PROMPTS = [
  'The capital of France is',
  'Once upon a time, in a small village by the sea,',
  'def fibonacci(n):\n',
  'The three primary colours are',
  'Water boils at a temperature of',
  'To make a good cup of tea, first',
  'Dear Sir or Madam,\n\nI am writing to',
  'List of planets:\n1. Mercury\n2.',
  'In 1969, the first humans',
  'Photosynthesis is the process by which',
  'Q: What is the largest ocean?\nA:',
  'SELECT name, age FROM users WHERE',
  'The quick brown fox',
  'My favourite book is about a',
  'La France est un pays',
  'The difference between a cat and a dog is',
  'function add(a, b) {\n  return',
  'It was a dark and stormy night;',
  'Ingredients: flour, sugar, eggs,',
  'The theory of relativity says that',
].slice(0, Number(values.prompts));
const TOKENS = Number(values.tokens);

/** The part of node-llama-cpp that is used here. */
interface Peer {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<PeerModel> }>;
}
interface PeerModel {
  tokenize(text: string): number[];
  tokens: { bos: number | null; shouldPrependBosToken: boolean };
  createContext(options: object): Promise<{ getSequence(): PeerSequence; dispose(): Promise<void> }>;
}
interface PeerSequence {
  evaluate(tokens: number[], options: object): AsyncGenerator<number>;
}

/** The same model with every weight in float32: no activation is rounded for it. */
async function exactly(file: string, folder: string): Promise<NativeModel> {
  const { keys, tensors } = await addon.readGguf(file);
  const out = join(folder, 'exact.gguf');
  const writer = addon.createGgufWriter(
    out,
    keys,
    tensors.map(({ name, shape }) => ({ name, shape, type: 'f32' as const })),
  );
  for (const { name } of tensors)
    await writer.write('f32', new Uint8Array((await addon.readGgufTensor(file, name)).buffer));
  await writer.finish();
  return addon.loadModel({ llm: out, kvType: 'f32' });
}

const best = (row: Float32Array): number => row.reduce((top, value, at) => (value > row[top]! ? at : top), 0);

const folder = resolve(values.peer);
const entry = createRequire(pathToFileURL(join(folder, 'index.js'))).resolve('node-llama-cpp');
const peer = (await import(pathToFileURL(entry).href)) as Peer;
const llama = await peer.getLlama({ gpu: false, logLevel: 'error', build: 'never' });
const theirs = await llama.loadModel({ modelPath: resolve(path) });
const ours: NativeModel = await addon.loadModel({ llm: path });
const vocabulary = ours.info().vocabulary;

// ---- token ids
const texts = JSON.parse(await readFile(values.texts, 'utf8')) as string[];
const differing = texts.filter((text) => String(Array.from(ours.encode(text))) !== String(theirs.tokenize(text)));
console.log(`token ids: ${texts.length - differing.length} of ${texts.length} texts equal`);
for (const text of differing.slice(0, 10)) {
  console.log(
    `  ${JSON.stringify(text)}: ours ${String(Array.from(ours.encode(text)))}, theirs ${String(theirs.tokenize(text))}`,
  );
}

// ---- greedy tokens
interface Parted {
  prompt: string;
  at: number;
  ours: number;
  theirs: number;
  /** Our logit of our token less that of theirs; the same in exact arithmetic, where either sign is right. */
  margin: number;
  exactMargin: number;
  exact: number;
}
const work = await mkdtemp(join(tmpdir(), 'minigpt4-compare-'));
const exact = await exactly(path, work);
let same = 0;
let oursExact = 0;
let theirsExact = 0;
let squares = 0;
let count = 0;
const parted: Parted[] = [];
const first = theirs.tokens.shouldPrependBosToken ? [theirs.tokens.bos!] : []; // as the file says
for (const prompt of PROMPTS) {
  const ids = [...first, ...ours.encode(prompt)];
  const context = await theirs.createContext({ contextSize: 512, threads: 1 });
  const expected: number[] = [];
  for await (const id of context.getSequence().evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    expected.push(id);
    if (expected.length >= TOKENS) break;
  }
  await context.dispose();
  // token by token along the peer's path, so that one difference does not hide those after it
  const whole = [{ ids: Int32Array.from([...ids, ...expected.slice(0, -1)]) }];
  const logits = (await ours.tracePrompt(whole))['logits']!;
  const exactLogits = (await exact.tracePrompt(whole))['logits']!;
  const before = parted.length;
  expected.forEach((id, i) => {
    const at = (ids.length - 1 + i) * vocabulary;
    const row = logits.subarray(at, at + vocabulary);
    const exactRow = exactLogits.subarray(at, at + vocabulary);
    const [top, exactTop] = [best(row), best(exactRow)];
    if (top === exactTop) ++oursExact;
    if (id === exactTop) ++theirsExact;
    const order = Array.from(exactRow.keys())
      .sort((a, b) => exactRow[b]! - exactRow[a]!)
      .slice(0, 10);
    for (const token of order) squares += (row[token]! - exactRow[token]!) ** 2;
    count += order.length;
    if (top !== id) {
      parted.push({
        prompt,
        at: i,
        ours: top,
        theirs: id,
        margin: row[top]! - row[id]!,
        exactMargin: exactRow[top]! - exactRow[id]!,
        exact: exactTop,
      });
    }
  });
  if (parted.length === before) ++same;
}
const positions = PROMPTS.length * TOKENS;
const noise = Math.sqrt(squares / count);
const allowed = 4 * noise;
const beyond = parted.filter(({ margin }) => margin > allowed).length;
const largestMargin = Math.max(0, ...parted.map(({ margin }) => margin));
console.log(
  `greedy: ${same} of ${PROMPTS.length} prompts equal in all ${TOKENS} tokens; ${parted.length} of ${positions} positions differ`,
);
console.log(`the exact best token: ours in ${oursExact}, theirs in ${theirsExact} of ${positions} positions`);
console.log(
  `noise of one of our logits: ${noise.toFixed(4)}; margins beyond 4 times that: ${beyond}; the largest: ${largestMargin.toFixed(4)}`,
);
for (const { prompt, at, ours: a, theirs: b, margin, exactMargin, exact: e } of parted) {
  const right = e === a ? 'ours' : e === b ? 'theirs' : 'neither';
  console.log(
    `  ${JSON.stringify(prompt)} token ${at}: ours ${a}, theirs ${b}, margin ${margin.toFixed(3)}, exactly ${exactMargin.toFixed(3)}: ${right} is best`,
  );
}
if (values.out) {
  const { version } = JSON.parse(await readFile(join(dirname(dirname(entry)), 'package.json'), 'utf8')) as {
    version: string;
  };
  const record = {
    model: await describeFile(path),
    peer: `node-llama-cpp ${version}`,
    texts: { ...(await describeFile(values.texts)), count: texts.length, equal: texts.length - differing.length },
    prompts: PROMPTS.length,
    tokens: TOKENS,
    same,
    positions,
    oursExact,
    theirsExact,
    noise,
    allowed,
    largestMargin,
    beyond,
    differing: parted.length,
    parted,
  };
  await writeRecord(values.out, record);
}
await ours.close();
await exact.close();
await rm(work, { recursive: true });
process.exit(0); // the peer keeps threads of its own
