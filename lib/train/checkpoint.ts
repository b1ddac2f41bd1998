// A training run's state as one safetensors file: the projection under the names of the published checkpoints, so that whatever reads
// those reads this; AdamW's moments beside it; and what else the run needs to go on with the same bits, as JSON in the metadata.
import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { NativeTrainerState, ProjectionValues } from '../addon.js';
import { faultIn, randomState } from '../checked-state.js';
import { MiniGptError } from '../errors.js';
import { InputFile } from '../formats/input-file.js';
import { writeSafetensors, type TensorValues } from '../formats/safetensors-writer.js';
import { openSafetensors } from '../formats/safetensors.js';
import { shapeText, type Checkpoint } from '../formats/tensor.js';

/** `format` in a file's metadata: what it is. */
export const checkpointFormat = 'minigpt4-training';
const version = 1;

/** A file that took part, and the SHA-256 of its bytes. */
export interface ModelFile {
  role: string;
  file: string;
  sha256: string;
}

/** All of a run's state but the numbers of the projection and the optimizer. */
export interface RunState {
  /** Optimizer steps done. */
  step: number;
  /** The sections `model`, `datasets` and `run` as they were given. */
  config: Record<string, unknown>;
  models: ModelFile[];
  /** What each process's loader says of its position, and the state of its draws of prompts; by rank. */
  ranks: { loader: unknown; prompts: number[] }[];
  /** Losses of the last steps, for the running mean. */
  losses: number[];
  /** The best validation loss so far. */
  best?: number;
  /** The step that had it. */
  bestStep?: number;
  /** The step whose validation was the last to be finished. */
  validated?: number;
  /** Samples passed over, and answers whose end was cut off by max_txt_len, so far. */
  skipped: number;
  cut: number;
}

export interface TrainingCheckpoint {
  path: string;
  state: RunState;
  trainer: NativeTrainerState;
  /** Of the projection. */
  input: number;
  output: number;
}

const count = z.int({ error: 'a whole number' }).nonnegative({ error: 'a whole number of 0 or more' });
const text = z.string({ error: 'a text' });
const number = z.number({ error: 'a number' });
const list = { error: 'a list' };
const object = { error: 'an object' };
const stateRules = z.object(
  {
    step: count,
    config: z.record(z.string(), z.unknown(), object),
    models: z.array(z.object({ role: text, file: text, sha256: text }, object), list),
    ranks: z
      .array(z.object({ loader: z.unknown(), prompts: randomState }, object), list)
      .min(1, { error: 'one process or more' }),
    losses: z.array(number, list),
    best: number.optional(),
    bestStep: count.optional(),
    validated: count.optional(),
    skipped: count,
    cut: count,
  },
  object,
);

const parts = [
  ['llama_proj', 'values'],
  ['first_moment', 'firstMoment'],
  ['second_moment', 'secondMoment'],
] as const;

/** SHA-256 of the tensors' bytes in the order they are written, and of the state's text. */
function hashOf(tensors: readonly TensorValues[], state: string): string {
  const hash = createHash('sha256');
  for (const { values } of tensors) hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return hash.update(state).digest('hex');
}

/**
 * Writes a checkpoint aside and renames it: whatever fails, the file that was at `path` stays. Errors: those of writeSafetensors, among them a
 * full disk (ERR_FILE_READ).
 */
export async function writeCheckpoint(path: string, trainer: NativeTrainerState, state: RunState): Promise<void> {
  const output = trainer.values.bias.length;
  const input = trainer.values.weight.length / output;
  const tensors = parts.flatMap(([name, part]) => [
    { name: `${name}.weight`, shape: [output, input], values: trainer[part].weight },
    { name: `${name}.bias`, shape: [output], values: trainer[part].bias },
  ]);
  const text = JSON.stringify(state);
  await writeSafetensors(path, tensors, {
    format: checkpointFormat,
    version: String(version),
    sha256: hashOf(tensors, text),
    state: text,
  });
}

/**
 * Reads a checkpoint back and checks all of it. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT (no checkpoint of a run, damaged, incomplete, of
 * a later version).
 */
export async function readCheckpoint(path: string): Promise<TrainingCheckpoint> {
  const fail = (why: string): never => {
    throw new MiniGptError('ERR_FILE_FORMAT', `${path}: ${why}`);
  };
  const file = await openSafetensors(path);
  try {
    const metadata = await readMetadata(path);
    if (metadata['format'] !== checkpointFormat)
      fail('expected a checkpoint of a training run, found other tensors (model.ckpt takes a projection alone)');
    if (metadata['version'] !== String(version))
      fail(`expected version ${version} of the checkpoint format, found ${metadata['version'] ?? 'none'}`);
    let json: unknown;
    try {
      json = JSON.parse(metadata['state'] ?? '');
    } catch (error) {
      fail(`the run's state in it is no JSON: ${(error as Error).message}`);
    }
    const parsed = stateRules.safeParse(json);
    if (!parsed.success) return fail(`the run's state in it is wrong: ${faultIn(json, parsed.error)}`);
    const shape = file.tensors.get('llama_proj.weight')?.shape ?? [];
    const [output = 0, input = 0] = shape;
    if (shape.length !== 2 || output < 1 || input < 1)
      fail(`expected llama_proj.weight of two dimensions, found ${shape.length ? shapeText(shape) : 'none'}`);
    const tensors: TensorValues[] = [];
    const values = async (name: string): Promise<ProjectionValues> => {
      const weight = await floats(file, `${name}.weight`, [output, input]);
      const bias = await floats(file, `${name}.bias`, [output]);
      tensors.push(weight, bias);
      return { weight: weight.values, bias: bias.values };
    };
    const { best, bestStep, validated, ...state } = parsed.data;
    const known = {
      ...(best === undefined ? {} : { best }),
      ...(bestStep === undefined ? {} : { bestStep }),
      ...(validated === undefined ? {} : { validated }),
    };
    const trainer: NativeTrainerState = {
      step: state.step,
      values: await values(parts[0][0]),
      firstMoment: await values(parts[1][0]),
      secondMoment: await values(parts[2][0]),
    };
    if (hashOf(tensors, metadata['state'] ?? '') !== metadata['sha256'])
      fail('it is damaged: the SHA-256 of its numbers and its state is another than the one noted when it was written');
    return { path, state: { ...state, ...known }, trainer, input, output };
  } finally {
    await file.close();
  }
}

async function floats(file: Checkpoint, name: string, shape: number[]): Promise<TensorValues> {
  const tensor = file.tensors.get(name);
  if (tensor?.dtype !== 'f32' || tensor.shape.join() !== shape.join()) {
    const found = tensor ? `${tensor.dtype} ${shapeText(tensor.shape)}` : 'none';
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${file.path}: expected ${name} as f32 ${shapeText(shape)}, found ${found}`,
    );
  }
  const bytes = await tensor.read();
  return { name, shape, values: new Float32Array(bytes.slice().buffer) }; // a copy begins where a float may
}

/** `__metadata__` of a safetensors file whose header openSafetensors has checked. */
async function readMetadata(path: string): Promise<Record<string, string | undefined>> {
  const file = await InputFile.open(path);
  try {
    const length = Number((await file.read(0, 8)).readBigUInt64LE(0));
    const header = JSON.parse((await file.read(8, length)).toString('utf8')) as { __metadata__?: unknown };
    const { __metadata__: found } = header;
    if (typeof found !== 'object' || found === null) return {};
    return Object.fromEntries(Object.entries(found).filter(([, value]) => typeof value === 'string'));
  } finally {
    await file.close();
  }
}
