// Takes the projection out of a checkpoint or model file and writes it for others: PyTorch's original, our GGUF, safetensors.
import { stat } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import { addon, type Addon } from './addon.js';
import { PATCHES_SIDE_BY_SIDE } from './convert/projection.js';
import { PUBLISHED } from './convert/config.js';
import { text, texts, u32 } from './convert/keys.js';
import { hashSources } from './convert/sources.js';
import { FILE_TYPES } from './convert/types.js';
import { Weights } from './convert/weights.js';
import { MiniGptError, abortedError } from './errors.js';
import { kindOf, openCheckpoint } from './formats/checkpoint.js';
import { FileLog } from './formats/file-log.js';
import { openGguf } from './formats/gguf.js';
import { toFloat32 } from './formats/numbers.js';
import { writePth } from './formats/pth-writer.js';
import { writeSafetensors } from './formats/safetensors-writer.js';
import { shapeText, type CheckedRegion } from './formats/tensor.js';
import { checkpointFormat, readCheckpoint } from './train/checkpoint.js';
import { findCheckpoint } from './train/run-folder.js';

/** The one layer that is trained, in float32. */
export interface Projection {
  input: number;
  output: number;
  /** [output, input], row-major. */
  weight: Float32Array;
  /** [output] */
  bias: Float32Array;
  /** 1 with a Q-Former, else how many neighbouring patches stand side by side; undefined where the file does not tell. */
  patchesPerToken: number | undefined;
  /** `projection file-name sha256` of the file. */
  source: string;
}

export const exportFormats = ['pth', 'gguf', 'safetensors'] as const;
export type ExportFormat = (typeof exportFormats)[number];

export interface ExportOptions {
  /** A training checkpoint or its run's folder, `pretrained_minigpt4*.pth`, a projection file, or a model file that has a projection. */
  checkpoint: string;
  format: ExportFormat;
  /** Replaced only when everything went well. */
  out: string;
  /** For `gguf`: the model file that the projection is for. Needed where its width is not a published one and it is no GGUF file. */
  model?: string;
  signal?: AbortSignal;
}

export interface ExportResult {
  path: string;
  format: ExportFormat;
  input: number;
  output: number;
  bytes: number;
  source: string;
}

type ExportNative = Pick<Addon, 'createGgufWriter' | 'readGgufTensor'>;

/**
 * Writes the projection of a file in another format. Errors: those of readProjection and of the writers, ERR_ARGUMENT (`out` is the
 * checkpoint itself). What was at `out` stays then.
 */
export async function exportProjection(options: ExportOptions, native: ExportNative = addon): Promise<ExportResult> {
  const { checkpoint, format, out, model, signal } = options;
  const log = new FileLog();
  const projection = await log.follow(() => readProjection(checkpoint, native, signal));
  const found = await stat(out, { bigint: true }).catch(() => undefined); // no such file yet; any other trouble comes back when it is written
  if (found && log.pathOf(found) !== undefined)
    throw new MiniGptError('ERR_ARGUMENT', `${out} is the checkpoint itself; give another name for the result`);
  if (found && !found.isFile())
    throw new MiniGptError('ERR_ARGUMENT', `${out} is no regular file; expected the name of a file to write`);
  await log.check();
  if (format === 'gguf') await writeProjectionGguf(out, projection, { model, signal }, native);
  else {
    const { input, output, weight, bias } = projection;
    const tensors = [
      { name: 'llama_proj.weight', shape: [output, input], values: weight },
      { name: 'llama_proj.bias', shape: [output], values: bias },
    ];
    if (format === 'pth') await writePth(out, 'model', tensors, signal);
    else await writeSafetensors(out, tensors, { 'minigpt4.sources': projection.source }, signal);
  }
  const { input, output, source } = projection;
  return { path: out, format, input, output, bytes: (await stat(out)).size, source };
}

/**
 * The projection in a training checkpoint (also a run's folder, its `latest` or `best`), a `.pth` or safetensors file in the original's
 * naming, a projection file or a model file. Errors: those of findCheckpoint, kindOf and the readers, ERR_MISSING_TENSOR, ERR_SHAPE, ERR_FILE_FORMAT (numbers that are not finite), ERR_ABORTED.
 */
export async function readProjection(
  from: string,
  native: Pick<Addon, 'readGgufTensor'> = addon,
  signal?: AbortSignal,
): Promise<Projection> {
  const path = await findCheckpoint(from);
  const read = (await kindOf(path)) === 'gguf' ? await fromGguf(path, native) : await fromCheckpoint(path);
  const [output, input] = read.weightShape as [number, number];
  if (read.weightShape.length !== 2 || input < 1 || output < 1)
    throw new MiniGptError(
      'ERR_SHAPE',
      `${path}: the projection's weight has the shape ${shapeText(read.weightShape)}, expected 2 dimensions`,
    );
  if (read.biasShape.length !== 1 || read.biasShape[0] !== output) {
    throw new MiniGptError(
      'ERR_SHAPE',
      `${path}: the projection's bias has the shape ${shapeText(read.biasShape)}, expected [${output}] as its weight has that many rows`,
    );
  }
  for (const [name, values] of [
    ['weight', read.weight],
    ['bias', read.bias],
  ] as const) {
    const bad = values.find((value) => !Number.isFinite(value));
    if (bad !== undefined)
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${path}: the projection's ${name} holds ${bad}; expected finite numbers`,
      );
  }
  const [source] = await hashSources([{ role: 'projection', file: path }], read.regions, signal, () => {});
  const { weight, bias, patchesPerToken } = read;
  return { input, output, weight, bias, patchesPerToken, source: source! };
}

interface Read {
  weightShape: readonly number[];
  biasShape: readonly number[];
  weight: Float32Array;
  bias: Float32Array;
  patchesPerToken: number | undefined;
  regions: CheckedRegion[];
}

async function fromGguf(path: string, native: Pick<Addon, 'readGgufTensor'>): Promise<Read> {
  const file = await openGguf(path);
  try {
    const place = (name: string) => {
      const found = file.tensors.find((tensor) => tensor.name === name);
      if (found) return found;
      const architecture = file.keys.find(({ key }) => key === 'general.architecture')?.value;
      throw new MiniGptError(
        'ERR_MISSING_TENSOR',
        `${path} lacks the tensor ${name}; expected a projection or a model with one, found the architecture ${String(architecture)}`,
      );
    };
    const [weight, bias] = [place('mm.weight'), place('mm.bias')];
    const perToken = file.keys.find(({ key }) => key === 'minigpt4.projection.patches_per_token')?.value;
    return {
      weightShape: weight.shape,
      biasShape: bias.shape,
      weight: await native.readGgufTensor(path, 'mm.weight'),
      bias: await native.readGgufTensor(path, 'mm.bias'),
      patchesPerToken: typeof perToken === 'number' ? perToken : undefined,
      regions: [],
    };
  } finally {
    await file.close();
  }
}

async function fromCheckpoint(path: string): Promise<Read> {
  const checkpoint = await openCheckpoint(path);
  try {
    // a run's state knows its own checksum
    if (checkpoint.notes.includes(`format: ${checkpointFormat}`)) await readCheckpoint(path);
    const weights = new Weights(checkpoint, 'projection');
    const [output, input] = weights.measure('llama_proj.weight', 2) as [number, number];
    const weight = weights.take('llama_proj.weight', [output, input]);
    const bias = weights.take('llama_proj.bias', [output]);
    return {
      weightShape: weight.shape,
      biasShape: bias.shape,
      weight: toFloat32(weight.dtype, await weight.read()),
      bias: toFloat32(bias.dtype, await bias.read()),
      patchesPerToken: undefined,
      regions: (await checkpoint.regions?.()) ?? [],
    };
  } finally {
    await checkpoint.close();
  }
}

/**
 * Writes the small file that `--projection` takes (docs/format.md). `model`: the model file it is for, asked for the patches of a token.
 * Errors: those of the native writer and of openGguf, ERR_SHAPE (the model takes another), ERR_ARGUMENT (no way to tell), ERR_ABORTED.
 */
export async function writeProjectionGguf(
  path: string,
  projection: Projection,
  { model, signal }: { model?: string | undefined; signal?: AbortSignal | undefined } = {},
  native: Pick<Addon, 'createGgufWriter'> = addon,
): Promise<void> {
  const { input, output, weight, bias, source } = projection;
  const perToken = model === undefined ? toldPatches(projection) : await patchesOfModel(model, projection);
  const writer = native.createGgufWriter(
    path,
    [
      text('general.architecture', 'minigpt4-projection'),
      text('general.name', basename(path, extname(path))),
      u32('general.file_type', FILE_TYPES.f32),
      u32('general.quantization_version', 2),
      u32('general.alignment', 32),
      u32('minigpt4.projection.input_length', input),
      u32('minigpt4.projection.output_length', output),
      u32('minigpt4.projection.patches_per_token', perToken),
      texts('minigpt4.sources', [source]),
    ],
    [
      { name: 'mm.weight', type: 'f32', shape: [output, input] },
      { name: 'mm.bias', type: 'f32', shape: [output] },
    ],
  );
  try {
    for (const values of [weight, bias]) {
      if (signal?.aborted) throw abortedError(signal);
      await writer.write('f32', new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
    await writer.finish();
  } catch (error) {
    writer.discard();
    throw error;
  }
}

/** Errors: ERR_ARGUMENT (neither the file nor its width tells). */
function toldPatches({ input, patchesPerToken, source }: Projection): number {
  if (patchesPerToken !== undefined) return patchesPerToken;
  if (input === PUBLISHED.qformer.width) return 1;
  if (input === PATCHES_SIDE_BY_SIDE * PUBLISHED.vit.width) return PATCHES_SIDE_BY_SIDE;
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `the projection in ${source.split(' ')[1]!} takes vectors of ${input}, which is not a published size (${PUBLISHED.qformer.width} with a Q-Former, ` +
      `${PATCHES_SIDE_BY_SIDE * PUBLISHED.vit.width} without): give the model file that it is for (--model)`,
  );
}

/** How many patches the model lays side by side. Errors: those of openGguf, ERR_ARGUMENT (no vision side in it), ERR_SHAPE. */
async function patchesOfModel(path: string, { input, patchesPerToken, source }: Projection): Promise<number> {
  const file = await openGguf(path);
  try {
    const number = (name: string): number | undefined => {
      const value = file.keys.find(({ key }) => key === `minigpt4.${name}`)?.value;
      return typeof value === 'number' ? value : undefined;
    };
    const [vit, qformer] = [number('vit.embedding_length'), number('qformer.embedding_length')];
    if (vit === undefined)
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${path} has no vision side; expected the model file that the projection is for`,
      );
    const perToken = qformer === undefined ? (patchesPerToken ?? PATCHES_SIDE_BY_SIDE) : 1;
    const width = qformer ?? vit * perToken;
    if (input !== width || (patchesPerToken ?? perToken) !== perToken) {
      throw new MiniGptError(
        'ERR_SHAPE',
        `the projection in ${source.split(' ')[1]!} takes vectors of ${input}, but ${path} gives vectors of ${width}; ` +
          'they belong to different models',
      );
    }
    return perToken;
  } finally {
    await file.close();
  }
}
