// One measurement of bench/full-size.ts, in a process of its own so that its memory is its own. Prints one JSON object.
//
//   full-size-measure.ts load|llm|vision LLM.gguf VISION.gguf '{"repeat": 3, ...}'
import { join } from 'node:path';
import { addon, packageRoot, type NativeModel, type NativePromptPart } from '../lib/addon.js';
import { generateGreedy } from '../lib/generate.js';
import { readPicture } from '../lib/image.js';
import { memoryNow, threadTimes, threadUse, type Memory, type ThreadUse } from './machine.js';

export interface Wishes {
  repeat: number;
  /** Seconds after which a test is not repeated again. */
  patience: number;
  threads?: number;
}

/** One test: the times of its runs in ms, their median, and what the threads did in all of them together. */
export interface Timed {
  runs: number[];
  medianMs: number;
  use?: ThreadUse;
}

export interface Measured {
  loadMs: number;
  loadUse?: ThreadUse;
  afterLoad?: Memory;
  atEnd?: Memory;
  owners: { owner: string; bytes: number; peak: number }[];
  device: string;
  tests: Record<string, Timed>;
}

/** Token counts around the picture when the real vocabulary cuts "Describe this image in detail." in Vicuna's template. */
const BEFORE_PICTURE = 42;
const AFTER_PICTURE = 16;
const PICTURE = join(packageRoot, 'models', 'example.jpg');

function middle(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Runs `once` as often as wished, fewer times when it takes long. */
async function timed({ repeat, patience }: Wishes, once: (turn: number) => Promise<number>): Promise<Timed> {
  const before = threadTimes();
  const began = performance.now();
  const runs: number[] = [];
  for (let turn = 0; turn < repeat; turn++) {
    runs.push(await once(turn));
    if (performance.now() - began > patience * 1000) break;
  }
  const use = threadUse(before);
  return { runs, medianMs: middle(runs), ...(use ? { use } : {}) };
}

/** Ids that differ from turn to turn from the first one on, so that no cached beginning could help. */
function someIds(count: number, vocabulary: number, turn: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => 3 + ((turn * 7919 + i * 104729) % (vocabulary - 3)));
}

async function testLlm(model: NativeModel, wishes: Wishes): Promise<Record<string, Timed>> {
  const { vocabulary } = model.info();
  const ids = (count: number, turn: number): NativePromptPart[] => [{ ids: someIds(count, vocabulary, turn) }];
  await generateGreedy(model, ids(8, 99), 2); // threads, scratch memory and clocks
  const tests: Record<string, Timed> = {};
  for (const count of [64, 512]) {
    tests[`pp${count}`] = await timed(
      wishes,
      async (turn) => (await generateGreedy(model, ids(count, turn), 1)).prefillMs,
    );
  }
  // the first token comes from the prompt's own pass
  tests['tg32'] = await timed(wishes, async (turn) => (await generateGreedy(model, ids(1, turn), 33)).decodeMs);
  return tests;
}

async function testVision(model: NativeModel, wishes: Wishes): Promise<Record<string, Timed>> {
  const { vocabulary } = model.info();
  const picture = await readPicture(PICTURE);
  const encoded = await model.encodeImage(picture.data, picture.width, picture.height);
  const values = encoded.toFloat32Array();
  if (!values.every(Number.isFinite)) throw new Error('the encoded picture has values that are no finite numbers');
  const enc = await timed(
    wishes,
    async () => (await model.encodeImage(picture.data, picture.width, picture.height)).encodeMs,
  );
  const firstToken = await timed(wishes, async (turn) => {
    const began = performance.now();
    const { data, width, height } = await readPicture(PICTURE);
    const image = await model.encodeImage(data, width, height);
    const before = someIds(BEFORE_PICTURE, vocabulary, turn);
    const after = someIds(AFTER_PICTURE, vocabulary, turn + 50);
    const startedAt = performance.now();
    const { firstTokenMs } = await generateGreedy(model, [{ ids: before }, image, { ids: after }], 1);
    return startedAt - began + firstTokenMs;
  });
  return { enc, firstToken };
}

async function main(kind: string, llm: string, vision: string, wishes: Wishes): Promise<Measured> {
  const before = threadTimes();
  const began = performance.now();
  const model = await addon.loadModel({
    llm,
    ...(kind === 'vision' ? { model: vision } : {}),
    ...(wishes.threads === undefined ? {} : { threads: wishes.threads }),
  });
  const loadMs = performance.now() - began;
  const loadUse = threadUse(before);
  const afterLoad = memoryNow();
  const tests =
    kind === 'llm' ? await testLlm(model, wishes) : kind === 'vision' ? await testVision(model, wishes) : {};
  const atEnd = memoryNow();
  const { memory, device } = model.info();
  await model.close();
  return {
    loadMs,
    ...(loadUse ? { loadUse } : {}),
    ...(afterLoad ? { afterLoad } : {}),
    ...(atEnd ? { atEnd } : {}),
    owners: memory.map(({ owner, bytes, peak }) => ({ owner, bytes, peak })),
    device,
    tests,
  };
}

const [kind, llm, vision, wishes] = process.argv.slice(2);
if (!kind || !llm || !vision || !wishes) {
  console.error('usage: full-size-measure.ts load|llm|vision LLM.gguf VISION.gguf WISHES; bench/full-size.ts calls it');
  process.exit(2);
}
console.log(JSON.stringify(await main(kind, llm, vision, JSON.parse(wishes) as Wishes)));
