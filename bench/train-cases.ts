// What bench/train.ts measures: batches of the miniature world and of random numbers, laid out as training lays them out, what a step on
// them computes, and the files in which both programs read them.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { addon, type NativeModel, type TypeName } from '../lib/addon.js';
import { convert } from '../lib/convert.js';
import { everyPair, findData } from '../lib/data/every-pair.js';
import type { Turn } from '../lib/data/pair.js';
import { writeSafetensors } from '../lib/formats/safetensors-writer.js';
import { readPicture } from '../lib/image.js';
import { ExampleMaker, type ExampleRules } from '../lib/train/examples.js';
import { LLMS, writeLlm, writeVision, type LlmShape } from '../lib/bench/synthetic.js';

/** Rows as NativeTrainingSample has them; the pictures' features of all samples lie in a file. */
export interface Rows {
  ids: number[];
  targets: number[];
}

/** The language model's sizes, as the peer needs them. */
export interface Sizes extends LlmShape {
  epsilon: number;
  theta: number;
  /** Numbers that the projection takes. */
  input: number;
}

export interface Case {
  name: string;
  stage: 1 | 2;
  model: string;
  llm?: string;
  sizes: Sizes;
  samples: Rows[];
  /** float32 [rows with id -1 of all samples, input], raw. */
  features: string;
  /** The same weights for the peer; undefined: random ones, whose values take the same time. */
  weights?: string;
  /** Milliseconds that the frozen vision side took for a picture, where it was asked. */
  visionMs?: number;
  /** The mean loss of the first pairs, which has the four digits that the world's README states. */
  check?: { pairs: number; loss: number; expected: number };
}

/** Products and sums, counted as two, of a step: forward, the way back to the pictures' rows, the projection's gradient. */
export function operationsOf({ sizes: s, samples }: Pick<Case, 'sizes' | 'samples'>): number {
  const head = s.width / s.heads;
  const layer = 2 * s.width * s.width + 2 * s.kvHeads * head * s.width + 3 * s.width * s.mlp;
  let sum = 0;
  for (const { ids, targets } of samples) {
    const rows = ids.length;
    const first = ids.indexOf(-1); // nothing is asked of the rows before
    const pairs = (rows * (rows + 1)) / 2; // a row looks at itself and those before it
    const laterPairs = pairs - (first * (first + 1)) / 2;
    sum += 2 * s.depth * layer * (rows + rows - first);
    sum += s.depth * (4 * s.width * pairs + 8 * s.width * laterPairs); // two products forward, four back
    sum += 2 * 2 * s.vocab * s.width * targets.filter((id) => id >= 0).length;
    sum += 2 * 2 * s.input * s.width * ids.filter((id) => id < 0).length;
  }
  return sum;
}

// ---------------------------------------------------------------- the miniature world

/** `known`: the mean loss of so many first pairs that the world's README states, by the reference in float32. */
interface Stage {
  batch: number;
  known: { pairs: number; loss: string };
  data: string[];
  projection: string;
  rules: ExampleRules;
}

const STAGES: Record<1 | 2, Stage> = {
  1: {
    batch: 32,
    known: { pairs: 16, loss: '0.6573' },
    data: ['stage1', '00000.tar'],
    projection: 'pretrained_minigpt4_stage1.pth',
    rules: { prompts: [], template: '{}', endSymbol: '\n', maxTextLength: 32 },
  },
  2: {
    batch: 12,
    known: { pairs: 12, loss: '0.4478' },
    data: ['stage2', 'cc_sbu_align'],
    projection: 'pretrained_minigpt4_stage2.pth',
    rules: {
      prompts: ['<Img><ImageHere></Img> Describe this image in detail.'],
      template: '###Human: {} ###Assistant: ',
      endSymbol: '###',
      maxTextLength: 160,
    },
  },
};

/** The first pairs of the world's data with the world's own weights in F16, for the peer as float32. */
export async function miniatureCase(world: string, stage: 1 | 2, folder: string, threads: number): Promise<Case> {
  const { batch, known, data, projection, rules } = STAGES[stage];
  const model = join(folder, `miniature-${stage}.gguf`);
  const pretrained = (name: string): string => join(world, 'pretrained', name);
  await convert({
    vit: pretrained('eva_vit_g.pth'),
    qformer: pretrained('blip2_pretrained_flant5xxl.pth'),
    llm: pretrained('vicuna'),
    config: pretrained('config.json'),
    projection: join(world, 'reference_projection', projection),
    out: model,
    type: 'f16',
  });
  const loaded = await addon.loadModel({ model, threads });
  try {
    const pairs = await firstPairs(join(world, 'train', ...data), batch);
    const maker = new ExampleMaker(loaded, rules);
    const samples = pairs.map(({ name, turns }) => {
      const { ids, targets } = maker.example({ name, turns }, 0);
      return { ids: Array.from(ids), targets: Array.from(targets) };
    });
    const {
      path: features,
      visionMs,
      parts,
    } = await writeFeatures(
      loaded,
      pairs.map(({ picture }) => picture),
      join(folder, `miniature-${stage}.f32`),
    );
    const loss = await lossOf(loaded, samples.slice(0, known.pairs), parts);
    if (loss.toFixed(4) !== known.loss)
      throw new Error(`stage ${stage}: ${known.pairs} pairs have the loss ${loss}, expected ${known.loss}`);
    const weights = join(folder, `miniature-${stage}.safetensors`);
    const sizes = await writeWeights(model, weights);
    const check = { pairs: known.pairs, loss, expected: Number(known.loss) };
    return { name: 'miniature f16', stage, model, sizes, samples, features, weights, visionMs, check };
  } finally {
    await loaded.close();
  }
}

async function firstPairs(path: string, count: number) {
  const pairs: { name: string; picture: Uint8Array; turns: Turn[] }[] = [];
  for await (const met of everyPair(await findData(path))) {
    if (!('read' in met)) throw new Error(`${met.shard}: ${met.problem}`);
    pairs.push({ name: met.name, ...(await met.read()) });
    if (pairs.length === count) return pairs;
  }
  throw new Error(`${path}: expected ${count} pairs, found ${pairs.length}`);
}

async function writeFeatures(model: NativeModel, pictures: Uint8Array[], path: string) {
  const parts: Float32Array[] = [];
  let visionMs = 0;
  for (const [turn, picture] of [pictures[0]!, ...pictures].entries()) {
    const { data, width, height } = await readPicture(picture);
    const began = performance.now();
    const features = await model.encodeFeatures(data, width, height);
    if (turn === 0) continue; // the first one wakes threads and fills caches
    visionMs += (performance.now() - began) / pictures.length;
    parts.push(features);
  }
  await writeFile(
    path,
    Buffer.concat(parts.map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength))),
  );
  return { path, visionMs, parts };
}

/** Mean loss a target. */
async function lossOf(model: NativeModel, samples: Rows[], features: Float32Array[]): Promise<number> {
  const trainer = await model.openTrainer();
  try {
    const { loss, targets } = await trainer.evaluate(
      samples.map((sample, i) => ({
        ids: Int32Array.from(sample.ids),
        targets: Int32Array.from(sample.targets),
        features: features[i]!,
      })),
    );
    return loss / targets;
  } finally {
    trainer.close();
  }
}

/** The language model and the projection as float32 under their names in the model file. */
async function writeWeights(model: string, path: string): Promise<Sizes> {
  const { keys, tensors } = await addon.readGguf(model);
  const number = (name: string): number => {
    const value = keys.find(({ key }) => key === name)?.value;
    if (typeof value !== 'number') throw new Error(`${model}: expected the key ${name}`);
    return value;
  };
  const wanted = tensors.filter(({ name }) => /^(blk\.|token_embd|output|mm\.)/.test(name));
  const values: Parameters<typeof writeSafetensors>[1][number][] = [];
  for (const { name, shape } of wanted) values.push({ name, shape, values: await addon.readGgufTensor(model, name) });
  await writeSafetensors(path, values, {});
  return {
    width: number('llama.embedding_length'),
    heads: number('llama.attention.head_count'),
    kvHeads: number('llama.attention.head_count_kv'),
    depth: number('llama.block_count'),
    mlp: number('llama.feed_forward_length'),
    vocab: tensors.find(({ name }) => name === 'output.weight')!.shape[0]!,
    epsilon: number('llama.attention.layer_norm_rms_epsilon'),
    theta: number('llama.rope.freq_base'),
    input: number('minigpt4.projection.input_length'),
  };
}

// ---------------------------------------------------------------- real sizes

/** Tokens around the 32 vectors of a picture: what captions of stage 1 and descriptions of stage 2 with their prompt come to. */
const SHAPES = {
  1: { batch: 64, before: 1, after: 0, answer: 15 },
  2: { batch: 12, before: 8, after: 20, answer: 132 },
} as const;
const PICTURE_ROWS = 32;
const INPUT = 768;

/** Random weights of a real size, random tokens. The vision side has one layer, since features are given: the step does not run it. */
export async function syntheticCase(
  size: string,
  type: TypeName,
  stage: 1 | 2,
  folder: string,
  made: (path: string, write: (path: string) => Promise<void>) => Promise<void>,
): Promise<Case> {
  const { width, heads, kvHeads, depth, mlp, vocab } = LLMS[size]!;
  const llm = join(folder, `llm-${size}-${type}.gguf`);
  const model = join(folder, `projection-to-${width}.gguf`);
  await made(llm, (path) => writeLlm(size, type, path));
  await made(model, (path) => writeVision('f16', path, width, { vit: 1, qformer: 1 }));
  const { batch, before, after, answer } = SHAPES[stage];
  const token = (i: number): number => 3 + ((i * 104729) % (vocab - 3));
  const samples = Array.from({ length: batch }, (_, b): Rows => {
    const text = (count: number, from: number) => Array.from({ length: count }, (_, i) => token(b * 1009 + from + i));
    const said = text(answer, 500);
    const start = [1, ...text(before - 1, 0), ...new Array<number>(PICTURE_ROWS).fill(-1), ...text(after, 100)];
    // the row before an answer's first token predicts it; its last token is only predicted
    return {
      ids: [...start, ...said.slice(0, -1)],
      targets: [...new Array<number>(start.length - 1).fill(-1), ...said],
    };
  });
  const features = join(folder, `features-${stage}.f32`);
  await made(features, async (path) => {
    const values = Float32Array.from({ length: batch * PICTURE_ROWS * INPUT }, (_, i) => Math.sin(i * 12.9898));
    await writeFile(path, new Uint8Array(values.buffer));
  });
  const sizes = { width, heads, kvHeads, depth, mlp, vocab, epsilon: 1e-6, theta: 10000, input: INPUT };
  return { name: `${size} ${type}`, stage, model, llm, sizes, samples, features };
}
